"""Event replay over RPC."""
