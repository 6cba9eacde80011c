"""One end of JSON-RPC 2.0 over two byte streams, one object a line.

Everything has a bound: the length of a line, the requests under way in either direction, what waits to be written, and how much the
other side may write in a second. Who writes more is not read for a while, so that it waits and nobody else does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from openclaw_kernel.children.errors import Code, ContractBroken, CutOff, NotAsked, PeerClosed, RpcError
from openclaw_kernel.children.shown import data_without_secrets, without_secrets
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

CHUNK_BYTES: Final = 65_536
CANCEL: Final = "cancel"
_ID_LENGTH: Final = 64
_SHOWN: Final = 120
_CLEANED: Final = 4_096
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF: Final = re.compile("[\ud800-\udfff]")
_AT_A_TIME: Final = 100
_LONGEST_MESSAGE: Final = 2_000

Id = int | str
Params = dict[str, Any]
Handler = Callable[[Params], Awaitable[Any]]
Notice = Callable[[Params], None]


class Reader(Protocol):
    async def read(self, n: int = -1, /) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    @property
    def transport(self) -> asyncio.WriteTransport: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What either side may ask of the other."""

    line_bytes: int = 1_048_576
    """Longest line, without its end."""
    handled: int = 64
    """Requests of the other side that run at a time; a further one is answered with `BUSY`."""
    asked: int = 256
    """Requests to the other side that wait for an answer; a further one waits for its turn."""
    lines_per_second: float = 2_000.0
    bytes_per_second: float = 16_777_216.0


class Peer:
    """Asks, and answers what `handlers` (requests) and `notices` (notifications) name.

    `name` stands in errors and in the names of tasks. Whoever makes one runs `serve` as a task and calls `close` in the end.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        *,
        name: str,
        handlers: Mapping[str, Handler],
        notices: Mapping[str, Notice],
        bounds: Bounds | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._name = name
        self._handlers = handlers
        self._notices = notices
        self._bounds = bounds or Bounds()
        self._turns = asyncio.Semaphore(self._bounds.asked)
        self._writing = asyncio.Lock()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._handled: dict[Id, asyncio.Task[None]] = {}
        self._tasks = TaskOwner(name, _failed)
        self._last_id = 0
        self._closed: str | None = None
        self._paid_until = 0.0
        self._deaf = False

    async def request(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None, urgent: bool = False
    ) -> Any:
        """Ask and return the result. Cancelling this, and a timeout, tell the other side to break it off; `urgent` waits for no turn.

        Raises:
            RpcError: what the other side answered, or `INVALID_PARAMS` where the request is longer than a line may be.
            PeerClosed: it is gone, or went meanwhile; `NotAsked` where nothing of the request was written.
            TimeoutError: no answer in `timeout` seconds, the waiting for a turn counted.
        """
        async with asyncio.timeout(timeout), contextlib.nullcontext() if urgent else self._turns:
            self._require_open()
            self._last_id = number = self._last_id + 1
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._asked[number] = answer
            try:
                await self._write({"id": number, "method": method, "params": dict(params or {})})
                return await answer
            except asyncio.CancelledError:
                self.notify(CANCEL, {"id": number})
                raise
            finally:
                del self._asked[number]
                if answer.done() and not answer.cancelled():
                    # Answered in the same moment in which this was broken off: nobody else would look at it.
                    answer.exception()

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> bool:
        """Tell without waiting; return False where so much waits to be written that it was left out."""
        if self._closed is not None or self._backlog() > self._bounds.line_bytes:
            return False
        try:
            self._writer.write(self._line({"method": method, "params": dict(params or {})}))
        except (RpcError, OSError, RuntimeError):
            return False
        return True

    async def serve(self) -> None:
        """Read until the other side closes its stream.

        Raises:
            ContractBroken: it wrote something else than the contract allows.
        """
        held = bytearray()
        while chunk := await self._read():
            held += chunk
            *lines, rest = held.split(b"\n")
            for number, line in enumerate(lines):
                self._take(line)
                if self._deaf:
                    raise ContractBroken("asks and does not read the answers")
                if number % _AT_A_TIME == _AT_A_TIME - 1:
                    await asyncio.sleep(0)
            held = rest
            if len(held) > self._bounds.line_bytes:
                raise ContractBroken(f"wrote a line longer than {self._bounds.line_bytes} bytes: {_shown(held)}")
            await asyncio.sleep(self._pause(len(lines), len(chunk)))
        if held:
            raise CutOff(f"ended in the middle of a line: {_shown(held)}")

    async def close(self, reason: str, timeout: float = 1.0) -> None:
        """Give the other side up: who waits for an answer gets `PeerClosed` with the reason, what runs for it is cancelled."""
        if self._closed is None:
            self._closed = reason
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(PeerClosed(self._closed))
        await self._tasks.close(timeout)

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(CHUNK_BYTES)
        except OSError:
            return b""

    def _pause(self, lines: int, size: int) -> float:
        """Return how long not to read, so that on average the other side stays below its bounds; a second's worth is free."""
        now = asyncio.get_running_loop().time()
        cost = max(lines / self._bounds.lines_per_second, size / self._bounds.bytes_per_second)
        self._paid_until = max(self._paid_until, now - 1.0) + cost
        return max(0.0, self._paid_until - now)

    def _take(self, line: bytes | bytearray) -> None:
        if len(line) > self._bounds.line_bytes:
            raise ContractBroken(f"wrote a line longer than {self._bounds.line_bytes} bytes: {_shown(line)}")
        try:
            message = _parsed(line)
        except ValueError:
            raise ContractBroken(f"wrote what is no JSON: {_shown(line)}") from None
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise ContractBroken(f"wrote what is no JSON-RPC 2.0: {_shown(line)}")
        method, identity = message.get("method"), message.get("id")
        params = message.get("params", {})
        if "method" not in message:
            self._take_answer(message)
        elif not isinstance(method, str) or not isinstance(params, dict):
            raise ContractBroken(f"wrote a request whose method is no string or whose params are no object: {_shown(line)}")
        elif "id" in message:
            self._take_request(_identity(identity, line), method, params)
        elif method == CANCEL:
            self._take_cancel(params.get("id"))
        elif method in self._notices:
            self._take_notice(method, params)

    def _take_answer(self, message: Mapping[str, Any]) -> None:
        identity = message.get("id")
        answer = self._asked.get(identity) if type(identity) is int else None
        if answer is None or answer.done():
            # Of a request that was broken off.
            return
        error = message.get("error")
        if error is None:
            answer.set_result(message.get("result"))
        elif isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str):
            data = error.get("data")
            cleaned = data_without_secrets(data) if isinstance(data, dict) else None
            answer.set_exception(RpcError(error["code"], without_secrets(error["message"]), cleaned))
        else:
            answer.set_exception(RpcError(Code.INTERNAL, "answered with an error that has no code and message"))

    def _take_request(self, identity: Id, method: str, params: Params) -> None:
        if identity in self._handled:
            raise ContractBroken(f"used the id {identity!r} for a further request while the first was under way")
        handler = self._handlers.get(method)
        if handler is None:
            self._answer_now(identity, RpcError(Code.METHOD_NOT_FOUND, f"there is no method {method[:_SHOWN]!r}"))
        elif len(self._handled) >= self._bounds.handled:
            self._answer_now(identity, RpcError(Code.BUSY, f"{self._bounds.handled} requests are under way; wait for an answer"))
        elif self._closed is None:
            task = self._tasks.spawn(f"{method} {identity}", self._handle(identity, handler, params))
            self._handled[identity] = task
            task.add_done_callback(lambda done: self._ended(identity, done))

    def _take_cancel(self, identity: object) -> None:
        task = self._handled.get(identity) if isinstance(identity, int | str) else None
        if task is not None:
            task.cancel()

    def _take_notice(self, method: str, params: Params) -> None:
        try:
            self._notices[method](params)
        except (ValueError, TypeError, LookupError) as error:
            raise ContractBroken(f"sent a notification {method!r} that cannot be read: {error}") from error

    async def _handle(self, identity: Id, handler: Handler, params: Params) -> None:
        try:
            answer: dict[str, Any] = {"result": await handler(params)}
        except RpcError as error:
            answer = {"error": error.to_wire()}
        try:
            await self._write({"id": identity, **answer})
        except RpcError as error:
            await self._write({"id": identity, "error": error.to_wire()})
        except PeerClosed:
            logger.debug("%s: nobody is left for the answer to %r", self._name, identity)

    def _ended(self, identity: Id, task: asyncio.Task[None]) -> None:
        del self._handled[identity]
        # Also one that was cancelled before its first step is answered.
        if task.cancelled():
            self._answer_now(identity, RpcError(Code.CANCELLED, "broken off"))
        elif (error := task.exception()) is not None:
            self._answer_now(identity, RpcError(Code.INTERNAL, f"{type(error).__name__}: {error}"[:_LONGEST_MESSAGE]))

    def _answer_now(self, identity: Id, error: RpcError) -> None:
        if self._backlog() > 2 * self._bounds.line_bytes:
            self._deaf = True
        elif self._closed is None:
            self._writer.write(self._line({"id": identity, "error": error.to_wire()}))

    async def _write(self, message: Mapping[str, Any]) -> None:
        line = self._line(message)
        try:
            async with self._writing:
                self._require_open()
                self._writer.write(line)
                await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise PeerClosed(self._closed or f"{self._name} does not read any more ({error})") from error

    def _line(self, message: Mapping[str, Any]) -> bytes:
        # The standard library's, for it escapes what is no UTF-8: lone surrogates occur in what strangers write.
        try:
            line = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise RpcError(Code.INVALID_PARAMS, f"cannot be written as JSON ({error})") from error
        if len(line) > self._bounds.line_bytes:
            raise RpcError(Code.INVALID_PARAMS, f"{len(line)} bytes are more than the {self._bounds.line_bytes} of a line")
        return line + b"\n"

    def _backlog(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def _require_open(self) -> None:
        if self._closed is not None:
            raise NotAsked(self._closed)


def _identity(identity: object, line: bytes | bytearray) -> Id:
    if type(identity) is int or (isinstance(identity, str) and len(identity) <= _ID_LENGTH):
        return identity
    raise ContractBroken(f"wrote a request whose id is neither a whole number nor a short string: {_shown(line)}")


def _parsed(line: bytes | bytearray) -> Any:
    """Return the line as JSON. Halves of a surrogate pair, which a text cut by UTF-16 units ends with, become replacement characters."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        if _SURROGATE.search(line) is None:
            raise
    try:
        text = json.dumps(json.loads(line), ensure_ascii=False)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return orjson.loads(_HALF.sub("\N{REPLACEMENT CHARACTER}", text))


def _shown(line: bytes | bytearray) -> str:
    # Cleaned before it is cut: half a secret is one too.
    text = without_secrets(line[:_CLEANED].decode("utf-8", "replace"))
    return repr(text[:_SHOWN] + ("..." if len(text) > _SHOWN else ""))


def _failed(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
