"""Installed plugins and hosts for the tests of the host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.host.distributions import GOOD, Distributions
from tests.kernel.host.hosting import Hosting, make_hosting


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Distributions]:
    """An empty folder on `sys.path` to install into."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    installed = Distributions(folder)
    yield installed
    installed.forget()


@pytest.fixture
def good(distributions: Distributions) -> Distributions:
    """The same folder with the plugin `good` in it."""
    distributions.add("good", GOOD, kind="channel")
    return distributions


@pytest.fixture
async def hosting(tmp_path: Path) -> AsyncIterator[Callable[..., Hosting]]:
    """Make hosts; each is stopped at the end."""
    made: list[Hosting] = []

    def make(config: dict[str, Any] | None = None, **options: Any) -> Hosting:
        made.append(make_hosting(tmp_path / f"home{len(made)}", config, **options))
        return made[-1]

    yield make
    for each in made:
        await each.stop()
