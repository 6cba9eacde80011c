"""The audit log over RPC."""
