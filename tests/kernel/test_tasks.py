"""Every task has an owner, and what a task raises is told once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys

import pytest

from openclaw_kernel.tasks import TaskExited, TaskOwner, run_whole


class Failures:
    """Collects what an owner reports."""

    def __init__(self) -> None:
        self.told: list[tuple[str, BaseException]] = []
        self.event = asyncio.Event()

    def __call__(self, name: str, error: BaseException) -> None:
        self.told.append((name, error))
        self.event.set()


async def fail() -> None:
    raise ValueError("boom")


async def leave() -> None:
    raise SystemExit(3)


async def test_a_task_is_named_by_its_owner() -> None:
    owner = TaskOwner("bells", Failures())
    task = owner.spawn("ring", asyncio.sleep(0, "rung"))
    assert task.get_name() == "bells/ring"
    assert owner.names() == ["bells/ring"]
    assert await task == "rung"
    assert owner.names() == []


async def test_a_failure_is_told_once() -> None:
    failures = Failures()
    owner = TaskOwner("bells", failures)
    task = owner.spawn("ring", fail())
    await asyncio.wait_for(failures.event.wait(), 5)
    with pytest.raises(ValueError, match="boom"):
        await task
    assert [(name, str(error)) for name, error in failures.told] == [("bells/ring", "boom")]


async def test_an_exit_of_a_task_does_not_stop_the_loop() -> None:
    failures = Failures()
    TaskOwner("bells", failures).spawn("ring", leave())
    await asyncio.wait_for(failures.event.wait(), 5)
    ((_, error),) = failures.told
    assert isinstance(error, TaskExited)
    assert isinstance(error.__cause__, SystemExit)


async def test_a_task_nobody_else_holds_is_not_collected() -> None:
    owner = TaskOwner("bells", Failures())
    done = asyncio.Event()

    async def ring() -> None:
        waiting = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, waiting.set_result, None)
        await waiting
        done.set()

    owner.spawn("ring", ring())
    gc.collect()
    await asyncio.wait_for(done.wait(), 5)


async def test_closing_ends_all_and_tells_no_failure() -> None:
    failures = Failures()
    owner = TaskOwner("bells", failures)
    tasks = [owner.spawn(f"ring {number}", asyncio.sleep(60)) for number in range(3)]
    assert await owner.close(1.0) == []
    assert all(task.cancelled() for task in tasks)
    assert failures.told == []


async def test_closing_names_those_that_do_not_end() -> None:
    owner = TaskOwner("bells", Failures())
    release = asyncio.Event()
    began = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            began.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = owner.spawn("ring", stubborn())
    await began.wait()
    assert await owner.close(0.05) == ["bells/ring"]
    release.set()
    await task


async def test_an_owner_may_be_closed_by_its_own_task() -> None:
    owner = TaskOwner("bells", Failures())

    async def close() -> list[str]:
        return await owner.close(1.0)

    assert await owner.spawn("close", close()) == []


async def test_a_closed_owner_takes_no_task() -> None:
    owner = TaskOwner("bells", Failures())
    await owner.close(1.0)
    with pytest.raises(RuntimeError, match="bells/ring: the owner of this task is closed"):
        owner.spawn("ring", asyncio.sleep(0))


def test_nobody_ends_the_loop_of_all_but_its_main(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.call_soon(sys.exit, 3)
        task = loop.create_task(leave())
        await asyncio.wait({task})
        with pytest.raises(SystemExit):
            task.result()
        await asyncio.sleep(0)
        return "done"

    assert run_whole(main()) == "done"
    assert [record.message for record in caplog.records if "it is not heeded" in record.message] == [
        "something outside of the owned tasks called sys.exit(3); it is not heeded"
    ] * 2


def test_the_main_itself_may_exit() -> None:
    with pytest.raises(SystemExit, match="3"):
        run_whole(leave())


def test_a_task_that_ignores_its_cancellation_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """P15: what was abandoned must not keep the process from ending either."""
    caplog.set_level("ERROR")
    ended = False

    async def deaf() -> None:
        while not ended:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(600)

    async def main() -> str:
        owner = TaskOwner("tools", failed)
        owner.spawn("deaf", deaf())
        await asyncio.sleep(0)
        return "done"

    def failed(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    assert run_whole(main()) == "done"
    ended = True
    assert "tools/deaf does not end when cancelled" in caplog.text
    gc.collect()
