"""Built-in plugins that are neither channel nor provider, one folder each."""
