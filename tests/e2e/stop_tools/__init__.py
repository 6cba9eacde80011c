"""A plugin with tools that are hard to stop."""
