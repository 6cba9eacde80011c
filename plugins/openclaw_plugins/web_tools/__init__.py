"""The tool `fetch`, and the one guarded way out to the web."""
