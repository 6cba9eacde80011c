"""Notice that plugin code keeps the event loop from running, name the plugin, and break it off."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Final

from openclaw_kernel.host.guard import PluginBlockedLoop

logger: Final = logging.getLogger(__name__)

# Ignored by default and used by hardly anybody, so that a stray one does no harm.
_SIGNAL: Final = signal.SIGURG


@dataclass(frozen=True, slots=True)
class Block:
    """The loop was blocked for `seconds` so far, by `plugin_id` (None: not by a plugin), at `place`."""

    plugin_id: str | None
    place: str
    seconds: float


class LoopWatchdog:
    """A daemon thread that looks after the loop of the thread that starts it.

    `packages` maps each plugin's package to its id. `on_block` is called on the loop, once it runs again, with every block; `measured`
    with each delay of a tick, in seconds, twice in `noticed_after`.
    """

    def __init__(
        self,
        packages: Mapping[str, str],
        on_block: Callable[[Block], None],
        *,
        noticed_after: float,
        interrupt_after: float,
        measured: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._packages = packages
        self._on_block = on_block
        self._noticed_after = noticed_after
        self._interrupt_after = interrupt_after
        self._measured = measured
        self._stopped = threading.Event()
        self._ticked = threading.Event()
        self._asked_at = 0.0
        self._armed = False
        self._spares_kernel = True
        self._loop_thread = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._may_interrupt = False
        self._previous: Callable[[int, FrameType | None], object] | int | None = None
        self.blocks = 0

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._may_interrupt = threading.current_thread() is threading.main_thread()
        if self._may_interrupt:
            # Only the main thread runs Python's signal handlers; elsewhere a block is named and no more.
            self._previous = signal.signal(_SIGNAL, self._interrupt)
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        if self._thread is None:
            return
        self._stopped.set()
        self._thread.join(timeout=2 * self._noticed_after)
        self._thread = None
        if self._may_interrupt:
            signal.signal(_SIGNAL, self._previous if self._previous is not None else signal.SIG_DFL)

    def _watch(self) -> None:
        while not self._stopped.wait(self._noticed_after / 2):
            self._ticked.clear()
            self._asked_at = time.monotonic()
            if not self._ask(self._tick):
                return
            if not self._ticked.wait(self._noticed_after):
                self._blocked()

    def _tick(self) -> None:
        self._measured(time.monotonic() - self._asked_at)
        self._ticked.set()

    def _blocked(self) -> None:
        """Follow one block to its end."""
        self.blocks += 1
        # The callback that runs now, and since when: many that are each quick add up to a block, but none is to be broken off for it.
        callback, since = _callback(self._frame()), time.monotonic()
        block = self._sample()
        logger.warning(
            "the event loop has not run for %.1f s: %s at %s",
            block.seconds,
            f"plugin {block.plugin_id!r}" if block.plugin_id else "no plugin's code",
            block.place,
        )
        while not self._ticked.wait(self._noticed_after) and not self._stopped.is_set():
            block = self._sample(block)
            now = _callback(self._frame())
            if now is not callback:
                callback, since = now, time.monotonic()
            lasts = time.monotonic() - since + 2 * self._noticed_after
            is_due = lasts >= self._interrupt_after
            self._spares_kernel = lasts < 2 * self._interrupt_after
            if block.plugin_id is not None and is_due and block.seconds >= self._interrupt_after and self._may_interrupt:
                logger.error("plugin %r: interrupting it at %s", block.plugin_id, block.place)
                self._armed = True
                signal.pthread_kill(self._loop_thread, _SIGNAL)
        del callback
        ended = Block(block.plugin_id, block.place, time.monotonic() - self._asked_at)
        self._ask(lambda: self._on_block(ended))

    def _ask(self, callback: Callable[[], None]) -> bool:
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def _sample(self, before: Block | None = None) -> Block:
        seconds = time.monotonic() - self._asked_at
        plugin_id, place = self._culprit(self._frame())
        if plugin_id is None and before is not None:
            return Block(before.plugin_id, before.place, seconds)
        return Block(plugin_id, place, seconds)

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._loop_thread)  # noqa: SLF001  # the documented way to see another thread

    def _culprit(self, frame: FrameType | None) -> tuple[str | None, str]:
        innermost = _place(frame)
        while frame is not None:
            plugin_id = self._plugin_of(str(frame.f_globals.get("__name__", "")))
            if plugin_id is not None:
                return plugin_id, _place(frame)
            frame = frame.f_back
        return None, innermost

    def _plugin_of(self, module: str) -> str | None:
        while module:
            if module in self._packages:
                return self._packages[module]
            module = module.rpartition(".")[0]
        return None

    def _interrupt(self, _signal: int, frame: FrameType | None) -> None:
        # The block may have ended between the decision and this call: then whoever runs now is innocent.
        armed, self._armed = self._armed, False
        if not armed or self._ticked.is_set():
            return
        plugin_id, _ = self._culprit(frame)
        # Inside the kernel's own code an exception out of nowhere could leave half of something; it is tried again soon.
        if plugin_id is not None and not (self._spares_kernel and _is_kernel(frame, self._plugin_of)):
            raise PluginBlockedLoop(plugin_id)


def _callback(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the callback that the loop runs: another one for each."""
    found = None
    while frame is not None:
        if frame.f_code is asyncio.Handle._run.__code__:  # noqa: SLF001  # under which every callback and step of a task runs
            found = frame
        frame = frame.f_back
    return found


def _is_kernel(frame: FrameType | None, plugin_of: Callable[[str], str | None]) -> bool:
    """Tell whether a plugin called the kernel, which works for it now."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if plugin_of(module) is not None:
            return False
        if module.startswith("openclaw_kernel."):
            return True
        frame = frame.f_back
    return False


def _place(frame: FrameType | None) -> str:
    return "an unknown place" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
