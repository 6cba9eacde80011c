"""Sixty crashes of a real gateway under load: `make crash` is the same with five hundred."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.crash.soak import PLAIN, soak

CYCLES = 60
FEWEST_POINTS = 150
"""Commits alone are some forty: fewer points than this, and the awaits are not watched."""


@pytest.mark.timeout(400)
async def test_whenever_it_is_killed_each_message_ends_once(tmp_path: Path) -> None:
    """P1, P4, P5, P9, P10, P15."""
    seed = secrets.randbelow(100_000)
    summary = await soak(tmp_path, seed=seed, cycles=CYCLES, kinds=(PLAIN,))
    assert summary.faults == [], (
        "\n".join(summary.faults) + f"\nrepeat it with: make crash ARGS='--cycles {CYCLES} --seed {seed} --kinds {PLAIN}'"
    )
    assert summary.cycles >= CYCLES
    assert summary.points >= FEWEST_POINTS, summary
    assert len(summary.died_at) >= CYCLES // 4, summary
