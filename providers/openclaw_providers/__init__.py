"""Built-in providers, one folder each."""
