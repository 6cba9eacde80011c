"""A restart that was asked for: what becomes of it where it cannot be."""

from __future__ import annotations

import pytest

from openclaw_kernel.restart import RestartDesk
from openclaw_kernel.tasks import TaskOwner
from tests.plugins.conversation.harness import until


@pytest.mark.parametrize("fault", [OSError(24, "Too many open files"), RuntimeError("no thread can be started")])
async def test_a_check_that_breaks_keeps_no_later_restart_from_being_asked_for(fault: Exception) -> None:
    failed: list[BaseException] = []
    tasks = TaskOwner("desk", lambda _, error: failed.append(error))
    faults = [fault]

    async def check() -> None:
        if faults:
            raise faults.pop()

    desk = RestartDesk(boot_id="x", check=check, spawn=tasks.spawn)
    desk.begin("first", 0)
    await until(lambda: failed, "the end of the check")
    assert (failed, desk.pending) == ([fault], False)
    desk.begin("second", 0)
    await until(desk.wanted.is_set, "the restart")
    assert desk.reason == "second"
    await tasks.close(1.0)
