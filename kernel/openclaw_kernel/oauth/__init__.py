"""Logins at authorization servers: the device flow of RFC 8628, the tokens it leaves, and their refresh."""
