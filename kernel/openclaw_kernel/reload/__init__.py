"""How a configuration is taken live: what changed, what that does to whom, and bringing it about or leaving all as it was."""
