"""The one durable table of requests that carry an idempotency key, `kernel_requests`: what came, and what it was answered."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from openclaw_kernel.api.errors import GatewayError, InvalidRequest
from openclaw_kernel.api.requests import Claim, Encoded, KeptAnswer, RequestKey, SeenRequest
from openclaw_kernel.api.store import Store
from openclaw_kernel.protocol.frames import dumps, error_body

logger: Final = logging.getLogger(__name__)

Place: TypeAlias = tuple[str, str, str]

ANSWER_BYTES: Final = 1 << 20
"""A longer answer is not kept; a repeat is told so."""
SWEPT_AT_ONCE: Final = 500
LONGEST_DELAY: Final = 30.0
CHAT_METHODS: Final = frozenset({"chat.send", "agent", "send", "sessions.send"})
"""Their conflicts have the reason that chat clients know."""
_TOO_LONG: Final = KeptAnswer(
    None,
    b'{"code":"UNAVAILABLE","message":"the request was carried out, but its answer was too long to be kept; look at what it did",'
    b'"details":{"reason":"idempotency-answer-not-kept"}}',
)

_INSERT: Final = (
    "INSERT INTO kernel_requests (principal, method, key, digest, state, created_ms, expires_ms)"
    " VALUES (?, ?, ?, ?, 'in_flight', ?, ?) ON CONFLICT DO NOTHING"
)
_FIND: Final = (
    "SELECT id, digest, state, record, payload, error, expires_ms FROM kernel_requests WHERE principal = ? AND method = ? AND key = ?"
)
_COMPLETE: Final = (
    "UPDATE kernel_requests SET state = 'done', payload = ?, error = ?"
    " WHERE principal = ? AND method = ? AND key = ? AND state = 'in_flight' AND digest = ?"
)
# Nobody pushes the answers of others out by asking for much. One that has no answer yet is not forgotten for want of room: its repeat
# would run beside it.
_OVER: Final = (
    "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY principal ORDER BY id DESC) AS place FROM kernel_requests"
    " WHERE state = 'done') ORDER BY place DESC, id LIMIT ?"
)


class RequestTable:
    """Implements `openclaw_kernel.api.Requests`; `keep_seconds` and `limit` bound what is kept."""

    def __init__(self, store: Store, *, now_ms: Callable[[], int], keep_seconds: float, limit: int) -> None:
        self._store = store
        self._now_ms = now_ms
        self._keep_ms = round(keep_seconds * 1000)
        self._limit = limit
        self._active: set[Place] = set()

    # --- inside a write -----------------------------------------------------------------------------------------------

    def claim(self, connection: sqlite3.Connection, request: RequestKey) -> Claim:
        """Take the key or tell what is known of it; raise `InvalidRequest` where other params came under it."""
        now = self._now_ms()
        row = (*_place(request), request.digest, now, now + self._keep_ms)
        request.looked_up = True
        if connection.execute(_INSERT, row).rowcount == 1:
            return Claim("new")
        known = self._read(connection, request, now)
        if known is None:
            connection.execute("DELETE FROM kernel_requests WHERE principal = ? AND method = ? AND key = ?", _place(request))
            connection.execute(_INSERT, row)
            known = Claim("new")
        return known

    def note(self, connection: sqlite3.Connection, request: RequestKey, record: str) -> None:
        """Name the row of the caller's own that tells how a claimed request goes."""
        connection.execute(
            "UPDATE kernel_requests SET record = ? WHERE principal = ? AND method = ? AND key = ?", (record, *_place(request))
        )

    def complete(self, connection: sqlite3.Connection, request: RequestKey, answer: object) -> None:
        """Keep the answer for repeats; a failure that says `retryable` frees the key instead."""
        kept = kept_answer(answer)
        if kept.retryable:
            self.release(connection, request)
            return
        if len(kept.payload or b"") + len(kept.error or b"") > ANSWER_BYTES:
            kept = _TOO_LONG
        connection.execute(_COMPLETE, (kept.payload, kept.error, *_place(request), request.digest))

    def release(self, connection: sqlite3.Connection, request: RequestKey) -> None:
        """Free the key of a request that did nothing."""
        connection.execute(
            "DELETE FROM kernel_requests WHERE principal = ? AND method = ? AND key = ? AND state = 'in_flight'", _place(request)
        )

    def seen(self, connection: sqlite3.Connection, key: str, limit: int) -> Sequence[SeenRequest]:
        """Return the newest requests that came under a key; this looks at the whole table, which is bounded."""
        rows = connection.execute(
            "SELECT principal, method, state, created_ms, error FROM kernel_requests WHERE key = ? ORDER BY id DESC LIMIT ?", (key, limit)
        )
        return [
            SeenRequest(principal, method, state, created_ms, None if error is None else str(json.loads(error).get("code")))
            for principal, method, state, created_ms, error in rows
        ]

    # --- writes of their own ------------------------------------------------------------------------------------------

    async def begin(self, request: RequestKey) -> Claim:
        """Claim; one that is `new` counts as running until `settle`."""
        claim = await self._store.write(lambda connection: self.claim(connection, request))
        if claim.state != "done":
            self._active.add(_place(request))
        return claim

    async def settle(self, request: RequestKey, answer: object) -> None:
        """Keep an answer and try again for as long as the store fails: what was done cannot be taken back."""
        delay = 0.05
        try:
            while True:
                try:
                    await self._store.write(lambda connection: self.complete(connection, request, answer))
                except GatewayError as error:
                    logger.warning("the answer of %s is not kept yet; again in %.1f s: %s", request.method, delay, error.message)
                else:
                    return
                await asyncio.sleep(delay)
                delay = min(LONGEST_DELAY, delay * 3)
        finally:
            self._active.discard(_place(request))

    def abandon(self, request: RequestKey) -> None:
        """Count a call no longer as running; its row stays `in_flight`, for nobody knows how it went."""
        self._active.discard(_place(request))

    async def find(self, request: RequestKey) -> Claim | None:
        """Return what is known of a request, None where it never came; raise `InvalidRequest` where other params came."""
        now = self._now_ms()
        return await self._store.read(lambda connection: self._read(connection, request, now))

    async def keep_swept(self, seconds: float) -> None:
        """Sweep again and again, for as long as the gateway runs."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.sweep()
            except GatewayError as error:
                logger.warning("old requests are not forgotten yet: %s", error.message)

    async def sweep(self) -> None:
        """Forget what is past its time, and of what is over the limit the oldest of who has most, a bounded number in each write."""
        now = self._now_ms()
        while await self._store.write(lambda connection: self._forget_expired(connection, now)) == SWEPT_AT_ONCE:
            pass
        over = await self._store.read(self._over)
        for start in range(0, len(over), SWEPT_AT_ONCE):
            step = over[start : start + SWEPT_AT_ONCE]
            await self._store.write(partial(_forget, ids=step))

    def _over(self, connection: sqlite3.Connection) -> list[tuple[int]]:
        excess = int(connection.execute("SELECT count(*) FROM kernel_requests").fetchone()[0]) - self._limit
        return connection.execute(_OVER, (excess,)).fetchall() if excess > 0 else []

    def _forget_expired(self, connection: sqlite3.Connection, now: int) -> int:
        # All are kept for the same time, so the oldest are the first to expire.
        oldest = connection.execute(
            "SELECT id, principal, method, key, expires_ms FROM kernel_requests ORDER BY id LIMIT ?", (SWEPT_AT_ONCE + len(self._active),)
        ).fetchall()
        expired = [(row[0],) for row in oldest if row[4] <= now and (row[1], row[2], row[3]) not in self._active]
        connection.executemany("DELETE FROM kernel_requests WHERE id = ?", expired[:SWEPT_AT_ONCE])
        return min(len(expired), SWEPT_AT_ONCE)

    def _read(self, connection: sqlite3.Connection, request: RequestKey, now: int) -> Claim | None:
        row = connection.execute(_FIND, _place(request)).fetchone()
        if row is None or (row[6] <= now and _place(request) not in self._active):
            return None
        _, digest, state, record, payload, error, _ = row
        if digest != request.digest:
            raise conflict(request)
        return Claim(state, KeptAnswer(payload, error) if state == "done" else None, record)


def _forget(connection: sqlite3.Connection, ids: Sequence[tuple[int]]) -> None:
    connection.executemany("DELETE FROM kernel_requests WHERE id = ? AND state = 'done'", ids)


def kept_answer(answer: object) -> KeptAnswer:
    """Return a result or failure as the wire has it."""
    if isinstance(answer, KeptAnswer):
        return answer
    if isinstance(answer, GatewayError):
        return KeptAnswer(None if answer.payload is None else dumps(answer.payload), error_body(answer), answer.retryable)
    return KeptAnswer(answer.json if isinstance(answer, Encoded) else dumps(answer))


def conflict(request: RequestKey) -> InvalidRequest:
    """The error for a key under which other params came before."""
    reason = "chat-request-conflict" if request.method in CHAT_METHODS else "idempotency-conflict"
    return InvalidRequest(
        f"idempotencyKey {request.key[:80]!r} was used for another {request.method}; use a new key for each request",
        details={"reason": reason},
    )


def _place(request: RequestKey) -> Place:
    return request.principal, request.method, request.key
