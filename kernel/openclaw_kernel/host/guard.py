"""The fence around plugin code: the one place that may catch everything a plugin raises.

A fault leaves here as `PluginFault`, which names the plugin, what it was doing, what happened and the cure. Our own
cancellation and KeyboardInterrupt pass.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

from openclaw_kernel.host.contract import ContractBroken
from openclaw_kernel.host.flow import Flow, is_exhausted
from openclaw_kernel.host.lines import encodable, one_line
from openclaw_kernel.tasks import TaskExited, TaskOwner

logger: Final = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")

CANCEL_GRACE_SECONDS: Final = 1.0
"""How long a cancelled call of a plugin may take to end before it is abandoned."""

_AWAKE_SECONDS: Final = 0.5
"""How much of a deadline one pause of the event loop can use up, or half of the deadline where that is less."""


class PluginFault(Exception):
    """Something a plugin did wrong. `error` is what it raised, None where it hung or broke the contract."""

    def __init__(self, plugin_id: str, what: str, happened: str, cure: str, error: BaseException | None = None) -> None:
        self.plugin_id = plugin_id
        self.what = what
        self.error = error
        self.reason = f"{what} {happened}; {cure}"
        super().__init__(f"plugin {plugin_id!r}: {self.reason}")


class PluginHung(PluginFault):
    """A call of a plugin did not end in its time and was abandoned."""


class PluginBlockedLoop(BaseException):
    """Raised by the watchdog inside plugin code that keeps the event loop from running.

    Not an `Exception`, so that the plugin's own `except Exception` in a loop does not swallow it.
    """

    def __init__(self, plugin_id: str) -> None:
        super().__init__(f"plugin {plugin_id!r} blocked the event loop; await, or use asyncio.to_thread")
        self.plugin_id = plugin_id


class _Abandoned(BaseException):
    """Raised in an abandoned thread, so that a loop without an end does not take the processor from all others."""


def _break_off(thread: threading.Thread) -> None:
    import ctypes

    if thread.ident is not None:
        # It is noticed with the thread's next instruction; what waits for a lock or the system sleeps on, at no cost.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Abandoned))


def describe(error: BaseException) -> str:
    """Return one line that says what was raised."""
    name, text = type(error).__name__, one_line(text_of(error))
    return f"{name}: {text}" if text else name


def text_of(error: BaseException) -> str:
    """Return `str(error)`, whatever the error's `__str__` does."""
    try:
        return encodable(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as second:
        return f"(its text raised {type(second).__name__})"


def fault_of(plugin_id: str, what: str, error: BaseException) -> PluginFault:
    """Wrap what plugin code raised; a fault stays itself."""
    if isinstance(error, PluginFault):
        return error
    if isinstance(error, ContractBroken):
        return PluginFault(plugin_id, what, error.happened, error.cure)
    cure = "update the plugin or disable it"
    return PluginFault(plugin_id, what, f"raised {describe(error)}", cure, error)


_MEANT_FOR_THE_CALLER: Final = (Exception, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit)


def contained(plugin_id: str, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, of the same kind, with what would end the process or pass every handler turned into `PluginFault`.

    For functions whose ordinary exceptions mean something to their caller.
    """

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except _MEANT_FOR_THE_CALLER:
            raise
        except BaseException as error:
            raise fault_of(plugin_id, what, error) from error

    @functools.wraps(function)
    async def call_async(*arguments: Any) -> Any:
        try:
            return await function(*arguments)
        except _MEANT_FOR_THE_CALLER:
            raise
        except BaseException as error:
            raise fault_of(plugin_id, what, error) from error

    return call_async if inspect.iscoroutinefunction(function) else call


def or_else(plugin_id: str, what: str, function: Callable[..., ValueT], otherwise: ValueT) -> Callable[..., ValueT]:
    """Return the function with whatever it raises logged and answered by `otherwise`."""

    @functools.wraps(function)
    def call(*arguments: Any) -> ValueT:
        try:
            return function(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            fault = fault_of(plugin_id, what, error)
            logger.error("%s", fault, exc_info=fault.error)  # noqa: TRY400 - the plugin's traceback, without ours
            return otherwise

    return call


class Guard:
    """Runs plugin code with a deadline. Calls that hang are abandoned, kept by name in `abandoned`."""

    def __init__(self) -> None:
        self.abandoned: list[str] = []
        self._tasks = TaskOwner("guard", self._late_failure)

    def call(self, plugin_id: str, what: str, function: Callable[[], ValueT]) -> ValueT:
        """Call at once, on this thread; for hooks on the hot path. Raise `PluginFault`."""
        try:
            return function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise fault_of(plugin_id, what, error) from error

    async def run_sync(self, plugin_id: str, what: str, function: Callable[[], ValueT], deadline: float) -> ValueT:
        """Call on a helper thread of its own; raise `PluginFault`, `PluginHung` after `deadline` seconds."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if not outcome.done():
                outcome.set_result((value, error))

        def body() -> None:
            value: ValueT | None = None
            caught: BaseException | None = None
            try:
                value = function()
            except BaseException as error:
                caught = error
            try:
                loop.call_soon_threadsafe(settle, value, caught)
            except (RuntimeError, _Abandoned):
                logger.debug("plugin %r: %s ended after the event loop", plugin_id, what)

        thread = threading.Thread(target=body, name=f"plugin {plugin_id} {what}", daemon=True)
        thread.start()
        done, _ = await asyncio.wait({outcome}, timeout=deadline)
        if not done:
            _break_off(thread)
            raise self._abandon(plugin_id, what, deadline)
        value, caught = outcome.result()
        if caught is not None:
            raise fault_of(plugin_id, what, caught) from caught
        return value  # type: ignore[no-any-return]  # what `function` returned

    async def run(self, plugin_id: str, what: str, function: Callable[[], Awaitable[ValueT]], deadline: float | None) -> ValueT:
        """Call and await; raise `PluginFault`, `PluginHung` after `deadline` seconds.

        On our own cancellation the call is cancelled too, and abandoned where it does not end within a second.
        """
        task = self._tasks.spawn(f"{plugin_id} {what}", _awaited(function))
        try:
            await _wait_awake(task, deadline)
        except asyncio.CancelledError:
            await self._cancel(plugin_id, what, task)
            raise
        if not task.done():
            await self._cancel(plugin_id, what, task)
            raise _hung(plugin_id, what, deadline or 0.0)
        if task.cancelled():
            raise PluginFault(plugin_id, what, "was cancelled by itself", "update the plugin or disable it")
        error = _raised_by(task)
        if error is not None:
            raise fault_of(plugin_id, what, error) from error
        result: ValueT = task.result()
        return result

    async def iterate(self, plugin_id: str, what: str, function: Callable[[], AsyncIterator[ValueT]]) -> AsyncGenerator[ValueT, None]:
        """Iterate over what the plugin yields; raise `PluginFault`. Closing this closes the plugin's iterator.

        The iterator runs in a task of its own, so that one that swallows its cancellation holds up nobody for longer than a second.
        """
        iterator = self.call(plugin_id, what, function)
        if not hasattr(iterator, "__anext__"):
            # A coroutine nobody awaits would warn.
            getattr(iterator, "close", lambda: None)()
            raise PluginFault(plugin_id, what, f"returned {type(iterator).__name__}", "return an async iterator (async def with yield)")
        flow: Flow[ValueT] = Flow()
        task = self._tasks.spawn(f"{plugin_id} {what}", flow.fill(iterator))
        task.add_done_callback(flow.ended)
        try:
            async for item in flow:
                yield item
            error = _raised_by(task)
            if error is not None:
                raise fault_of(plugin_id, what, error) from error
        finally:
            if not task.done():
                await self._cancel(plugin_id, what, task)
            if task.done() and not is_exhausted(iterator):
                await self._close_iterator(plugin_id, what, iterator)

    async def close(self, timeout: float) -> None:
        """Cancel the calls that are still running."""
        self.abandoned.extend(await self._tasks.close(timeout))

    async def _close_iterator(self, plugin_id: str, what: str, iterator: AsyncIterator[Any]) -> None:
        close = getattr(iterator, "aclose", None)
        if close is None:
            return
        try:
            await self.run(plugin_id, f"{what} close", close, CANCEL_GRACE_SECONDS)
        except PluginFault as fault:
            logger.warning("%s", fault)

    async def _cancel(self, plugin_id: str, what: str, task: asyncio.Task[Any]) -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_GRACE_SECONDS)
        if not task.done():
            self.abandoned.append(f"{plugin_id}: {what}")
            logger.error("plugin %r: %s does not end when cancelled and was abandoned", plugin_id, what)

    def _abandon(self, plugin_id: str, what: str, deadline: float) -> PluginHung:
        self.abandoned.append(f"{plugin_id}: {what}")
        return _hung(plugin_id, what, deadline)

    def _late_failure(self, name: str, error: BaseException) -> None:
        # Whoever awaited the call has the error already; after an abandoned one nobody does.
        logger.debug("%s ended with %s", name, describe(error))


def _hung(plugin_id: str, what: str, deadline: float) -> PluginHung:
    cure = "update the plugin, disable it or raise plugins.callTimeoutSeconds"
    return PluginHung(plugin_id, what, f"did not end in {deadline:g} s and was abandoned", cure)


def _raised_by(task: asyncio.Task[Any]) -> BaseException | None:
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    return error.__cause__ if isinstance(error, TaskExited) and error.__cause__ is not None else error


async def _wait_awake(task: asyncio.Task[Any], deadline: float | None) -> None:
    """Wait for a task; time in which something else blocked the event loop is not held against it."""
    left = deadline
    while left is None or left > 0:
        share = None if deadline is None or left is None else min(left, deadline / 2, _AWAKE_SECONDS)
        done, _ = await asyncio.wait({task}, timeout=share)
        if done or left is None or share is None:
            return
        left -= share


async def _awaited(function: Callable[[], Awaitable[ValueT]]) -> ValueT:
    awaitable = function()
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"returned {type(awaitable).__name__} where a coroutine was expected; declare it async")
    return await awaitable
