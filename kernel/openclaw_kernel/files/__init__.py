"""Files that others change: their state, being told of a change, and what kind of file system they lie on."""
