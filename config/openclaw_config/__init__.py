"""Typed configuration: models, loading, secret references, the commented default file."""
