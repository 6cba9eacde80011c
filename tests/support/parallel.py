"""Several processes run the tests of one session; what a session knows as a whole is gathered from them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

_JUDGED = "judged"


def report_judged(config: pytest.Config, frames: int, seconds: float) -> None:
    """From a worker: tell the session how many frames it judged, and how long that took."""
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[_JUDGED] = [frames, seconds]


class WorkerDone:
    """In the process that the workers report to: hands on what each of them judged."""

    def __init__(self, add: Callable[[int, float], None]) -> None:
        """Call `add` once for each worker that ended well."""
        self._add = add

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker ended."""
        frames, seconds = getattr(node, "workeroutput", {}).get(_JUDGED, (0, 0.0))
        self._add(frames, seconds)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A worker sends its reports as UTF-8, and what tests log on purpose is not all of it."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
