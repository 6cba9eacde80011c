"""A chat channel over plain TCP: one line, one message."""
