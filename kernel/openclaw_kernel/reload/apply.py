"""All steps, or none: what was done is undone in reverse when one fails, whatever it fails with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from openclaw_kernel.tasks import TaskOwner

logger = logging.getLogger("openclaw.reload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, which leaves nothing behind when it fails, and how it is taken back once it was done."""

    what: str
    do: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]]
    whole: bool = False
    """Once begun it ends: a cancellation waits for it."""


class Failed(Exception):
    """A step failed and everything is as it was, unless `left` names what could not be taken back. The cause is the step's error."""

    def __init__(self, step: str, left: Sequence[str]) -> None:
        super().__init__(step)
        self.step = step
        self.left = left


async def all_or_nothing(steps: Sequence[Step], tasks: TaskOwner) -> None:
    """Do the steps in order.

    Raises:
        Failed: one failed.
        asyncio.CancelledError: it was cancelled; everything is as it was, unless the last step was done by then.
    """
    done: list[Step] = []

    async def do(step: Step) -> None:
        await step.do()
        done.append(step)

    try:
        for step in steps:
            await (_uninterrupted(step.what, partial(do, step), tasks) if step.whole else do(step))
    except BaseException as error:
        if len(done) == len(steps):
            raise
        left: list[str] = []
        await _uninterrupted("undo", lambda: _undo(done, left), tasks)
        if isinstance(error, Exception):
            raise Failed(steps[len(done)].what, left) from error
        raise


async def _undo(done: Sequence[Step], left: list[str]) -> None:
    for step in reversed(done):
        try:
            await step.undo()
        except Exception:
            logger.exception("%s cannot be taken back", step.what)
            left.append(step.what)


async def _uninterrupted(what: str, work: Callable[[], Awaitable[None]], tasks: TaskOwner) -> None:
    """Await to the end whatever cancels us meanwhile; pass the cancellation on afterwards."""
    task = tasks.spawn(what, _run(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
