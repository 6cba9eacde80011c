"""All steps or none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from openclaw_kernel.reload.apply import Failed, Step, all_or_nothing
from openclaw_kernel.tasks import TaskOwner


class Script:
    """Steps that write down what they do."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.tasks = TaskOwner("test", lambda _name, _error: None)
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    def step(
        self, name: str, *, error: Exception | None = None, undo_error: Exception | None = None, held: bool = False, whole: bool = False
    ) -> Step:
        async def do() -> None:
            if held:
                self.begun.set()
                await self.go_on.wait()
            if error is not None:
                raise error
            self.log.append(name)

        async def undo() -> None:
            if undo_error is not None:
                raise undo_error
            self.log.append(f"-{name}")

        return Step(what=name, do=do, undo=undo, whole=whole)


async def test_all_steps_are_done_in_order() -> None:
    script = Script()
    await all_or_nothing([script.step("a"), script.step("b", whole=True)], script.tasks)
    assert script.log == ["a", "b"]


@pytest.mark.parametrize("whole", [False, True])
async def test_what_was_done_is_undone_in_reverse_when_one_fails(*, whole: bool) -> None:
    script = Script()
    steps = [script.step("a"), script.step("b"), script.step("c", error=ValueError("no"), whole=whole), script.step("d")]
    with pytest.raises(Failed) as caught:
        await all_or_nothing(steps, script.tasks)
    assert script.log == ["a", "b", "-b", "-a"]
    assert (caught.value.step, caught.value.left, str(caught.value.__cause__)) == ("c", [], "no")


async def test_what_cannot_be_undone_is_named_and_keeps_nothing_else_from_being_undone() -> None:
    script = Script()
    steps = [script.step("a"), script.step("b", undo_error=OSError("stuck")), script.step("c", error=ValueError("no"))]
    with pytest.raises(Failed) as caught:
        await all_or_nothing(steps, script.tasks)
    assert (script.log, caught.value.left) == (["a", "b", "-a"], ["b"])


async def cancelled_at(script: Script, steps: list[Step], *, then: Callable[[asyncio.Task[None]], Awaitable[None]]) -> None:
    task = script.tasks.spawn("apply", all_or_nothing(steps, script.tasks))
    await script.begun.wait()
    task.cancel()
    await then(task)
    script.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def at_once(_task: asyncio.Task[None]) -> None:
    """Nothing more happens before it goes on."""


async def test_a_cancellation_undoes_all_that_was_done() -> None:
    script = Script()
    await cancelled_at(script, [script.step("a"), script.step("b", held=True), script.step("c")], then=at_once)
    assert script.log == ["a", "-a"]


async def test_a_cancellation_waits_for_a_step_that_has_to_end_and_the_last_one_counts() -> None:
    script = Script()

    async def again(task: asyncio.Task[None]) -> None:
        await asyncio.sleep(0)
        task.cancel()

    await cancelled_at(script, [script.step("a"), script.step("b", held=True, whole=True)], then=again)
    assert script.log == ["a", "b"]


async def test_a_cancellation_of_a_step_that_has_to_end_undoes_it_where_others_would_follow() -> None:
    script = Script()
    await cancelled_at(script, [script.step("a"), script.step("b", held=True, whole=True), script.step("c")], then=at_once)
    assert script.log == ["a", "b", "-b", "-a"]


async def test_a_second_cancellation_does_not_cut_the_undoing_off() -> None:
    script = Script()
    undoing = asyncio.Event()

    async def slow_undo() -> None:
        undoing.set()
        await script.go_on.wait()
        script.log.append("-slow")

    async def nothing() -> None:
        script.log.append("slow")

    steps = [script.step("a"), Step(what="slow", do=nothing, undo=slow_undo), script.step("b", error=ValueError("no"))]
    task = script.tasks.spawn("apply", all_or_nothing(steps, script.tasks))
    await undoing.wait()
    task.cancel()
    await asyncio.sleep(0)
    script.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.log == ["a", "slow", "-slow", "-a"]
