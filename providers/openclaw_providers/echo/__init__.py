"""A model provider without a model, for tests and for trying the gateway out."""
