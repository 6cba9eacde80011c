"""The state folder in one file: made while the gateway runs, checked without it, put back as a whole."""
