"""What keeps a gateway from working, or soon will: the checks of `openclaw-kernel doctor`."""
