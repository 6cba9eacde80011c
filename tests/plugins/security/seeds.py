"""What a seed is."""

from __future__ import annotations

from dataclasses import dataclass

from tests.plugins.security.scenes import Scene


@dataclass(frozen=True)
class Seed:
    """A state folder in which a check finds something, and its neighbour, in which it does not."""

    wrong: Scene
    right: Scene
