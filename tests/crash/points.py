"""Points at which a gateway can be killed: every await of a message's way, and around each commit.

A point is where a task waits, by the innermost frame of its chain of awaits whose file belongs to the way: `waiting` when the
task has just begun to wait there, `resumed` when what it waited for is there and the task has seen nothing of it yet. So there
is a point between any two awaits without anybody naming them. The store's writer is a thread and has points of its own:
before and after each commit, by what is written.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
WAY: Final[dict[str, str]] = {
    "plugins/openclaw_plugins/conversation/": "conversation/",
    "plugins/openclaw_plugins/agents/": "agents/",
    "channels/openclaw_channels/telegram/": "telegram/",
    "providers/openclaw_providers/openai/": "openai/",
    "kernel/openclaw_kernel/protocol/": "protocol/",
    "kernel/openclaw_kernel/store/": "store/",
    "tests/crash/effects/plugin": "tool",
}
"""Whose awaits are points, and how they are called."""
UPHEAVAL: Final = {
    "kernel/openclaw_kernel/reload/": "reload/",
    "kernel/openclaw_kernel/live/": "live/",
    "kernel/openclaw_kernel/configuration/": "configuration/",
    "kernel/openclaw_kernel/generations/": "generations/",
    "kernel/openclaw_kernel/handover/": "handover/",
    "kernel/openclaw_kernel/packages/": "packages/",
    "kernel/openclaw_kernel/children/": "children/",
    "kernel/openclaw_kernel/host/replacing": "host/replacing",
    "kernel/openclaw_kernel/host/staging": "host/staging",
    "kernel/openclaw_kernel/host/lifecycle": "host/lifecycle",
    "kernel/openclaw_kernel/app": "app",
    "kernel/openclaw_kernel/serving": "serving",
    "kernel/openclaw_kernel/restart": "restart",
    "kernel/openclaw_kernel/listening": "listening",
}
"""Whose awaits are points besides, where the config changes, plugins come and go, and the gateway restarts."""
PASSAGES: Final = ("store/sqlite", "store/lane", "conversation/durable")
"""Through these goes every write; the point is where it was asked for."""
_OPAQUE: Final = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"})
_UNIQUE: Final = re.compile(r"[0-9a-f]{12,}|\d{6,}")
_SUSPENDED: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)

Hook = Callable[[str], None]


def frames(awaitable: object) -> Iterator[FrameType]:
    """The frames of a chain of awaits, the outermost first."""
    while awaitable is not None:
        frame: FrameType | None
        if isinstance(awaitable, CoroutineType):
            frame, awaitable = awaitable.cr_frame, awaitable.cr_await
        elif isinstance(awaitable, GeneratorType):
            frame, awaitable = awaitable.gi_frame, awaitable.gi_yieldfrom
        elif isinstance(awaitable, AsyncGeneratorType):
            frame, awaitable = awaitable.ag_frame, awaitable.ag_await
        elif type(awaitable).__name__ in _OPAQUE:
            # They do not say what they wrap, but the garbage collector knows.
            awaitable = next((held for held in gc.get_referents(awaitable) if _leads_on(held)), None)
            continue
        else:
            return
        if frame is not None:
            yield frame


def _leads_on(held: object) -> bool:
    return isinstance(held, _SUSPENDED) or type(held).__name__ in _OPAQUE


class Names:
    """How a place in a file of the way is called."""

    def __init__(self) -> None:
        self._modules: dict[str, str | None] = {}

    def module(self, path: str) -> str | None:
        """The short name of a file, None for one that is not on the way."""
        if path not in self._modules:
            self._modules[path] = _short_name(path)
        return self._modules[path]

    def point(self, awaitable: object) -> str | None:
        """Where a task waits, None where that is not on the way."""
        found: str | None = None
        for frame in frames(awaitable):
            module = self.module(frame.f_code.co_filename)
            if module is not None and (found is None or module not in PASSAGES):
                found = f"{module}.{frame.f_code.co_name}:{frame.f_lineno}"
        return found


def _short_name(path: str) -> str | None:
    try:
        inside = Path(path).relative_to(ROOT).as_posix()
    except ValueError:
        return None
    for beginning, short in WAY.items():
        if inside.startswith(beginning):
            return (short + inside.removeprefix(beginning)).removesuffix(".py")
    return None


class Watched(Coroutine[Any, Any, Any]):
    """A task's coroutine that tells a hook each point it waits at."""

    __slots__ = ("_coroutine", "_hook", "_names")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], names: Names, hook: Hook) -> None:
        self._coroutine = coroutine
        self._names = names
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        # What asyncio shows of a task.
        return getattr(self._coroutine, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        self._tell("resumed")
        answer = self._coroutine.send(value)
        self._tell("waiting")
        return answer

    def throw(self, *error: Any) -> Any:
        self._tell("resumed")
        answer = self._coroutine.throw(*error)
        self._tell("waiting")
        return answer

    def close(self) -> None:
        self._coroutine.close()

    def _tell(self, what: str) -> None:
        point = self._names.point(self._coroutine)
        if point is not None:
            self._hook(f"{point} {what}")


class Fault:
    """Writes down each point once, and kills the process the so-manieth time it comes to one of them, which leaves a mark."""

    def __init__(self, *, log: Path | None = None, kill_at: str | None = None, hit: int = 1, mark: Path | None = None) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if log is not None else None
        self._known: set[str] = set()
        self._kill_at = kill_at
        self._hits_left = hit
        self._mark = mark
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        if point not in self._known:
            self._known.add(point)
            if self._log is not None:
                os.write(self._log, f"{point}\n".encode())
        if point == self._kill_at:
            with self._lock:
                self._hits_left -= 1
                if self._hits_left == 0:
                    if self._mark is not None:
                        self._mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)


def watch_tasks(hook: Hook) -> None:
    """Let every loop that is made from now on, however that is done, tell the hook where its tasks wait."""
    names = Names()

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Watched(coroutine, names, hook), loop=loop, **options)

    policy = type(asyncio.get_event_loop_policy())
    new_event_loop = policy.new_event_loop

    def new_watched_loop(its_policy: asyncio.AbstractEventLoopPolicy) -> asyncio.AbstractEventLoop:
        loop = new_event_loop(its_policy)
        loop.set_task_factory(factory)
        return loop

    setattr(policy, "new_event_loop", new_watched_loop)  # noqa: B010 - a method is no variable to assign to


def watch_commits(hook: Hook) -> None:
    """Let the store tell the hook before and after each commit what is in it."""
    from openclaw_kernel.store.connection import WriterConnection
    from openclaw_kernel.store.sqlite import SqliteStore

    commit_group, end = SqliteStore._commit_group, WriterConnection.end
    here = threading.local()

    def named(store: SqliteStore, connection: WriterConnection, group: list[Any]) -> list[Any]:
        here.works = sorted({item.name for item in group})
        return commit_group(store, connection, group)

    def ended(connection: WriterConnection) -> None:
        works = getattr(here, "works", ())
        for work in works:
            hook(f"commit of {work} before")
        end(connection)
        for work in works:
            hook(f"commit of {work} after")

    setattr(SqliteStore, "_commit_group", named)  # noqa: B010
    setattr(WriterConnection, "end", ended)  # noqa: B010


def watch_renames(hook: Hook) -> None:
    """Let whatever takes the place of a file as a whole tell the hook before and after."""
    replace = os.replace

    def replaced(source: Any, target: Any, **options: Any) -> None:
        # What is called by its content or its time is one point.
        name = _UNIQUE.sub("*", Path(os.fsdecode(target)).name)
        hook(f"rename to {name} before")
        replace(source, target, **options)
        hook(f"rename to {name} after")

    setattr(os, "replace", replaced)  # noqa: B010


def watch_execs(hook: Hook, told: Path) -> None:
    """Let a restart tell the hook when the program is about to be run anew; `told` gets a line of JSON."""
    execve = os.execve

    def executed(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        tell(told, {"exec": "begins"})
        hook("exec before")
        execve(path, arguments, environment)

    setattr(os, "execve", executed)  # noqa: B010


def note_strays(told: Path) -> None:
    """In a process that came of a restart, say what it holds open that was not handed over; the first thing that it does."""
    from openclaw_kernel.handover.belongings import VARIABLE as HANDOVER

    passed_on = os.environ.get(HANDOVER)
    if passed_on is not None:
        handed = json.loads(passed_on)
        tell(told, {"exec": "done", "strays": strays({handed["lock"], *(held["fd"] for held in handed["sockets"])})})


def tell(file: Path, line: dict[str, Any]) -> None:
    """Add a line of JSON to a file."""
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line) + "\n")


def strays(wanted: set[int]) -> list[str]:
    """What this process holds open beside the standard descriptors and those that are wanted: what each is."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers are wanted, not paths
        if int(name) > 2 and int(name) not in wanted:
            try:
                found.append(str(Path(f"/proc/self/fd/{name}").readlink()))
            except FileNotFoundError:
                # The one that lists them.
                continue
    return found
