"""A small client of protocol v4 for tests: connect, request, wait for events.

It checks what it receives: the envelope of each frame, each event and each result that the contract defines, and that
`seq` rises without a gap. A violation fails the test at the next call. Usage::

    async with connect(gateway.url, token=gateway.token) as client:
        await client.request("health")
        await client.request("chat.send", {...})
        final = await client.expect_event(is_chat("final"))
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Self, TypeAlias

import aiohttp

from tests.support import contract
from tests.support.requirements import MissingRequirementError, find_contract

DEADLINE_SECONDS = 15.0
PROTOCOL = 4
LARGEST_FRAME_BYTES = 32 * 1024 * 1024
OPERATOR_SCOPES = (
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.pairing",
)

Frame: TypeAlias = dict[str, Any]
Predicate: TypeAlias = Callable[[Frame], bool]


class RequestFailed(Exception):
    """A response that is not ok; `error` is the wire's error object, `payload` what came beside it."""

    def __init__(self, method: str, error: Mapping[str, Any], payload: object = None) -> None:
        super().__init__(f"{method}: {error.get('code')}: {error.get('message')} {error.get('details', '')}".strip())
        self.method = method
        self.error = error
        self.payload = payload

    @property
    def code(self) -> str:
        """The code on the wire, e.g. `INVALID_REQUEST`."""
        return str(self.error["code"])

    @property
    def details(self) -> Mapping[str, Any]:
        """The details of the error, empty where there are none."""
        details: Mapping[str, Any] = self.error.get("details") or {}
        return details


class ConnectionEnded(Exception):
    """The gateway closed the connection; `code` and `reason` are those of the close frame."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"the connection was closed with {code} {reason!r}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Identity:
    """Who the client says it is; the default is a local backend, which keeps its scopes without a device."""

    id: str = "gateway-client"
    mode: str = "backend"
    version: str = "0.0.0"
    platform: str = "linux"
    role: str = "operator"
    scopes: tuple[str, ...] = OPERATOR_SCOPES
    caps: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further connect params, which win over those above."""

    def params(self, auth: Mapping[str, Any]) -> dict[str, Any]:
        """The params of `connect`."""
        params: dict[str, Any] = {
            "minProtocol": PROTOCOL,
            "maxProtocol": PROTOCOL,
            "client": {"id": self.id, "mode": self.mode, "version": self.version, "platform": self.platform},
            "role": self.role,
            "scopes": list(self.scopes),
        }
        if self.caps:
            params["caps"] = list(self.caps)
        if auth:
            params["auth"] = dict(auth)
        return {**params, **self.extra}


def is_event(name: str) -> Predicate:
    """Matches an event by its name."""
    return lambda frame: frame["event"] == name


def is_chat(state: str, *, run: str | None = None) -> Predicate:
    """Matches a chat event in this state, of this run where one is given."""

    def matches(frame: Frame) -> bool:
        if frame["event"] != "chat":
            return False
        payload = frame["payload"]
        return payload["state"] == state and (run is None or payload["runId"] == run)

    return matches


class WsClient:
    """One connection. Events are kept in order until `expect_event` takes them."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, validate: bool = True) -> None:
        """Take an open socket; the handshake is still to be done."""
        self.socket = socket
        self.hello: dict[str, Any] = {}
        self.challenge: Frame = {}
        self.events: list[Frame] = []
        """Events that nobody has taken yet."""
        self._validate = validate and _contract_is_installed()
        self._ids = itertools.count(1)
        self._waiting: dict[str, asyncio.Queue[Frame]] = {}
        self._changed = asyncio.Condition()
        self._failure: BaseException | None = None
        self._last_seq = 0
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, headers: Mapping[str, str] | None = None, validate: bool = True, tls: SSLContext | None = None
    ) -> AsyncIterator[Self]:
        """A socket to a `ws://` URL, or to a `wss://` one whose certificate `tls` believes; without the handshake, closed at the end."""
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(url, headers=headers, max_msg_size=LARGEST_FRAME_BYTES, ssl=tls or True) as socket,
        ):
            client = cls(socket, validate=validate)
            try:
                yield client
            finally:
                await client.close()

    async def handshake(
        self,
        *,
        auth: Mapping[str, Any] | None = None,
        identity: Identity | None = None,
        deadline: float = DEADLINE_SECONDS,
    ) -> dict[str, Any]:
        """Wait for the challenge, connect, and begin to read; the payload of hello-ok.

        Raises:
            RequestFailed: the gateway refused.
            ConnectionEnded: it closed without an answer.
        """
        self.challenge = await self.receive(deadline=deadline)
        assert self.challenge["event"] == "connect.challenge", self.challenge
        request = {
            "type": "req",
            "id": "connect",
            "method": "connect",
            "params": (identity or Identity()).params(auth or {}),
        }
        await self.send(request)
        answer = await self.receive(deadline=deadline)
        if not answer["ok"]:
            raise RequestFailed("connect", answer["error"], answer.get("payload"))
        if self._validate:
            contract.validate_hello(answer["payload"])
        self.hello = answer["payload"]
        self._reader = asyncio.create_task(self._read())
        return self.hello

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Send a frame as it is."""
        await self.socket.send_str(json.dumps(frame))

    async def receive(self, *, deadline: float = DEADLINE_SECONDS) -> Frame:
        """The next frame; only before the handshake, or in its place.

        Raises:
            ConnectionEnded: the gateway closed.
        """
        async with asyncio.timeout(deadline):
            message = await self.socket.receive()
        return self._frame(message)

    async def closed(self, *, deadline: float = DEADLINE_SECONDS) -> ConnectionEnded:
        """Wait until the gateway has closed the connection; frames before that are read and dropped."""
        try:
            async with asyncio.timeout(deadline):
                if self._reader is not None:
                    await asyncio.wait([self._reader])
                    assert isinstance(self._failure, ConnectionEnded), self._failure
                    return self._failure
                while True:
                    self._frame(await self.socket.receive())
        except ConnectionEnded as ended:
            return ended

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        expect_final: bool = False,
        deadline: float = DEADLINE_SECONDS,
        traceparent: str | None = None,
    ) -> Any:
        """Call a method; the payload of its answer.

        Args:
            method: its name on the wire.
            params: left out of the frame where None.
            expect_final: wait for the second answer of a method whose first one says `accepted`.
            deadline: seconds.
            traceparent: left out of the frame where None.

        Raises:
            RequestFailed: the answer is not ok.
            ConnectionEnded: the gateway closed meanwhile.
            TimeoutError: no answer within the deadline.
        """
        name = f"r{next(self._ids)}"
        answers: asyncio.Queue[Frame] = asyncio.Queue()
        self._waiting[name] = answers
        frame: Frame = {"type": "req", "id": name, "method": method}
        if params is not None:
            frame["params"] = dict(params)
        if traceparent is not None:
            frame["traceparent"] = traceparent
        try:
            await self.send(frame)
            while True:
                answer = await self._answer(answers, deadline, f"no answer to {method}")
                payload = self._checked(method, answer)
                accepted = isinstance(payload, dict) and payload.get("status") == "accepted"
                if not (expect_final and accepted):
                    return payload
        finally:
            del self._waiting[name]

    async def expect_event(self, wanted: str | Predicate, *, deadline: float = DEADLINE_SECONDS) -> Frame:
        """The first event that matches, of those kept or those to come; the others stay in order.

        Raises:
            AssertionError: none within the deadline; the text lists what came instead.
            ConnectionEnded: the gateway closed meanwhile.
        """
        return (await self._take(wanted, deadline))[-1]

    async def events_until(self, wanted: str | Predicate, *, deadline: float = DEADLINE_SECONDS) -> list[Frame]:
        """Every event up to the first that matches, that one included; all of them are taken.

        Raises:
            AssertionError: none within the deadline.
            ConnectionEnded: the gateway closed meanwhile.
        """
        return await self._take(wanted, deadline, with_earlier=True)

    async def close(self) -> None:
        """Close the socket and stop reading."""
        await self.socket.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _take(self, wanted: str | Predicate, deadline: float, *, with_earlier: bool = False) -> list[Frame]:
        matches = is_event(wanted) if isinstance(wanted, str) else wanted
        try:
            async with asyncio.timeout(deadline), self._changed:
                while True:
                    position = next((k for k, frame in enumerate(self.events) if matches(frame)), None)
                    if position is not None:
                        first = 0 if with_earlier else position
                        taken = self.events[first : position + 1]
                        del self.events[first : position + 1]
                        return taken
                    self._raise_failure()
                    await self._changed.wait()
        except TimeoutError:
            came = [frame["event"] for frame in self.events]
            message = f"the event {wanted if isinstance(wanted, str) else ''} did not come in {deadline} s; came: {came}"
            raise AssertionError(message) from None

    async def _answer(self, answers: asyncio.Queue[Frame], deadline: float, text: str) -> Frame:
        answer = asyncio.ensure_future(answers.get())
        reader = self._reader
        assert reader is not None, "the handshake comes first"
        try:
            await asyncio.wait([answer, reader], timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            self._raise_failure()
            message = f"{text} within {deadline} s"
            raise TimeoutError(message)
        finally:
            answer.cancel()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _checked(self, method: str, answer: Frame) -> Any:
        if not answer["ok"]:
            raise RequestFailed(method, answer["error"], answer.get("payload"))
        payload = answer.get("payload")
        if self._validate:
            with suppress(contract.ContractMissingError):  # a plugin's own method
                contract.validate_result(method, payload)
        return payload

    async def _read(self) -> None:
        try:
            while True:
                frame = self._frame(await self.socket.receive())
                if frame["type"] == "res":
                    waiting = self._waiting.get(frame["id"])
                    if waiting is not None:
                        waiting.put_nowait(frame)
                    continue
                self._check_seq(frame)
                async with self._changed:
                    self.events.append(frame)
                    self._changed.notify_all()
        except (ConnectionEnded, AssertionError) as error:
            self._failure = error
            async with self._changed:
                self._changed.notify_all()

    def _check_seq(self, frame: Frame) -> None:
        if "seq" in frame:
            assert frame["seq"] == self._last_seq + 1, f"seq {frame['seq']} follows {self._last_seq}"
            self._last_seq = frame["seq"]

    def _frame(self, message: aiohttp.WSMessage) -> Frame:
        if message.type is not aiohttp.WSMsgType.TEXT:
            reason = message.extra or "" if message.type is aiohttp.WSMsgType.CLOSE else ""
            raise ConnectionEnded(self.socket.close_code, reason)
        frame: Frame = json.loads(message.data)
        if self._validate:
            self._validate_frame(frame)
        return frame

    @staticmethod
    def _validate_frame(frame: Frame) -> None:
        if frame.get("type") == "res":
            contract.validate_response(frame)
            return
        with suppress(contract.ContractMissingError):  # a plugin's own event
            contract.validate_event(frame)


def _contract_is_installed() -> bool:
    try:
        find_contract()
    except MissingRequirementError:
        return False
    return True


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    identity: Identity | None = None,
    headers: Mapping[str, str] | None = None,
    validate: bool = True,
    tls: SSLContext | None = None,
) -> AsyncIterator[WsClient]:
    """A client that has shaken hands; closed at the end.

    Raises:
        RequestFailed: the gateway refused.
    """
    async with WsClient.open(url, headers=headers, validate=validate, tls=tls) as client:
        await client.handshake(auth={"token": token} if token is not None else {}, identity=identity)
        yield client
