"""Every config that was accepted: immutable, numbered, with who wanted it and why, and the bytes of its files."""

from openclaw_kernel.generations.book import Generations
from openclaw_kernel.generations.files import GenerationFiles, LastGood

__all__ = ["GenerationFiles", "Generations", "LastGood"]
