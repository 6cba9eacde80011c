"""Writes down every frame of a gateway's WebSockets, from inside its process, without the gateway knowing.

As a script it installs itself and is the command line from then on::

    python -P tests/support/recorder.py FOLDER run --home ...

In the process of the tests `install` does the same for the gateways of `openclaw_kernel.testing`. A record is a line `kind
connection length`, then `length` bytes and a newline:

    N  a connection was accepted
    I  a text came in
    O  a text went out
    D  a droppable event was left out, its place in the sequence is lost
    F  a request was finished while its client was there; its id
    C  the gateway closes; code and reason

It imports nothing of the tests: a gateway in a venv of its own is recorded with the same file.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

Write: TypeAlias = Callable[[bytes], object]

TEXT = 1
"""The kind of a message that is text; pings and pongs are others."""


class Tap:
    """One connection as the recorder sees it."""

    def __init__(self, write: Write, number: int, ws: Any) -> None:
        self._write = write
        self._number = number
        self.ws = ws
        self.sent = 0
        self.closing = False

    def record(self, kind: bytes, text: bytes | str = b"") -> None:
        """Write one record."""
        data = text.encode() if isinstance(text, str) else bytes(text)
        self._write(b"%b %d %d\n%b\n" % (kind, self._number, len(data), data))


class Recorder:
    """Stands before the methods through which every frame passes. A connection is known by the task that serves it."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._numbers = itertools.count(1)
        self._by_task: WeakKeyDictionary[Any, Tap] = WeakKeyDictionary()
        self._by_outbound: WeakKeyDictionary[Any, Tap] = WeakKeyDictionary()
        self._by_session: WeakKeyDictionary[Any, Tap] = WeakKeyDictionary()
        self._undo: list[Callable[[], None]] = []

    def install(self) -> None:
        """Record from now on."""
        from openclaw_kernel.protocol.connection import Connection, Outbound
        from openclaw_kernel.protocol.handshake import Handshake
        from openclaw_kernel.protocol.session import Session

        self._wrap(Outbound, "__init__", self._accepted)
        self._wrap(Outbound, "put", self._put)
        self._wrap(Outbound, "close", self._close)
        self._wrap(Connection, "offer", self._offer)
        self._wrap(Handshake, "receive", self._received)
        self._wrap(Session, "__init__", self._opened)
        self._wrap(Session, "receive", self._received)
        self._wrap(Session, "finished", self._finished)

    def remove(self) -> None:
        """Record no longer."""
        while self._undo:
            self._undo.pop()()

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        def wrapper(self: Any, *arguments: Any, **named: Any) -> Any:
            return around(original, self, *arguments, **named)

        setattr(owner, name, wrapper)
        self._undo.append(lambda: setattr(owner, name, original))

    def _here(self) -> Tap | None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return None
        return None if task is None else self._by_task.get(task)

    def _accepted(self, original: Callable[..., Any], outbound: Any, *arguments: Any, **named: Any) -> None:
        original(outbound, *arguments, **named)
        tap = Tap(self._write, next(self._numbers), outbound._ws)
        self._by_outbound[outbound] = tap
        task = asyncio.current_task()
        if task is not None:
            self._by_task[task] = tap
        tap.record(b"N")

    def _put(self, original: Callable[..., Any], outbound: Any, frame: bytes, *arguments: Any, **named: Any) -> None:
        tap = self._by_outbound.get(outbound)
        kind = arguments[0] if arguments else named.get("kind", TEXT)
        if tap is not None and kind == TEXT and not tap.closing:
            tap.sent += 1
            tap.record(b"O", frame)
        original(outbound, frame, *arguments, **named)

    def _close(self, original: Callable[..., Any], outbound: Any, close: Any) -> None:
        tap = self._by_outbound.get(outbound)
        if tap is not None and not tap.closing:
            tap.closing = True
            tap.record(b"C", f"{close.code} {close.reason}")
        original(outbound, close)

    def _offer(self, original: Callable[..., Any], connection: Any, frame: Any) -> None:
        tap = self._by_outbound.get(connection.outbound)
        sent = 0 if tap is None else tap.sent
        original(connection, frame)
        if tap is not None and tap.sent == sent and not tap.closing and not frame.alone:
            tap.record(b"D")

    def _opened(self, original: Callable[..., Any], session: Any, *arguments: Any, **named: Any) -> None:
        original(session, *arguments, **named)
        tap = self._here()
        if tap is not None:
            self._by_session[session] = tap

    def _received(self, original: Callable[..., Any], machine: Any, data: bytes | str) -> Any:
        tap = self._here()
        if tap is not None:
            tap.record(b"I", data)
        return original(machine, data)

    def _finished(self, original: Callable[..., Any], session: Any, request: Any) -> None:
        tap = self._by_session.get(session)
        if tap is not None and not tap.closing and not tap.ws.closed:
            tap.record(b"F", request.id.encode("utf-8", "surrogatepass"))
        original(session, request)


def main() -> int:
    """Record into a file of the folder that the first argument names, and run the command line with the others."""
    folder = Path(sys.argv.pop(1))
    # Unbuffered, and in one write a record: what was sent before a SIGKILL is there after it.
    descriptor = os.open(folder / f"{os.getpid()}.{time.time_ns()}.frames", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    Recorder(lambda record: os.write(descriptor, record)).install()
    from openclaw_kernel.cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
