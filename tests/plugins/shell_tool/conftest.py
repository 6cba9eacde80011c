"""Each test starts programs, and some give up on them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_program_outlives_its_loop(ended_children: None) -> None:
    """Ask for it in each test."""
