"""The hook between awaits: it sees each of them, and a task behind it is a task as any other."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.crash import points
from tests.crash.points import Fault, Names, Watched

HERE = Path(__file__).relative_to(points.ROOT).as_posix()
WHERE = contextvars.ContextVar("where", default="outside")


@pytest.fixture
def met() -> list[str]:
    """The points of this file that tasks come to."""
    return []


@pytest.fixture(autouse=True)
async def watched(met: list[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Every task of the test's loop, with this file for the way."""
    monkeypatch.setattr(points, "WAY", {HERE: "here"})
    loop = asyncio.get_running_loop()
    names = Names()

    def factory(its_loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Watched(coroutine, names, met.append), loop=its_loop, **options)

    loop.set_task_factory(factory)
    yield
    loop.set_task_factory(None)


def steps(met: list[str]) -> list[str]:
    """Function and what happened, without the line and without the tests' own."""
    found = [f"{point.partition(':')[0].removeprefix('here.')} {point.rpartition(' ')[2]}" for point in met]
    return [step for step in found if not step.startswith("test_")]


async def inner() -> str:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return WHERE.get()


async def outer() -> str:
    return await inner()


async def numbers() -> AsyncIterator[int]:
    for number in range(2):
        await asyncio.sleep(0)
        yield number


async def test_each_await_is_two_points_by_the_innermost_frame(met: list[str]) -> None:
    assert await asyncio.create_task(outer()) == "outside"
    assert steps(met) == ["outer resumed", "inner waiting", "inner resumed", "inner waiting", "inner resumed"]
    lines = {point.split()[0] for point in met if ".inner:" in point or ".outer:" in point}
    assert len(lines) == 3


async def test_it_looks_through_asynchronous_generators(met: list[str]) -> None:
    async def read() -> list[int]:
        async with aclosing(numbers()) as stream:  # type: ignore[type-var]
            return [await anext(stream), *[number async for number in stream]]

    assert await asyncio.create_task(read()) == [0, 1]
    assert steps(met).count("numbers waiting") == 2


async def test_a_task_keeps_its_context_its_name_and_its_place_as_the_current_one(met: list[str]) -> None:
    async def look() -> tuple[str, str]:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.get_name(), WHERE.get()

    context = contextvars.copy_context()
    context.run(WHERE.set, "inside")
    task = asyncio.create_task(look(), name="looks", context=context)
    assert "look" in repr(task)
    assert await task == ("looks", "inside")


async def test_a_cancellation_reaches_the_coroutine_and_may_be_caught(met: list[str]) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "went on"

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "went on"
    assert steps(met) == ["stubborn resumed", "stubborn waiting"] * 2 + ["stubborn resumed"]


async def test_what_a_task_raises_is_raised(met: list[str]) -> None:
    async def fail() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await asyncio.create_task(fail())


def test_a_fault_writes_each_point_once_and_kills_at_the_hit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr("tests.crash.points.os.kill", lambda pid, number: killed.append(number))
    fault = Fault(log=tmp_path / "points.log", kill_at="b", hit=2)
    for point in ("a", "b", "a"):
        fault(point)
    assert killed == []
    fault("b")
    assert killed == [signal.SIGKILL]
    assert (tmp_path / "points.log").read_text().split() == ["a", "b"]
