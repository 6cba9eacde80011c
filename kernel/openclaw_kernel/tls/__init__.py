"""TLS on the gateway's port. Imported only where it is on."""
