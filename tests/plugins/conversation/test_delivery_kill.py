"""A real gateway and a bot whose platform limits, hangs, refuses, while the gateway is killed (P5, W13)."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

from tests.emulators.telegram_control import TelegramEmulator
from tests.kernel.cli.command import run_command
from tests.plugins.conversation.harness import until
from tests.support.gateway import RunningGateway, StartGateway

BOT = 1001
CHAT = 42
CHATS = (50, 51, 52, 53, 54, 55)


@pytest.fixture
async def emulator() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as started:
        yield started


def config(emulator: TelegramEmulator, *chats: int, **settings: Any) -> dict[str, Any]:
    telegram = {"botToken": emulator.token, "apiRoot": emulator.api_root, "allowFrom": [*chats], "pollTimeoutSeconds": 5}
    return {
        "channels": {"telegram": telegram},
        "session": {"dmScope": "per-peer"},
        "plugins": {"entries": {"conversation": {"config": settings}}},
    }


def rows(gateway: RunningGateway, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


async def delivered(gateway: RunningGateway, count: int) -> None:
    def all_sent() -> bool:
        return rows(gateway, "SELECT count(*) FROM conversation_outbox WHERE state = 'sent'") == [(count,)]

    await until(all_sent, f"{count} deliveries")


async def why(gateway: RunningGateway, query: str) -> dict[str, Any]:
    async with gateway.connect() as client:
        answer: dict[str, Any] = await client.request("messages.why", {"id": query})
        return answer


@pytest.mark.parametrize(("policy", "copies", "states"), [
    ("notify", 1, [("unknown_after_send",), ("sent",)]),
    ("resend", 2, [("sent",)]),
    ("drop", 1, [("unknown_after_send",)]),
])  # fmt: skip
async def test_killed_while_the_platform_holds_the_answer_the_policy_decides(
    emulator: TelegramEmulator, start_gateway: StartGateway, policy: str, copies: int, states: list[tuple[str]]
) -> None:
    """P5: the platform took the message and the gateway died before it heard so."""
    gateway = await start_gateway(config(emulator, CHAT, unknownAfterSendByChannel={"telegram": policy}))
    await emulator.fault("sendMessage", "hang", after_accept=True, times=1, chat_id=CHAT)
    message = await emulator.user_message("the answer", chat_id=CHAT)
    await emulator.wait(attempted="sendMessage")
    await gateway.kill()
    await emulator.clear_faults()
    await gateway.start()
    await until(lambda: rows(gateway, "SELECT state FROM conversation_outbox ORDER BY id") == states, f"the deliveries under {policy}")
    shown = [text["text"] for text in await emulator.visible(CHAT)]
    assert shown.count("the answer") == copies
    assert sum("may not have reached you" in text for text in shown) == int(policy == "notify")
    answer = await why(gateway, f"telegram:{BOT}:{CHAT}:{message['message_id']}")
    assert answer["message"]["state"] == "answered"
    first = answer["deliveries"][0]["attemptLog"][0]
    assert (first["outcome"], first["error"]) == ("unknown", "the gateway stopped while sending it")


async def test_an_answer_whose_connection_breaks_after_the_platform_took_it_is_unknown_and_the_person_told(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    """P5: nobody died, only the answer of the platform was lost."""
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.fault("sendMessage", "drop", after_accept=True, times=1, chat_id=CHAT)
    message = await emulator.user_message("the answer", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="may not have reached you")
    await until(lambda: rows(gateway, "SELECT state FROM conversation_outbox ORDER BY id") == [("unknown_after_send",), ("sent",)])
    assert [text["text"] for text in await emulator.visible(CHAT)].count("the answer") == 1
    answer = await why(gateway, f"telegram:{BOT}:{CHAT}:{message['message_id']}")
    assert [(delivery["kind"], delivery["state"]) for delivery in answer["deliveries"]] == [
        ("answer", "unknown_after_send"),
        ("notice", "sent"),
    ]
    assert [attempt["outcome"] for attempt in answer["deliveries"][0]["attemptLog"]] == ["unknown"]


async def test_a_chats_429_is_waited_out_and_the_others_go_on(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config(emulator, CHAT, 43, deliveryAttempts=1))
    await emulator.fault("sendMessage", status=429, retry_after=2, times=1, chat_id=CHAT)
    message = await emulator.user_message("limited", chat_id=CHAT)
    await emulator.wait(attempted="sendMessage")
    await emulator.user_message("not limited", chat_id=43)
    await emulator.wait(chat_id=43, contains="not limited")
    assert await emulator.visible(CHAT) == []
    await emulator.wait(chat_id=CHAT, contains="limited")
    await delivered(gateway, 2)
    (delivery,) = (await why(gateway, f"telegram:{BOT}:{CHAT}:{message['message_id']}"))["deliveries"]
    # One attempt is all there may be; the one that met the limit does not count.
    assert [attempt["outcome"] for attempt in delivery["attemptLog"]] == ["limited", "sent"]
    assert delivery["attemptLog"][0]["retryAfterMs"] >= 1900
    accepted = [call for call in await emulator.calls("sendMessage") if call["parameters"].get("chat_id") in (CHAT, str(CHAT))]
    assert accepted[1]["at"] - accepted[0]["at"] >= 1.9


async def test_a_429_of_the_whole_bot_pauses_the_bot(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config(emulator, *CHATS, deliveryAttempts=1))
    await emulator.fault("sendMessage", status=429, retry_after=3, times=2)
    for chat in CHATS[:2]:
        await emulator.user_message(f"hello {chat}", chat_id=chat)
    await emulator.wait(attempted="sendMessage", times=2)
    refused_at = (await emulator.calls("sendMessage"))[-1]["at"]
    limited = "SELECT count(*) FROM conversation_attempts WHERE outcome = 'limited'"
    await until(lambda: rows(gateway, limited) == [(2,)])
    for chat in CHATS[2:]:
        await emulator.user_message(f"hello {chat}", chat_id=chat)
    await delivered(gateway, len(CHATS))
    calls = await emulator.calls("sendMessage")
    assert len(calls) == 2 + len(CHATS)
    waits = [(call["parameters"].get("chat_id"), call["status"], round(call["at"] - refused_at, 2)) for call in calls]
    assert all(wait >= 2.9 for _, _, wait in waits[2:]), waits


async def test_a_refused_answer_is_kept_and_can_be_sent_again_from_the_command_line(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    """W13: a permanent refusal is the end of that message alone, until a person asks for it again."""
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.fault("sendMessage", status=403, times=1, chat_id=CHAT)
    await emulator.user_message("poison", chat_id=CHAT)
    await until(lambda: ("failed",) in rows(gateway, "SELECT state FROM conversation_outbox"))
    await emulator.user_message("the next", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="the next")
    await delivered(gateway, 1)
    listed = (await run_command("dead", "--json", home=gateway.home)).json()
    (item,) = listed["items"]
    assert (item["kind"], item["state"], listed["total"]) == ("delivery", "failed", 1)
    shown = await run_command("dead", "list", home=gateway.home)
    assert item["id"] in shown.out
    assert "bot was blocked by the user" in shown.out
    retried = await run_command("dead", "retry", item["id"][:10], home=gateway.home)
    assert (retried.status, retried.err) == (0, "")
    await emulator.wait(chat_id=CHAT, contains="poison")
    await delivered(gateway, 2)
    again = await run_command("dead", "retry", item["id"], home=gateway.home)
    assert "was retried before and is sent now" in again.out
    assert (await run_command("dead", home=gateway.home)).out == "nothing is dead\n"
    told = await run_command("why", item["id"], home=gateway.home)
    assert "attempt 1:" in told.out
    assert "refused: Forbidden: bot was blocked by the user" in told.out
    assert "retry of the delivery by" in told.out
    assert [message["text"] for message in await emulator.visible(CHAT)] == ["the next", "poison"]


async def test_a_retry_survives_the_kill_that_follows_its_answer(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.user_message("!fail auth", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="⚠️")
    async with gateway.connect() as client:
        (item,) = (await client.request("messages.dead.list"))["items"]
        await client.request("messages.dead.retry", {"id": item["id"], "idempotencyKey": "once"})
        await gateway.kill()
    await gateway.start()
    await until(lambda: rows(gateway, "SELECT count(*) FROM conversation_runs WHERE ended_ms IS NOT NULL") == [(2,)])
    async with gateway.connect() as client:
        # The client did not hear of it and asks again with its key: nothing happens twice.
        await client.request("messages.dead.retry", {"id": item["id"], "idempotencyKey": "once"})
        answer = await client.request("messages.why", {"id": item["id"]})
    assert len(answer["turns"]) == 2
    assert [entry["action"] for entry in answer["history"]] == ["retry"]


async def test_an_orphan_of_a_killed_gateway_is_no_orphan(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    """P1: what waited when the process died is taken up by the next one before the sweeper can think it was left."""
    gateway = await start_gateway(config(emulator, CHAT, orphanSeconds=1, sweepSeconds=0.1))
    await emulator.user_message("!slow 30\n" + "word " * 200, chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="word word")
    last = await emulator.user_message("second", chat_id=CHAT)
    await emulator.wait(confirmed=last["update_id"])
    await gateway.kill()
    await gateway.start()
    await emulator.wait(chat_id=CHAT, contains="second", timeout=25)
    assert not rows(gateway, "SELECT 1 FROM conversation_inbound WHERE reason = 'left behind'")
