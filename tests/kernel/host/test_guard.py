"""The fence lets our own cancellation through and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from openclaw_kernel.host.guard import Guard, PluginFault, PluginHung


def fail() -> None:
    raise SystemExit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_direct_call_is_fenced() -> None:
    with pytest.raises(PluginFault) as fault:
        Guard().call("bells", "the call", fail)
    assert str(fault.value) == "plugin 'bells': the call raised SystemExit: 3; update the plugin or disable it"
    assert isinstance(fault.value.error, SystemExit)


def test_the_owners_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        Guard().call("bells", "the call", interrupt)


async def test_a_call_that_hangs_on_its_thread_is_abandoned_by_name() -> None:
    guard = Guard()
    release = threading.Event()
    ended = threading.Event()

    def hang() -> None:
        try:
            release.wait()
        finally:
            ended.set()

    with pytest.raises(PluginHung, match=r"'bells': the call did not end in 0\.05 s"):
        await guard.run_sync("bells", "the call", hang, 0.05)
    assert guard.abandoned == ["bells: the call"]
    release.set()
    assert await asyncio.to_thread(ended.wait, 5)


async def test_a_call_returns_its_value() -> None:
    async def value() -> int:
        return 3

    guard = Guard()
    assert await guard.run_sync("bells", "the call", lambda: 3, 1.0) == 3
    assert await guard.run("bells", "the call", value, 1.0) == 3
    assert await guard.run("bells", "the call", value, None) == 3


async def test_our_own_cancellation_reaches_the_call_and_passes() -> None:
    guard = Guard()
    began = asyncio.Event()
    cancelled = asyncio.Event()

    async def wait() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(guard.run("bells", "the call", wait, 30.0))
        await began.wait()
        task.cancel()
    assert task.cancelled()
    assert cancelled.is_set()
    assert guard.abandoned == []


async def test_a_call_that_ignores_its_deadline_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_kernel.host.guard.CANCEL_GRACE_SECONDS", 0.05)
    guard = Guard()
    release = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    with pytest.raises(PluginHung):
        await guard.run("bells", "the call", stubborn, 0.05)
    assert guard.abandoned == ["bells: the call"]
    release.set()
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_cancelled_iteration_passes_as_cancellation() -> None:
    guard = Guard()
    began = asyncio.Event()

    async def events() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in guard.iterate("bells", "the call", events):
            began.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(consume())
        await began.wait()
        task.cancel()
    assert task.cancelled()


async def test_a_call_is_not_late_where_another_kept_the_loop_from_running() -> None:
    async def quick() -> str:
        for _ in range(4):
            await asyncio.sleep(0.01)
        return "done"

    call = asyncio.ensure_future(Guard().run("bells", "the call", quick, 0.1))
    await asyncio.sleep(0.01)
    time.sleep(0.3)  # noqa: ASYNC251 - the block is the point
    assert await call == "done"
