"""Frames: reading requests and writing responses and events, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from openclaw_kernel.api.errors import GatewayError

_REQUEST_KEYS: Final = frozenset({"type", "id", "method", "params", "traceparent", "expectedProfileId"})
_TRACEPARENT_LIMIT: Final = 128
_PROFILE_LIMIT: Final = 128


# Not frozen: that alone doubles what it costs to make one, for every request.
@dataclass(slots=True)
class Request:
    id: str
    method: str
    params: Any
    size: int
    """Bytes of the frame, for the bound on queued requests."""
    traceparent: str | None = None


class NotJson(Exception):
    """The frame is not JSON."""


class BadFrame(Exception):
    """The frame is JSON but no request; `request_id` is the id it gave, or `invalid`."""

    def __init__(self, request_id: str, problem: str) -> None:
        super().__init__(problem)
        self.request_id = request_id
        self.problem = problem


def read_request(data: str | bytes) -> Request:
    """Parse one frame; raise `NotJson` or `BadFrame`."""
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise NotJson(str(error)) from None
    if type(frame) is not dict:
        raise BadFrame("invalid", "must be an object")
    request_id = frame.get("id")
    if type(request_id) is not str or not request_id:
        raise BadFrame("invalid", "id must be a non-empty string")
    if frame.get("type") != "req":
        raise BadFrame(request_id, 'type must be "req"')
    method = frame.get("method")
    if type(method) is not str or not method:
        raise BadFrame(request_id, "method must be a non-empty string")
    traceparent = None
    if len(frame) > len({"type", "id", "method"}):
        traceparent = _check_optional(frame, request_id)
    return Request(request_id, method, frame.get("params"), len(data), traceparent)


def _check_optional(frame: dict[str, Any], request_id: str) -> str | None:
    for key in frame:
        if key not in _REQUEST_KEYS:
            raise BadFrame(request_id, f"unknown key {key[:64]!r}")
    traceparent = frame.get("traceparent")
    if traceparent is not None and (type(traceparent) is not str or len(traceparent) > _TRACEPARENT_LIMIT):
        raise BadFrame(request_id, f"traceparent must be a string of at most {_TRACEPARENT_LIMIT} characters")
    profile = frame.get("expectedProfileId")
    if profile is not None and (type(profile) is not str or not 1 <= len(profile) <= _PROFILE_LIMIT):
        raise BadFrame(request_id, f"expectedProfileId must be a string of 1 to {_PROFILE_LIMIT} characters")
    return traceparent


def dumps(value: Any) -> bytes:
    """Encode JSON as the wire wants it; raise `TypeError` for what JSON cannot hold."""
    return orjson.dumps(value, default=_default)


def _default(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, frozenset | set | tuple):
        return list(value)
    message = f"{type(value).__name__} is not JSON"
    raise TypeError(message)


def response(request_id: str, payload: bytes) -> bytes:
    """A successful response; `payload` is JSON."""
    return b'{"type":"res","id":%b,"ok":true,"payload":%b}' % (orjson.dumps(request_id), payload)


def failure(request_id: str, error: GatewayError, payload: bytes | None = None) -> bytes:
    """A failed response; `payload` only where the method defines one for failures."""
    return failed_response(request_id, error_body(error), payload)


def error_body(error: GatewayError) -> bytes:
    """The `error` of a response as JSON."""
    try:
        return dumps(error.to_wire())
    except TypeError:
        # A plugin put into its error what JSON cannot hold; its words still reach the caller.
        return dumps({"code": error.code, "message": str(error.message).encode("utf-8", "backslashreplace").decode()})


def failed_response(request_id: str, body: bytes, payload: bytes | None = None) -> bytes:
    """A failed response whose `error` is JSON already."""
    extra = b"" if payload is None else b',"payload":%b' % payload
    return b'{"type":"res","id":%b,"ok":false%b,"error":%b}' % (orjson.dumps(request_id), extra, body)


class EventFrame:
    """An event encoded once; each connection adds only its own `seq`, none where `alone` says that it is for chosen ones."""

    __slots__ = ("alone", "droppable", "head", "name")

    def __init__(
        self, name: str, payload: bytes, *, state_version: bytes | None = None, droppable: bool = False, alone: bool = False
    ) -> None:
        version = b"" if state_version is None else b',"stateVersion":%b' % state_version
        self.name = name
        self.head = b'{"type":"event","event":%b,"payload":%b%b' % (orjson.dumps(name), payload, version)
        self.droppable = droppable
        self.alone = alone

    def numbered(self, seq: int) -> bytes:
        """The frame with its place in a connection's broadcast sequence."""
        return b'%b,"seq":%d}' % (self.head, seq)

    def targeted(self) -> bytes:
        """The frame for one client, outside the sequence."""
        return self.head + b"}"


def cut_reason(reason: str, limit: int) -> bytes:
    """A close reason of at most `limit` bytes that is still UTF-8."""
    return reason.encode()[:limit].decode("utf-8", "ignore").encode()
