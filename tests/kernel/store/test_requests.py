"""The durable table of requests with an idempotency key: what a repeat is told, how long, and what is forgotten."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import Claim, Encoded, GatewayError, InvalidRequest, KeptError, RequestKey, Unavailable
from openclaw_kernel.store.requests import ANSWER_BYTES, SWEPT_AT_ONCE, RequestTable
from openclaw_kernel.store.sqlite import SqliteStore

HOUR_MS = 3_600_000


class Book:
    """A table that keeps an hour and ten requests, and the clock it reads."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.now = 1_700_000_000_000
        self.table = RequestTable(store, now_ms=lambda: self.now, keep_seconds=3600, limit=10)

    async def claim(self, request: RequestKey) -> Claim:
        return await self.store.write(lambda connection: self.table.claim(connection, request))

    async def answered(self, request: RequestKey, answer: object) -> None:
        await self.claim(request)
        await self.table.settle(request, answer)

    async def keys(self) -> list[str]:
        rows = await self.store.read(lambda connection: connection.execute("SELECT key FROM kernel_requests ORDER BY id").fetchall())
        return [row[0] for row in rows]


def request(key: str = "k", *, principal: str = "token", method: str = "once", digest: str = "d") -> RequestKey:
    return RequestKey(principal=principal, method=method, key=key, digest=digest)


def reason_of(error: GatewayError) -> Any:
    return (error.details or {}).get("reason")


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    store = SqliteStore(tmp_path / "state.sqlite3")
    await store.open({})
    try:
        yield Book(store)
    finally:
        await store.close()


async def test_a_request_is_new_then_in_flight_then_done(book: Book) -> None:
    assert (await book.claim(request())).state == "new"
    assert (await book.claim(request())).state == "in_flight"
    await book.table.settle(request(), {"number": 1})
    done = await book.claim(request())
    assert done.answer is not None
    assert json.loads(done.answer.replay().json) == {"number": 1}


async def test_an_answer_is_told_again_byte_for_byte(book: Book) -> None:
    text = b'{"z": 1.50, "a":[ ]}'
    await book.answered(request(), Encoded(text))
    known = await book.claim(request())
    assert known.answer is not None
    assert known.answer.replay().json == text


async def test_a_failure_is_told_again_with_all_that_it_said(book: Book) -> None:
    failure = InvalidRequest("no such thing", details={"what": "thing"}, payload={"runId": "r", "status": "error"})
    await book.answered(request(), failure)
    known = await book.claim(request())
    assert known.answer is not None
    with pytest.raises(KeptError) as again:
        known.answer.replay()
    assert again.value.to_wire() == failure.to_wire()
    assert again.value.payload == failure.payload


async def test_a_failure_that_asks_to_be_tried_again_frees_the_key(book: Book) -> None:
    await book.answered(request(), Unavailable("not now", retry_after_ms=100))
    assert (await book.claim(request())).state == "new"


async def test_other_params_under_a_key_are_a_conflict_with_the_reason_its_clients_know(book: Book) -> None:
    for method, reason in (("once", "idempotency-conflict"), ("chat.send", "chat-request-conflict"), ("agent", "chat-request-conflict")):
        await book.answered(request(method=method), {})
        with pytest.raises(InvalidRequest) as refused:
            await book.claim(request(method=method, digest="other"))
        assert reason_of(refused.value) == reason
        with pytest.raises(InvalidRequest):
            await book.table.find(request(method=method, digest="other"))


async def test_a_key_belongs_to_its_principal_and_method(book: Book) -> None:
    await book.answered(request(), {"of": "token"})
    assert (await book.claim(request(principal="device:1", digest="other"))).state == "new"
    assert (await book.claim(request(method="another", digest="other"))).state == "new"
    assert await book.table.find(request(principal="device:2")) is None


async def test_what_is_undone_with_its_write_leaves_no_key(book: Book) -> None:
    def write(connection: Any) -> None:
        book.table.claim(connection, request())
        raise InvalidRequest("thought better of it")

    with pytest.raises(InvalidRequest):
        await book.store.write(write)
    assert await book.keys() == []


async def test_the_record_of_the_method_is_told_to_the_repeat(book: Book) -> None:
    def write(connection: Any) -> None:
        book.table.claim(connection, request())
        book.table.note(connection, request(), "row 7")

    await book.store.write(write)
    assert (await book.claim(request())).record == "row 7"


async def test_a_key_is_new_again_after_its_time_and_the_sweep_forgets_it(book: Book) -> None:
    await book.answered(request("old"), {})
    book.now += HOUR_MS - 1
    await book.answered(request("young"), {})
    assert (await book.claim(request("old"))).state == "done"
    book.now += 1
    assert await book.table.find(request("old")) is None
    assert (await book.claim(request("old", digest="other"))).state == "new"
    await book.table.sweep()
    assert await book.keys() == ["young", "old"]
    book.now += HOUR_MS
    await book.table.sweep()
    assert await book.keys() == []


async def test_a_running_call_is_exempt_from_time_and_room(book: Book) -> None:
    await book.table.begin(request("running"))
    for number in range(20):
        await book.answered(request(f"k{number}"), {})
    await book.table.sweep()
    assert await book.keys() == ["running", *(f"k{number}" for number in range(11, 20))]
    book.now += 2 * HOUR_MS
    await book.table.sweep()
    assert await book.keys() == ["running"]
    assert (await book.claim(request("running"))).state == "in_flight"
    await book.table.settle(request("running"), {})
    await book.table.sweep()
    assert await book.keys() == []


async def test_who_asks_for_much_pushes_out_no_answer_of_others(book: Book) -> None:
    await book.answered(request("of another", principal="device:other"), {})
    for number in range(30):
        await book.answered(request(f"k{number}"), {})
    await book.table.sweep()
    assert await book.keys() == ["of another", *(f"k{number}" for number in range(21, 30))]


async def test_a_sweep_takes_many_in_small_writes(book: Book) -> None:
    many = SWEPT_AT_ONCE * 2 + 3

    def fill(connection: Any) -> None:
        for number in range(many):
            book.table.claim(connection, request(str(number)))
            book.table.complete(connection, request(str(number)), {})

    await book.store.write(fill)
    await book.table.sweep()
    assert await book.keys() == [str(number) for number in range(many - 10, many)]
    book.now += HOUR_MS
    await book.store.write(fill)
    book.now += HOUR_MS
    await book.table.sweep()
    assert await book.keys() == []


async def test_an_answer_that_is_too_long_is_not_kept_and_its_repeat_is_told_so(book: Book) -> None:
    await book.answered(request(), {"text": "x" * ANSWER_BYTES})
    known = await book.claim(request())
    assert known.answer is not None
    with pytest.raises(GatewayError) as told:
        known.answer.replay()
    assert told.value.to_wire()["details"] == {"reason": "idempotency-answer-not-kept"}


async def test_a_new_process_knows_what_the_last_one_answered(book: Book, tmp_path: Path) -> None:
    await book.answered(request("answered"), {"number": 1})
    await book.claim(request("cut off"))
    await book.store.close()
    store = SqliteStore(tmp_path / "state.sqlite3")
    await store.open({})
    next_process = Book(store)
    assert (await next_process.claim(request("answered"))).state == "done"
    assert (await next_process.claim(request("cut off"))).state == "in_flight"
    await store.close()
