"""IRC channel for openclaw-kernel."""
