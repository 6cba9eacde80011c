"""The only caller of `create_task`: every task has a name and an owner, and no exception of a task is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

logger: Final = logging.getLogger(__name__)

LAST_SECONDS: Final = 1.0

ValueT = TypeVar("ValueT")


class TaskExited(Exception):
    """A task raised `SystemExit`, which would have stopped the whole gateway."""


class TaskOwner:
    """Owns tasks: keeps them alive, names them `owner/name`, reports each failure once, ends them together.

    `on_failure` gets the task's name and its exception; it is called on the loop and must not raise.
    """

    def __init__(self, name: str, on_failure: Callable[[str, BaseException], None]) -> None:
        self.name = name
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run the coroutine as the task `owner/name`; raise `RuntimeError` once the owner is closed."""
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"{self.name}/{name}: the owner of this task is closed")
        task = asyncio.get_running_loop().create_task(_without_exit(coroutine), name=f"{self.name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, coroutine))
        return task

    def __len__(self) -> int:
        """Return how many tasks run."""
        return len(self._tasks)

    def names(self) -> list[str]:
        """Return the names of the tasks that run."""
        return sorted(task.get_name() for task in self._tasks)

    async def close(self, timeout: float) -> list[str]:
        """Cancel every task and wait up to `timeout` seconds; return the names of those that did not end."""
        self._closed = True
        waiting = {task for task in self._tasks if task is not asyncio.current_task()}
        for task in waiting:
            task.cancel(f"{self.name} is closing")
        if not waiting:
            return []
        _, hung = await asyncio.wait(waiting, timeout=timeout)
        return sorted(task.get_name() for task in hung)

    def _ended(self, task: asyncio.Task[Any], coroutine: Coroutine[Any, Any, Any]) -> None:
        # A task cancelled before its first step never entered its coroutine, which would warn that nobody awaited it.
        coroutine.close()
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._on_failure(task.get_name(), error)


def run_whole(main: Coroutine[Any, Any, ValueT]) -> ValueT:
    """Run as `asyncio.run` does, to the end of `main`: what another task or a callback of a library raises to exit is logged.

    A task that takes no notice of its cancellation, which `asyncio.run` would wait for, is named and left where it is.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    task = loop.create_task(main, name="main")
    try:
        while True:
            try:
                return loop.run_until_complete(task)
            except SystemExit as error:
                if task.done():
                    raise
                logger.exception("something outside of the owned tasks called sys.exit(%r); it is not heeded", error.code)
    finally:
        try:
            if not task.done():
                # Interrupted: it clears up, however long that takes.
                task.cancel()
                loop.run_until_complete(asyncio.wait({task}))
            _end_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    waiting = asyncio.all_tasks(loop)
    for task in waiting:
        task.cancel("the gateway has ended")
    if not waiting:
        return
    ended, hung = loop.run_until_complete(asyncio.wait(waiting, timeout=LAST_SECONDS))
    for task in ended:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("%s failed while the gateway ended", task.get_name(), exc_info=error)
    for task in hung:
        logger.error("%s does not end when cancelled; the gateway ends all the same", task.get_name())


async def _without_exit(coroutine: Coroutine[Any, Any, Any]) -> Any:
    # asyncio lets SystemExit of any task through `run_forever`: one task would end the process.
    try:
        return await coroutine
    except SystemExit as error:
        raise TaskExited(f"called sys.exit({error.code!r})") from error
