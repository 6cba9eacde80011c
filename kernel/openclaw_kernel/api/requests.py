"""Requests that carry an idempotency key, and the durable record of them that every surface shares."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson
from pydantic import BaseModel

from openclaw_kernel.api.errors import GatewayError


@dataclass(slots=True, kw_only=True)
class RequestKey:
    """Who asked for what under which key; one row of the table. `digest` is that of the params, in hex."""

    principal: str
    method: str
    key: str
    digest: str
    looked_up: bool = False
    """True once the method has asked the table about it."""


@dataclass(slots=True)
class Encoded:
    """A result that is JSON already."""

    json: bytes


class KeptError(GatewayError):
    """A failure that was answered before, told again as it was."""

    def __init__(self, error: dict[str, Any], payload: dict[str, Any] | None) -> None:
        super().__init__(str(error.get("message", "")), details=error.get("details"), payload=payload)
        self._error = error

    def to_wire(self) -> dict[str, Any]:
        """Return the response's `error` object."""
        return self._error


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a request was answered: both are JSON; `error` is None for a success, `payload` for most failures."""

    payload: bytes | None
    error: bytes | None = None
    retryable: bool = False
    """Whether the failure says that the same request can work later; then it is not kept."""

    def replay(self) -> Encoded:
        """Return the result as it was sent; raise the failure as it was sent."""
        if self.error is not None:
            raise KeptError(json.loads(self.error), None if self.payload is None else json.loads(self.payload))
        return Encoded(self.payload or b"null")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the table says of a request.

    `new`: it is this call's to carry out. `in_flight`: an earlier call began it and wrote no answer; `record` names what that call
    wrote of its own. `done`: `answer` is there.
    """

    state: Literal["new", "in_flight", "done"]
    answer: KeptAnswer | None = None
    record: str | None = None


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """What is told of a request by its key alone: never its answer, which may hold a secret. `error` is the answer's code."""

    principal: str
    method: str
    state: Literal["in_flight", "done"]
    created_ms: int
    error: str | None


class Requests(Protocol):
    """The one durable table of requests with an idempotency key, for methods declared `handled`.

    `claim`, `note`, `complete` and `release` run inside a write of the caller's own, so that what a request does and its key are
    one commit.
    """

    def claim(self, connection: sqlite3.Connection, request: RequestKey) -> Claim:
        """Take the key or tell what is known of it; raise `InvalidRequest` where other params came under it."""
        ...

    def note(self, connection: sqlite3.Connection, request: RequestKey, record: str) -> None:
        """Name the row of the caller's own that tells how a claimed request goes."""
        ...

    def complete(self, connection: sqlite3.Connection, request: RequestKey, answer: object) -> None:
        """Keep the answer for repeats: a result, `Encoded`, or a `GatewayError`. One that says `retryable` frees the key instead."""
        ...

    def seen(self, connection: sqlite3.Connection, key: str, limit: int) -> Sequence[SeenRequest]:
        """Return the newest requests that came under a key, whoever sent them, inside a read."""
        ...

    async def settle(self, request: RequestKey, answer: object) -> None:
        """Do `complete` in a write of its own."""
        ...


def digest_of(params: BaseModel) -> str:
    """Return what tells two requests with one key apart, whatever the order of their keys.

    Raise `ValueError` or `TypeError` for params that are no JSON: nested too deeply, numbers over 64 bits.
    """
    wire = params.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return hashlib.sha256(orjson.dumps(wire, option=orjson.OPT_SORT_KEYS)).hexdigest()
