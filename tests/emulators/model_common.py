"""What the two model emulators share: the script of turns, the record of requests, and how a turn is played.

An emulator is a process that speaks a vendor's HTTP API on 127.0.0.1. Tests tell it what to answer through
`/_control/...` (see `model_control.py` for the client side); without a script it answers at once by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

#: Only one key is right unless a test says otherwise.
API_KEY = "emulator-key"
_LONG_POLL_SECONDS = 20.0
_BODY_LIMIT_BYTES = 32 * 1024 * 1024


class ErrorTurn(BaseModel):
    """An error answer: the vendor's own body for `status`, unless `type`, `code` or `message` say otherwise."""

    model_config = ConfigDict(extra="forbid")

    status: int
    type: str | None = None
    code: str | None = None
    message: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    retry_after: float | None = None
    #: Answer 200, stream so many content chunks, then send the error inside the stream.
    after_chunks: int | None = None


class RawTurn(BaseModel):
    """An answer as a proxy, a wrong address or a broken server gives it: these bytes and nothing else."""

    model_config = ConfigDict(extra="forbid")

    status: int = 200
    headers: dict[str, str] = Field(default_factory=dict)
    body: str = ""
    #: Keep the connection open after the body.
    hang: bool = False


class ToolCallTurn(BaseModel):
    """A tool call by the model; `arguments` may be a raw string, to play a model that writes broken JSON."""

    model_config = ConfigDict(extra="forbid")

    name: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)
    id: str | None = None


class Turn(BaseModel):
    """One scripted answer. Keys combine: text, then tool calls, slowed by `delay_ms`, cut by `drop_after_chunks`."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCallTurn] = Field(default_factory=list)
    error: ErrorTurn | None = None
    raw: RawTurn | None = None
    #: Accept the request and never send a byte.
    hang: bool = False
    #: Stream so many content chunks, then fall silent with the connection open.
    hang_after_chunks: int | None = None
    #: Stream so many content chunks, then close the connection in the middle of the body.
    drop_after_chunks: int | None = None
    #: Pause before each content chunk.
    delay_ms: int = 0
    #: The pieces the text is streamed in; overrides `text`.
    chunks: list[str] | None = None
    finish: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    #: Only a request whose model contains this takes the turn.
    for_model: str | None = None

    def pieces(self) -> list[str]:
        """The text as it is streamed: word by word unless the script cut it itself."""
        if self.chunks is not None:
            return list(self.chunks)
        words = (self.text or "").split(" ")
        return [word if index == 0 else f" {word}" for index, word in enumerate(words) if word or index]

    def whole_text(self) -> str:
        return "".join(self.pieces())


class Settings(BaseModel):
    """What a test may change while the emulator runs. `api_keys` null lets every caller in."""

    model_config = ConfigDict(extra="forbid")

    api_keys: list[str] | None = Field(default_factory=lambda: [API_KEY])
    context_tokens: int = 200_000
    models: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Refusal:
    """An error answer, ready to send."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """One piece of a streamed body; only content counts for `drop_after_chunks` and is slowed by `delay_ms`."""

    data: bytes
    is_content: bool = False


@dataclass
class Recorded:
    """One request as it came in, and how it ended: `answered`, `refused`, `dropped`, `disconnected` or `open`."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    at: float
    outcome: str = "open"

    def as_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "body": self.body,
            "at": self.at,
            "outcome": self.outcome,
        }


def estimate_tokens(value: object) -> int:
    """A rough count, a token for four characters of the text found anywhere in `value`."""
    return max(1, _text_length(value) // 4)


def _text_length(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_text_length(item) for item in value.values())
    if isinstance(value, list):
        return sum(_text_length(item) for item in value)
    return 0


def default_turn(last_text: str) -> Turn:
    """The answer without a script: Paris for the capital of France, else the last text again."""
    if "capital of france" in last_text.lower():
        return Turn(text="Paris")
    return Turn(text=last_text or "(nothing was said)")


class ModelEmulator(ABC):
    """The HTTP side of an emulator; a vendor's subclass adds its routes, its checks and its frames."""

    def __init__(self, settings: Settings) -> None:
        self.initial_settings = settings
        self.settings = settings.model_copy(deep=True)
        self.script: deque[Turn] = deque()
        self.requests: list[Recorded] = []
        self._changed = asyncio.Condition()

    @abstractmethod
    def add_routes(self, application: web.Application) -> None:
        """Add the vendor's paths."""

    @abstractmethod
    def refuse(self, request: web.Request, body: Any) -> Refusal | None:
        """The error the real server would answer with, or None for a request it would take."""

    @abstractmethod
    def error_of(self, error: ErrorTurn) -> Refusal:
        """The vendor's body and headers for a scripted error."""

    @abstractmethod
    def last_text(self, body: dict[str, Any]) -> str:
        """The text of the last message, for the default answer."""

    @abstractmethod
    def frames(self, turn: Turn, body: dict[str, Any]) -> Sequence[Frame]:
        """The streamed answer."""

    @abstractmethod
    def in_stream_error(self, refusal: Refusal) -> bytes:
        """An error event inside a stream that has begun."""

    @abstractmethod
    def whole(self, turn: Turn, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of a request that does not stream."""

    @abstractmethod
    def answer_headers(self) -> dict[str, str]:
        """The headers each answer carries."""

    def application(self) -> web.Application:
        application = web.Application(client_max_size=_BODY_LIMIT_BYTES)
        application.router.add_post("/_control/script", self._control_script)
        application.router.add_post("/_control/settings", self._control_settings)
        application.router.add_post("/_control/reset", self._control_reset)
        application.router.add_get("/_control/requests", self._control_requests)
        self.add_routes(application)
        return application

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """The model endpoint: record, check, take the next turn, play it."""
        body = await read_json(request)
        record = await self.record(request, body)
        refusal = self.refuse(request, body)
        try:
            if refusal is not None:
                record.outcome = "refused"
                return self.refusal_response(refusal)
            return await self._play(request, record, self._next_turn(body), body)
        except (asyncio.CancelledError, ConnectionResetError):
            record.outcome = "disconnected"
            raise
        finally:
            await self._tell()

    async def record(self, request: web.Request, body: Any) -> Recorded:
        record = Recorded(
            method=request.method,
            path=request.path_qs,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            at=time.time(),
        )
        self.requests.append(record)
        await self._tell()
        return record

    def refusal_response(self, refusal: Refusal) -> web.Response:
        headers = {**self.answer_headers(), **refusal.headers}
        return web.json_response(refusal.body, status=refusal.status, headers=headers)

    def _next_turn(self, body: dict[str, Any]) -> Turn:
        for turn in self.script:
            if turn.for_model is None or turn.for_model in str(body.get("model")):
                self.script.remove(turn)
                return turn
        return default_turn(self.last_text(body))

    async def _play(self, request: web.Request, record: Recorded, turn: Turn, body: dict[str, Any]) -> web.StreamResponse:
        if turn.hang:
            await asyncio.Event().wait()
        if turn.raw is not None:
            return await self._send_raw(request, record, turn.raw)
        if turn.error is not None and turn.error.after_chunks is None:
            record.outcome = "refused"
            return self.refusal_response(self.error_of(turn.error))
        if body.get("stream"):
            return await self._stream(request, record, turn, body)
        if turn.drop_after_chunks is not None:
            return self._drop(request, record, web.Response())
        await asyncio.sleep(turn.delay_ms / 1000)
        record.outcome = "answered"
        return web.json_response(self.whole(turn, body), headers=self.answer_headers())

    async def _stream(self, request: web.Request, record: Recorded, turn: Turn, body: dict[str, Any]) -> web.StreamResponse:
        headers = {**self.answer_headers(), "content-type": "text/event-stream; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        sent = 0
        for frame in self.frames(turn, body):
            if frame.is_content:
                if sent == turn.drop_after_chunks:
                    return self._drop(request, record, response)
                if sent == turn.hang_after_chunks:
                    await asyncio.Event().wait()
                if turn.error is not None and sent == turn.error.after_chunks:
                    await response.write(self.in_stream_error(self.error_of(turn.error)))
                    break
                await asyncio.sleep(turn.delay_ms / 1000)
                sent += 1
            await response.write(frame.data)
        record.outcome = "answered"
        await response.write_eof()
        return response

    async def _send_raw(self, request: web.Request, record: Recorded, raw: RawTurn) -> web.StreamResponse:
        response = web.StreamResponse(status=raw.status, headers=raw.headers)
        await response.prepare(request)
        await response.write(raw.body.encode())
        if raw.hang:
            await asyncio.Event().wait()
        record.outcome = "answered"
        await response.write_eof()
        return response

    def _drop(self, request: web.Request, record: Recorded, response: web.StreamResponse) -> web.StreamResponse:
        record.outcome = "dropped"
        if request.transport is not None:
            request.transport.close()
        return response

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _control_script(self, request: web.Request) -> web.Response:
        try:
            turns = TypeAdapter(list[Turn]).validate_python(await request.json())
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=422)
        self.script = deque(turns)
        return web.json_response({"turns": len(self.script)})

    async def _control_settings(self, request: web.Request) -> web.Response:
        try:
            self.settings = Settings.model_validate({**self.settings.model_dump(), **await request.json()})
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.json_response(self.settings.model_dump())

    async def _control_reset(self, _request: web.Request) -> web.Response:
        self.script.clear()
        self.requests.clear()
        self.settings = self.initial_settings.model_copy(deep=True)
        return web.json_response({})

    async def _control_requests(self, request: web.Request) -> web.Response:
        """All requests so far; `?count=N` waits for N of them, `&outcome=X` counts only those that ended so."""
        count = int(request.query.get("count", "0"))
        outcome = request.query.get("outcome")

        def enough() -> bool:
            return sum(outcome is None or item.outcome == outcome for item in self.requests) >= count

        try:
            async with asyncio.timeout(_LONG_POLL_SECONDS), self._changed:
                await self._changed.wait_for(enough)
        except TimeoutError:
            found = [item.outcome for item in self.requests]
            return web.json_response({"error": f"waited for {count} requests, have {found}"}, status=504)
        return web.json_response({"requests": [item.as_json() for item in self.requests], "left": len(self.script)})


async def read_json(request: web.Request) -> Any:
    """The body as JSON, or None where it is none."""
    try:
        return json.loads(await request.read() or b"null")
    except ValueError:
        return None


def bearer(request: web.Request) -> str | None:
    """The token of an `Authorization: Bearer` header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def _serve(emulator: ModelEmulator, port: int) -> None:
    # Handlers are cancelled when their client goes: that is how the record learns of an abort.
    runner = web.AppRunner(emulator.application(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    addresses = cast(list[tuple[str, int]], runner.addresses)
    sys.stdout.write(json.dumps({"port": addresses[0][1]}) + "\n")
    sys.stdout.flush()
    try:
        await _until_stdin_closes()
    finally:
        await runner.cleanup()


async def _until_stdin_closes() -> None:
    # The pipe ends with the test process however that dies, so no emulator outlives its tests.
    if sys.stdin.isatty():
        await asyncio.Event().wait()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass


def main(emulator_type: type[ModelEmulator], settings: Settings) -> None:
    """Run one emulator until its standard input closes or it is told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()

    async def run() -> None:
        await _serve(emulator_type(settings), arguments.port)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        sys.exit(130)
