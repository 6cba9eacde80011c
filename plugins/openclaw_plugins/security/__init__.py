"""The bundled checks of `openclaw-kernel security audit`."""
