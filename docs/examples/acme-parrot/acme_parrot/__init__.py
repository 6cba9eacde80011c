"""A model provider that says everything twice."""
