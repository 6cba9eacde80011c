"""Keeps one child running: started, asked for signs of life, started again when it ends, and given up when it keeps ending."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openclaw_kernel.api.errors import ConfigRejected, NotReady
from openclaw_kernel.children.errors import Code, PeerClosed, RpcError
from openclaw_kernel.children.peer import Handler, Notice, Peer
from openclaw_kernel.children.process import ChildProcess, Launch
from openclaw_kernel.children.stderr import ChildLog
from openclaw_kernel.children.wire import PROTOCOL, Misshapen, Registered, read_registered
from openclaw_kernel.host.isolation import ChildFailed, GivenUp, Hold
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)


_LATE: Final = 1.5
"""So many times its length a wait lasts that the gateway's own loop held up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTiming:
    """How long a child may take for what; all in seconds."""

    call: float = 10.0
    """Longest for `initialize` and `register` each: `plugins.callTimeoutSeconds`."""
    answer: float = 10.0
    """How often it is asked for a sign of life, and how long it may take to give it."""
    backoff_first: float = 0.5
    backoff_ceiling: float = 30.0
    deaths: int = 5
    """After how many ends within `window` it is not started any more."""
    window: float = 300.0
    end: float = 1.0
    """How long it may take to end once its input is closed."""


class Supervisor:
    """One child. `open` starts it and returns what it registers; `peer_for_call` is how the others talk to it."""

    def __init__(
        self,
        launch: Launch,
        *,
        hello: Callable[[], Mapping[str, Any]],
        prepare: Callable[[], Awaitable[None]],
        handlers: Mapping[str, Handler],
        notices: Mapping[str, Notice],
        log: ChildLog,
        hold: Hold,
        timing: ChildTiming,
    ) -> None:
        self._launch = launch
        self._hello = hello
        self._prepare = prepare
        self._handlers = handlers
        self._notices = notices
        self._log = log
        self._hold = hold
        self._timing = timing
        self._tasks = TaskOwner(f"child of {launch.plugin_id}", _failed)
        self._starting = asyncio.Lock()
        self._beginning = asyncio.Lock()
        self._process: ChildProcess | None = None
        self._begun = False
        self._closed = False
        self._registered: Registered | None = None
        self._deaths: deque[float] = deque()
        self._gave_up: str | None = None
        self._delay = timing.backoff_first
        self._down: str | None = None
        self._again: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process of the child now, None where there is none."""
        return None if self._process is None else self._process.pid

    async def open(self) -> Registered:
        """Start it for the first time; return what it registers.

        Raises:
            ConfigRejected: it said so of its settings.
            ChildFailed: it cannot be started, ended, or answered something else than the contract says.
        """
        async with self._starting:
            return await self._launch_now()

    async def running(self) -> Peer:
        """Return the way to the child; one that is down is started at once.

        Raises:
            NotReady: it cannot be started now.
            GivenUp: it ended too often; see `revive`.
            ConfigRejected: as `open` does.
        """
        async with self._starting:
            if self._closed:
                raise NotReady("its process was ended with the plugin")
            if self._gave_up is not None:
                raise GivenUp(self._gave_up)
            if self._process is None:
                try:
                    await self._launch_now()
                except ChildFailed as error:
                    self._count(str(error))
                    raise NotReady(str(error)) from error
                self._regain_soon()
            return self.peer

    def revive(self) -> None:
        """Let one that was given up be started once more."""
        if self._gave_up is not None:
            self._gave_up = None
            self._deaths.clear()

    def kill(self, reason: str) -> None:
        """End its process, to be started again."""
        if self._process is not None:
            self._process.kill(reason)

    @property
    def peer(self) -> Peer:
        """The way to the child; raise `PeerClosed` with the reason while it is down."""
        if self._process is None:
            raise PeerClosed(self._down or "its process is not running")
        return self._process.peer

    async def begin(self) -> None:
        """Ask it to start, once, and again after each restart; raise as `Channel.start` does."""
        # A channel that starts begins the child, and so does the child's own unit.
        async with self._beginning:
            peer = await self.running()
            if not self._begun:
                await ask_to_start(peer, "start", {}, self._timing.call)
                self._begun = True

    async def end(self) -> None:
        """Ask it to stop, and end its process."""
        self._begun = False
        process = self._process
        if process is None:
            await self._end_process()
            return
        try:
            await process.peer.request("stop", timeout=self._timing.end, urgent=True)
        except PeerClosed as error:
            if self._process is process:
                # A failed start is followed by this, before the one who watches it counts it.
                self._process = None
                self._count(str(error))
                await process.close(0)
                return
        except (RpcError, TimeoutError) as error:
            logger.info("child of %r: did not stop by itself: %s", self._launch.plugin_id, error)
        await self._end_process()

    async def close(self) -> None:
        """End it for good; safe to call twice."""
        self._closed = True
        await self._tasks.close(1.0)
        await self._end_process()

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        self._down = "its process was ended by the gateway"
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if process is not None:
            await process.close(self._timing.end)

    async def _launch_now(self) -> Registered:
        """Start a process and get to know it; it is the child from then on."""
        if self._again is not None and self._again is not asyncio.current_task():
            self._again.cancel()
            self._again = None
        process = ChildProcess(self._launch, handlers=self._handlers, notices=self._notices, log=self._log)
        try:
            await self._prepare()
            await process.start()
            registered = await self._introduce(process)
        except OSError as error:
            await process.close(0)
            raise ChildFailed(f"its program {self._launch.command[0]} cannot be started ({error.strerror or error})") from error
        except BaseException:
            await process.close(0)
            raise
        if self._closed:
            # Meanwhile: nobody would watch it.
            await process.close(0)
            raise ChildFailed("its process was ended with the plugin")
        self._process, self._registered, self._down = process, registered, None
        self._tasks.spawn("watch", self._watch(process))
        return registered

    async def _introduce(self, process: ChildProcess) -> Registered:
        call = self._timing.call
        try:
            answer = await process.peer.request("initialize", self._hello(), timeout=call)
            spoken = answer.get("protocol") if isinstance(answer, dict) else None
            if spoken != PROTOCOL:
                raise ChildFailed(f"speaks version {spoken!r} of the contract, this gateway speaks {PROTOCOL}; update the plugin")
            registered = read_registered(await process.peer.request("register", timeout=call))
            if self._registered is not None and registered != self._registered:
                raise ChildFailed("registered something else than before; reload the plugin")
            if self._begun:
                await process.peer.request("start", timeout=call)
        except TimeoutError:
            raise ChildFailed(f"did not answer in {call:g} s when it was started; {_CURE}") from None
        except PeerClosed as error:
            raise ChildFailed(f"{error}; {_CURE}") from error
        except Misshapen as error:
            raise ChildFailed(f"registered what cannot be read: {error}") from error
        except RpcError as error:
            raise config_rejected(error) or ChildFailed(error.message) from error
        return registered

    async def _watch(self, process: ChildProcess) -> None:
        beating = self._tasks.spawn("heartbeat", self._ask_for_life(process))
        reason = await process.wait_ended()
        beating.cancel()
        if self._process is not process:
            return
        # In one step: whoever finds it gone finds it counted.
        self._process = None
        self._after_death(f"its process {reason}")
        await process.close(0)

    async def _ask_for_life(self, process: ChildProcess) -> None:
        loop = asyncio.get_running_loop()
        while not process.ended:
            await asyncio.sleep(self._timing.answer)
            began = loop.time()
            try:
                await process.peer.request("ping", timeout=self._timing.answer, urgent=True)
            except TimeoutError:
                if loop.time() - began > self._timing.answer * _LATE:
                    # Something held up the gateway itself, and the answer may lie in the pipe.
                    continue
                process.kill(f"did not answer a ping in {self._timing.answer:g} s and was killed")
            except RpcError as error:
                process.kill(f"answered a ping with an error ({error.message[:100]}) and was killed")
            except PeerClosed:
                return

    def _count(self, reason: str) -> bool:
        """Count an end; return whether it may be started again by itself."""
        now = asyncio.get_running_loop().time()
        timing = self._timing
        while self._deaths and self._deaths[0] < now - timing.window:
            self._deaths.popleft()
        self._deaths.append(now)
        self._down = reason
        if len(self._deaths) == 1:
            self._delay = timing.backoff_first
        if len(self._deaths) < timing.deaths:
            return True
        times = f"this was {len(self._deaths)} times in {timing.window:g} s, and it is not started again"
        self._give_up(f"{reason}; {times}; {_CURE}")
        return False

    def _give_up(self, reason: str) -> None:
        self._down = self._gave_up = reason
        logger.warning("plugin %r: %s", self._launch.plugin_id, self._gave_up)
        self._hold.lose(self._gave_up, final=True)

    def _after_death(self, reason: str) -> None:
        if not self._count(reason):
            return
        timing = self._timing
        # Half to the whole, so that what ended together does not come back together.
        pause = self._delay * random.uniform(0.5, 1.0)  # noqa: S311  # no secret is made of it
        self._delay = min(self._delay * 2, timing.backoff_ceiling)
        self._down = f"{reason}; it is started again"
        logger.warning("plugin %r: %s in %.1f s", self._launch.plugin_id, self._down, pause)
        self._hold.lose(self._down, final=False)
        self._again = self._tasks.spawn("restart", self._start_again(pause))

    async def _start_again(self, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            async with self._starting:
                if self._process is not None:
                    return
                await self._launch_now()
        except ChildFailed as error:
            self._after_death(str(error))
            return
        except ConfigRejected as error:
            # The same settings would be rejected again.
            self._give_up(str(error))
            return
        self._regain_soon()

    def _regain_soon(self) -> None:
        self._tasks.spawn("regain", self._hold.regain())


_CURE: Final = "see the log, and update the plugin or disable it"


async def ask_to_start(peer: Peer, method: str, params: Mapping[str, Any], timeout: float) -> None:
    """Ask for a start; raise `NotReady`, `ConfigRejected`, or `ChildFailed` with what it answered."""
    try:
        await peer.request(method, params, timeout=timeout)
    except RpcError as error:
        if error.code == Code.NOT_READY:
            raise NotReady(error.message) from error
        raise config_rejected(error) or ChildFailed(error.message) from error
    except PeerClosed as error:
        raise NotReady(str(error)) from error


def config_rejected(error: RpcError) -> ConfigRejected | None:
    """Return the error as what it says of the settings, None where it says something else."""
    if error.code != Code.CONFIG_REJECTED:
        return None
    key, found, cure = (error.data.get(name) for name in ("key", "found", "cure"))
    if isinstance(key, str) and isinstance(found, str) and isinstance(cure, str):
        return ConfigRejected(key, found, cure)
    return ConfigRejected("settings", error.message, "correct them")


def _failed(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
