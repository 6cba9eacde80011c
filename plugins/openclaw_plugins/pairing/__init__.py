"""Which devices may connect."""
