"""A WebSocket client for one command: blocking, one thread, nothing of asyncio. wsproto frames, a plain socket carries."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn, Self
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from openclaw_config.fingerprints import show_fingerprint
from openclaw_kernel import __version__
from openclaw_kernel.cli.errors import BadUsage, NotNow, Refused, Unreachable
from openclaw_kernel.cli.target import Target

PROTOCOL: Final = 4
CONNECT_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 30.0
SCOPES: Final = ("operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing")
_READ_BYTES: Final = 65_536
_KEPT_EVENTS: Final = 10_000
_WAITING: Final = frozenset({502, 503, 504})


class Client:
    """One connection, shaken hands when it is made. Not for several threads at once."""

    def __init__(self, target: Target, *, seconds: float = CONNECT_SECONDS) -> None:
        """Connect within so long; raise `Unreachable`, `NotNow` or `Refused`."""
        self.target = target
        self.hello: Mapping[str, Any] = {}
        self.events: deque[Mapping[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        """Events that came while an answer was awaited."""
        self.lost = False
        """Whether the connection was seen to have ended while nothing was asked."""
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._parts: list[str] = []
        self._answers: dict[str, Mapping[str, Any]] = {}
        self._count = 0
        self._upgraded = False
        deadline = time.monotonic() + seconds
        self._socket = _open_socket(target)
        try:
            self._shake_hands(deadline)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket's descriptor, to be waited on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Say goodbye and close; fine on a dead connection."""
        with contextlib.suppress(NotNow, LocalProtocolError):
            self._send(CloseConnection(code=1000))
        self._socket.close()

    def request(
        self, method: str, params: Mapping[str, Any] | None = None, *, seconds: float = REQUEST_SECONDS, final: bool = False
    ) -> Any:
        """Ask and return the payload of the answer; `final` waits for the one after `accepted`.

        Raises:
            Refused: the gateway answered with an error.
            NotNow: no answer in time, or the connection ended.
        """
        request_id = self._ask(method, params)
        deadline = time.monotonic() + seconds
        while True:
            answer = self._answer(request_id, method, deadline, seconds)
            payload = answer.get("payload")
            if answer.get("ok") is not True:
                raise Refused(method, _error_of(answer))
            if not (final and isinstance(payload, dict) and payload.get("status") == "accepted"):
                return payload

    def next_event(self, seconds: float, *, wake: int | None = None) -> Mapping[str, Any] | None:
        """The next event; None when the descriptor `wake` became readable first.

        Raises:
            NotNow: nothing at all came in this time, or the connection ended.
        """
        while not self.events:
            deadline = time.monotonic() + seconds
            if not self._receive(deadline, wake):
                if wake is not None and time.monotonic() < deadline:
                    return None
                raise NotNow(f"{self.target.url}: nothing came from the gateway for {seconds:g} s; try again")
        return self.events.popleft()

    def keep_alive(self, wake: int) -> None:
        """Answer pings and drop events until `wake` is readable; raise `NotNow` where the connection ended."""
        while self._receive(None, wake):
            self.events.clear()

    def _shake_hands(self, deadline: float) -> None:
        parts = urlsplit(self.target.url)
        headers = [(b"User-Agent", f"openclaw-kernel/{__version__}".encode())]
        path = f"{parts.path.rstrip('/')}/"
        self._send(Request(host=parts.netloc.rpartition("@")[2], target=path, extra_headers=headers))
        while not self._upgraded:
            self._receive_in(deadline)
        while not any(event.get("event") == "connect.challenge" for event in self.events):
            self._receive_in(deadline)
        self.events.clear()
        request_id = self._ask("connect", _connect_params(self.target))
        while request_id not in self._answers:
            self._receive_in(deadline)
        answer = self._answers.pop(request_id)
        if answer.get("ok") is not True:
            raise self._refusal(_error_of(answer))
        self.hello = answer.get("payload") or {}

    def _refusal(self, error: Mapping[str, Any]) -> Refused:
        details = error.get("details")
        reason = details.get("authReason") if isinstance(details, dict) else None
        cure = ""
        if isinstance(reason, str) and reason.endswith("_mismatch") and self.target.secret_from:
            cure = f" (sent was {self.target.secret_from}; after an edit restart the gateway)"
        elif isinstance(reason, str) and reason.endswith("_missing"):
            cure = " (give it with --token or OPENCLAW_GATEWAY_TOKEN)"
        return Refused(self.target.url, error, cure=cure)

    def _receive_in(self, deadline: float) -> None:
        if not self._receive(deadline, None):
            raise Unreachable(f"{self.target.url} does not answer within {CONNECT_SECONDS:g} s; {self.target.cure}")

    def _ask(self, method: str, params: Mapping[str, Any] | None) -> str:
        self._count += 1
        request_id = str(self._count)
        frame: dict[str, Any] = {"type": "req", "id": request_id, "method": method}
        if params is not None:
            frame["params"] = params
        try:
            json.dumps(params, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            # Python reads other bytes of the command line as halves of characters, which are no JSON.
            raise BadUsage(f"{method}: an argument is not UTF-8; give it in UTF-8") from None
        self._send(TextMessage(data=json.dumps(frame)))
        return request_id

    def _answer(self, request_id: str, method: str, deadline: float, seconds: float) -> Mapping[str, Any]:
        while request_id not in self._answers:
            try:
                came = self._receive(deadline, None)
            except NotNow:
                # A gateway that stops may close right behind its answer.
                if request_id in self._answers:
                    break
                raise
            if not came:
                raise NotNow(f"{method}: no answer within {seconds:g} s; try again, or see openclaw-kernel logs")
        return self._answers.pop(request_id)

    def _send(self, event: Event) -> None:
        data = self._wire.send(event)
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error

    def _receive(self, deadline: float | None, wake: int | None) -> bool:
        """Take in what has come, waiting for it; False at the deadline, or when `wake` is readable."""
        # What TLS has decrypted already no longer shows on the descriptor.
        pending = getattr(self._socket, "pending", None)
        if pending is None or not pending():
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            own = self._socket.fileno()
            readable, _, _ = select.select([own] if wake is None else [own, wake], [], [], timeout)
            if own not in readable:
                return False
        try:
            data = self._socket.recv(_READ_BYTES)
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        if not data:
            raise self._lost("it ended without a word")
        try:
            self._wire.receive_data(data)
            for event in self._wire.events():
                self._take(event)
        except RemoteProtocolError as error:
            raise self._stranger(str(error)) from error
        return True

    def _take(self, event: Event) -> None:
        if isinstance(event, TextMessage):
            self._parts.append(event.data)
            if event.message_finished:
                text, self._parts = "".join(self._parts), []
                self._take_frame(text)
        elif isinstance(event, Ping):
            self._send(event.response())
        elif isinstance(event, CloseConnection):
            self._closed(event)
        elif isinstance(event, AcceptConnection):
            self._upgraded = True
        elif isinstance(event, RejectConnection):
            self._rejected(event.status_code)
        elif isinstance(event, BytesMessage | RejectData):
            raise self._stranger("it sends bytes where the protocol has text")

    def _take_frame(self, text: str) -> None:
        try:
            frame = json.loads(text)
        except ValueError as error:
            raise self._stranger("it sends a message that is not JSON") from error
        if not isinstance(frame, dict):
            raise self._stranger("it sends a message that is no object")
        if frame.get("type") == "event":
            self.events.append(frame)
        elif frame.get("type") == "res":
            self._answers[str(frame.get("id"))] = frame

    def _closed(self, event: CloseConnection) -> NoReturn:
        if not self.hello and self._answers:
            # The answer that refused the handshake came just before, and says more.
            (answer,) = self._answers.values()
            raise self._refusal(_error_of(answer))
        reason = event.reason or f"code {event.code}"
        raise NotNow(f"{self.target.url}: the gateway closed the connection ({reason}); try again")

    def _rejected(self, status: int) -> NoReturn:
        if status in _WAITING:
            raise NotNow(f"{self.target.url}: takes no connection now (HTTP {status}); try again shortly")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise NotNow(f"{self.target.url}: too many failed attempts (HTTP 429); wait, then retry")
        raise self._stranger(f"it refused the WebSocket with HTTP {status}")

    def _stranger(self, found: str) -> Unreachable:
        return Unreachable(f"{self.target.url}: what answers there is no gateway of this kind ({found}); check --url, or gateway.port")

    def _lost(self, reason: str) -> NotNow:
        return NotNow(f"{self.target.url}: the connection to the gateway was lost ({reason.lower()}); try again")


def _open_socket(target: Target) -> socket.socket:
    parts = urlsplit(target.url)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (KeyError, ValueError):
        port = 0
    if not parts.hostname or not port:
        raise BadUsage(f"--url: found {target.url!r}; write it as http://HOST:PORT or https://HOST:PORT")
    try:
        connection = socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS)
    except ConnectionRefusedError as error:
        raise Unreachable(f"no gateway answers on {target.url}; {target.cure}") from error
    except OSError as error:
        raise _silent(target, error) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection if parts.scheme == "http" else _encrypted(connection, parts.hostname, target)


def _encrypted(connection: socket.socket, host: str, target: Target) -> socket.socket:
    import ssl

    context = ssl.create_default_context()
    if target.fingerprint is not None:
        # The one certificate that is meant is known: neither its names nor who signed it tell more.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        encrypted = context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        reason = error.verify_message.lower() or "not signed by anybody known"
        cure = "give the fingerprint that openclaw-kernel status shows on its machine as --tls-fingerprint"
        raise Unreachable(f"{target.url}: its certificate is not trusted here ({reason}); {cure}") from error
    except ssl.SSLError as error:
        connection.close()
        raise Unreachable(f"{target.url}: what answers there speaks no TLS; write the address as http:// or ws://") from error
    except OSError as error:
        connection.close()
        raise _silent(target, error) from error
    try:
        _check_pin(encrypted.getpeercert(binary_form=True), target)
    except BaseException:
        encrypted.close()
        raise
    return encrypted


def _check_pin(certificate: bytes | None, target: Target) -> None:
    if target.fingerprint is None:
        return
    shown = hashlib.sha256(certificate or b"").hexdigest()
    if shown != target.fingerprint:
        cure = "if it was renewed, take the new one from openclaw-kernel status on its machine; else somebody is in between"
        raise Unreachable(f"{target.url}: shows the certificate SHA-256 {show_fingerprint(shown)}, which is not the expected one; {cure}")


def _silent(target: Target, error: OSError) -> Unreachable:
    return Unreachable(f"no gateway answers on {target.url} ({str(error.strerror or error).lower()}); {target.cure}")


def _connect_params(target: Target) -> dict[str, Any]:
    client_id, mode = target.client
    client = {"id": client_id, "mode": mode, "version": __version__, "platform": sys.platform, "displayName": "openclaw-kernel"}
    params: dict[str, Any] = {
        "minProtocol": PROTOCOL,
        "maxProtocol": PROTOCOL,
        "client": client,
        "role": "operator",
        "scopes": list(SCOPES),
        "caps": ["tool-events"],
        "locale": os.environ.get("LANG", "C").partition(".")[0],
        "userAgent": f"openclaw-kernel/{__version__}",
    }
    if target.secret:
        params["auth"] = {"token": target.secret}
    return params


def _error_of(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    error = answer.get("error")
    return error if isinstance(error, dict) else {"message": "the gateway sent an error without words"}
