"""A model provider that asks a server over HTTP."""
