"""What could not be answered or delivered is kept, and gets a second chance where a person says so (P1, W13)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from openclaw_kernel.api import (
    Attachment,
    Delivery,
    InvalidRequest,
    OutboundMessage,
    SendFailed,
    Sessions,
    Target,
    Turn,
    TurnResult,
    TurnSink,
)
from tests.plugins.conversation.harness import Gate, Harness, said, say, until

DAY_MS = 86_400_000
PICTURE = Attachment(kind="image", mime_type="image/png", file_name="p.png", content=b"\x89PNG\r\n\x1a\n")
LETTER = Attachment(kind="file", mime_type="text/plain", file_name="l.txt", content=b"dear all")


async def failing(turn: Turn, sink: TurnSink) -> TurnResult:
    return TurnResult(status="error", text="", error="the model is gone")


async def dead(harness: Harness, **params: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await harness.call("messages.dead.list", None, **params))["items"]
    return items


async def retry(harness: Harness, query: str) -> dict[str, Any]:
    answer: dict[str, Any] = await harness.call("messages.dead.retry", None, id=query)
    return answer


async def a_dead_message(harness: Harness, message_id: str = "1", **fields: Any) -> str:
    harness.runtime.script = failing
    await harness.receive("hello", message_id, **fields)
    await harness.settled()
    await until(lambda: nothing_to_send(harness))
    (item,) = [item for item in await dead(harness, kind="message") if item["reason"] == "the model is gone"]
    return str(item["id"])


async def nothing_to_send(harness: Harness) -> bool:
    return await harness.rows("SELECT count(*) FROM conversation_outbox WHERE state IN ('prepared', 'sending')") == [(0,)]


async def a_dead_delivery(harness: Harness, failure: SendFailed, **fields: Any) -> str:
    async def fail(message: OutboundMessage) -> None:
        raise failure

    harness.channels.script = fail
    place = Target(channel="telegram", account_id="default", peer_kind="direct", peer_id="7")
    outbox_id: str = await harness.services[Delivery].enqueue(place, text="news", **fields)

    async def listed() -> bool:
        return outbox_id in [item["id"] for item in await dead(harness)]

    await until(listed)
    harness.channels.script = None
    return outbox_id


async def sent(harness: Harness, condition: Callable[[list[str]], bool]) -> None:
    await until(lambda: condition(harness.channels.texts()))


async def test_a_message_gets_one_new_turn_however_often_it_is_asked_for(harness: Harness) -> None:
    ledger_id = await a_dead_message(harness)
    gate = Gate()
    harness.runtime.script = gate
    answers = await asyncio.gather(*(retry(harness, ledger_id) for _ in range(5)))
    assert sorted(answer["changed"] for answer in answers) == [False] * 4 + [True]
    await gate.running("hello")
    assert not (await retry(harness, ledger_id))["changed"]
    gate.let("hello")
    await harness.settled()
    await sent(harness, lambda texts: texts[-1:] == ["done: hello"])
    assert gate.started == ["hello"]
    assert await dead(harness) == []
    why = await harness.call("messages.why", None, id=ledger_id)
    assert [turn["state"] for turn in why["turns"]] == ["error", "ok"]
    assert why["message"]["state"] == "answered"
    assert [(entry["action"], entry["state"], entry["reason"]) for entry in why["history"]] == [
        ("retry", "dead_lettered", "the model is gone")
    ]
    # It was not dead any more, and was retried: that is no error.
    assert not (await retry(harness, ledger_id))["changed"]


async def test_a_retry_is_durable_before_it_is_answered(harness: Harness) -> None:
    ledger_id = await a_dead_message(harness)
    harness.gateway.ready = False
    await harness.restart()
    harness.runtime.script = say
    answer = await retry(harness, ledger_id)
    assert answer["changed"]
    await harness.crash()
    harness.gateway.ready = True
    await harness.start()
    await harness.settled()
    assert [said(turn) for turn in harness.runtime.turns] == ["hello", "hello"]
    assert harness.runtime.turns[-1].run_id == answer["runId"]


async def test_a_message_keeps_its_files_for_a_retry(harness: Harness) -> None:
    ledger_id = await a_dead_message(harness, attachments=(PICTURE, LETTER))
    harness.runtime.script = say
    await retry(harness, ledger_id)
    await harness.settled()
    first, second = (turn.message.to_json()["content"] for turn in harness.runtime.turns)
    assert [part["type"] for part in first] == ["text", "image", "file"]
    assert second == first


async def test_a_message_that_never_had_a_turn_keeps_its_files(harness: Harness) -> None:
    harness.policies.problem = ValueError("no such rule")
    await harness.receive("hello", "1", attachments=(PICTURE,))
    await harness.settled()
    (item,) = await dead(harness)
    assert await harness.rows("SELECT count(*) FROM conversation_attachments") == [(1,)]
    harness.policies.problem = None
    await retry(harness, item["id"])
    await harness.settled()
    assert [part["type"] for part in harness.runtime.turns[0].message.to_json()["content"]] == ["text", "image"]
    assert await harness.rows("SELECT count(*) FROM conversation_attachments") == [(0,)]


async def test_a_clients_request_can_be_retried(harness: Harness) -> None:
    harness.runtime.script = failing
    await harness.ask("hello", "request-1")
    harness.runtime.script = say
    answer = await retry(harness, "request-1")
    assert (await harness.events.terminal(answer["runId"]))["state"] == "final"
    # Its old name leads to it as well.
    assert (await harness.call("messages.why", None, id="request-1"))["message"]["runId"] == answer["runId"]


async def test_a_delivery_goes_out_behind_what_waits_with_fresh_attempts(harness: Harness) -> None:
    outbox_id = await a_dead_delivery(harness, SendFailed("blocked", permanent=True), attachments=(PICTURE,))
    harness.channels.up.remove("telegram")
    place = Target(channel="telegram", account_id="default", peer_kind="direct", peer_id="7")
    await harness.services[Delivery].enqueue(place, text="before")
    answers = await asyncio.gather(*(retry(harness, outbox_id) for _ in range(3)))
    assert sorted(answer["changed"] for answer in answers) == [False, False, True]
    await harness.services[Delivery].enqueue(place, text="after")
    # The order holds in the next process.
    await harness.restart()
    harness.channels.up.add("telegram")
    await sent(harness, lambda texts: len(texts) == 3)
    assert harness.channels.texts() == ["before", "news", "after"]
    assert harness.channels.sent[1].attachments == (PICTURE,)
    (delivery,) = (await harness.call("messages.why", None, id=outbox_id))["deliveries"]
    assert [attempt["outcome"] for attempt in delivery["attemptLog"]] == ["refused", "sent"]
    assert not (await retry(harness, outbox_id))["changed"]


async def test_a_delivery_that_expired_may_wait_again(harness: Harness) -> None:
    harness.channels.up.remove("telegram")
    place = Target(channel="telegram", account_id="default", peer_kind="direct", peer_id="7")
    outbox_id = await harness.services[Delivery].enqueue(place, text="late")
    harness.offset_ms = 2 * DAY_MS

    async def listed() -> bool:
        return bool(await dead(harness))

    await until(listed)
    harness.channels.up.add("telegram")
    await retry(harness, outbox_id)
    await sent(harness, lambda texts: texts == ["late"])


async def test_the_dead_delivery_of_an_answered_message_is_found_by_the_message(harness: Harness) -> None:
    async def blocked(message: OutboundMessage) -> None:
        raise SendFailed("blocked", permanent=True)

    harness.channels.script = blocked
    await harness.receive("hello", "77:1")
    await harness.settled()

    async def listed() -> bool:
        return bool(await dead(harness))

    await until(listed)
    harness.channels.script = None
    shown = await harness.call("messages.dead.show", None, id="77:1")
    assert (shown["kind"], shown["deliveries"][0]["state"]) == ("delivery", "failed")
    answer = await retry(harness, "77:1")
    assert (answer["kind"], answer["changed"]) == ("delivery", True)
    await sent(harness, lambda texts: texts == ["you said: hello"])


async def test_what_is_forgotten_leaves_the_list_and_is_still_explained(harness: Harness) -> None:
    ledger_id = await a_dead_message(harness)
    outbox_id = await a_dead_delivery(harness, SendFailed("lost", unknown=True), attachments=(LETTER,))
    assert len(await dead(harness)) == 2
    for query in (ledger_id, outbox_id):
        answers = [await harness.call("messages.dead.forget", None, id=query) for _ in range(2)]
        assert [answer["changed"] for answer in answers] == [True, False]
        why = await harness.call("messages.why", None, id=query)
        assert [entry["action"] for entry in why["history"]] == ["forget"]
        with pytest.raises(InvalidRequest, match="was forgotten"):
            await retry(harness, query)
    assert await dead(harness) == []
    assert await harness.rows("SELECT count(*) FROM conversation_attachments") == [(0,)]


async def test_what_is_not_dead_is_neither_retried_nor_forgotten(harness: Harness) -> None:
    await harness.receive("hello", "1")
    await harness.settled()
    await sent(harness, lambda texts: len(texts) == 1)
    for method in ("messages.dead.retry", "messages.dead.forget"):
        with pytest.raises(InvalidRequest, match="is answered; only what is dead"):
            await harness.call(method, None, id="1")


async def test_the_dead_go_with_the_ledger_and_take_their_files_along(harness: Harness) -> None:
    await a_dead_delivery(harness, SendFailed("lost", unknown=True), attachments=(LETTER,))
    harness.policies.problem = ValueError("no such rule")
    await harness.receive("hello", "1", attachments=(PICTURE,))
    await harness.settled()
    assert len(await dead(harness)) == 2
    await until(lambda: nothing_to_send(harness))
    harness.offset_ms = 31 * DAY_MS
    await harness.services[Sessions].clean()
    assert await dead(harness) == []
    for table in ("attachments", "attempts", "interventions"):
        assert await harness.rows(f"SELECT count(*) FROM conversation_{table}") == [(0,)]  # noqa: S608
