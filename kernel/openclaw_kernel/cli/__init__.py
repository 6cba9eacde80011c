"""The command line: parse, call, print. Only `run` imports the server."""
