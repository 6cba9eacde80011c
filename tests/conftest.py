"""What every test has at hand."""

from __future__ import annotations

pytest_plugins = [
    "pytester",
    "tests.support.requirements",
    "tests.support.parallel",
    "tests.support.frames",
    "tests.support.gateway",
    "tests.support.ended_children",
]
