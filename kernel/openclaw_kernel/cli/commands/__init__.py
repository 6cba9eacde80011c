"""One file a command: `add` puts it into the parser, `run` does it and returns the exit code."""
