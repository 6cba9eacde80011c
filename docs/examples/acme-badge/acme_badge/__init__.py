"""An authenticator of the badges of Acme."""
