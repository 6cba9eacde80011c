"""Distributions of plugins on disk: pip in a process of its own, and what it changed put back."""
