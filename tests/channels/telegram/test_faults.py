"""What else goes wrong between a bot and Telegram."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace

import aiohttp
import pytest

from openclaw_channels.telegram.client import retry_after_of
from openclaw_kernel.api import OutboundMessage, Progress, SendFailed, Target
from tests.channels.telegram.standing import DISK_FULL, QUICK, StandingContext, running
from tests.channels.telegram.test_webhook import SECRET, listening, post, update
from tests.emulators.telegram_control import TelegramEmulator

CHAT = 42
TARGET = Target(channel="telegram", account_id="default", peer_kind="direct", peer_id=str(CHAT))


def answer(text: str, *, run_id: str | None = None) -> OutboundMessage:
    return OutboundMessage(target=TARGET, outbox_id="o1", text=text, run_id=run_id)


async def test_another_bot_in_the_place_of_the_first_is_heard(emulator: TelegramEmulator, context: StandingContext) -> None:
    # Each bot numbers its private messages from 1.
    other = f"{emulator.token.partition(':')[0]}7:NEW"
    await emulator.add_bot(other, username="new_bot")
    async with running(context):
        await emulator.user_message("to the first", chat_id=CHAT)
        await context.door.wait(count=1)
    context.section = {**context.section, "botToken": other}
    async with running(context):
        await emulator.user_message("to the second", chat_id=CHAT, token=other)
        await context.door.wait(count=2)
    assert context.door.texts == ["to the first", "to the second"]


@pytest.mark.parametrize("method", ["getMe", "getUpdates"])
async def test_a_pause_that_telegram_wants_is_reported(emulator: TelegramEmulator, context: StandingContext, method: str) -> None:
    await emulator.fault(method, retry_after=86_400)
    async with running(context) as runtime:
        await context.wait_for_reason("Telegram wants a pause of 86400 s")
        (status,) = runtime.status()
        assert status.connected is False
        assert status.last_error is not None


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (b'{"parameters": {"retry_after": 7}}', 7.0),
        (b'{"parameters": {"retry_after": NaN}}', 1.0),
        (b'{"parameters": {"retry_after": -5}}', 1.0),
        (b'{"parameters": {"retry_after": 1e999}}', 86_400.0),
        (b'{"parameters": []}', 1.0),
        (b"[]", 1.0),
        (b"<html>", 1.0),
    ],
)
def test_an_odd_pause_is_a_short_one(body: bytes, seconds: float) -> None:
    assert retry_after_of(body) == seconds


@pytest.mark.parametrize("method", ["getMe", "getUpdates", "setMyCommands", "deleteWebhook"])
async def test_an_answer_of_another_shape_ends_no_account(emulator: TelegramEmulator, context: StandingContext, method: str) -> None:
    await emulator.fault(method, "odd")
    async with running(context) as runtime:
        await emulator.user_message("still here", chat_id=CHAT)
        await context.door.wait(count=1)
        assert runtime.status()[0].running


async def test_a_send_answered_in_another_shape_may_have_arrived(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.fault("sendMessage", "odd")
    async with running(context) as runtime:
        with pytest.raises(SendFailed) as failed:
            await runtime.send(answer("hello"))
    assert (failed.value.unknown, failed.value.permanent) == (True, False)


async def test_a_draft_answered_in_another_shape_is_given_up(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.fault("sendMessage", "odd")
    await emulator.fault("sendChatAction", "odd")
    odd_thread = replace(TARGET, thread_id="not a number")
    async with running(context) as runtime:
        for run_id, target in (("r1", TARGET), ("r2", odd_thread)):
            text = "A beginning of some length, long enough to be shown"
            runtime.show_progress(Progress(target=target, run_id=run_id, phase="text", text=text))
        await emulator.wait(attempted="sendMessage", times=2)
        await runtime.send(answer("The answer", run_id="r1"))
        assert (await emulator.visible(CHAT))[-1]["text"] == "The answer"
    assert context.failures == []


async def test_an_edit_that_hangs_cannot_overtake_the_answer(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.fault("editMessageText", "hang")
    async with running(context, replace(QUICK, draft_settle=0.1)) as runtime:
        runtime.show_progress(Progress(target=TARGET, run_id="r1", phase="text", text="The beginning of some answer"))
        await emulator.wait(chat_id=CHAT, count=1)
        runtime.show_progress(Progress(target=TARGET, run_id="r1", phase="text", text="The beginning of some answer, and more"))
        await emulator.wait(attempted="editMessageText", times=1)
        await runtime.send(answer("The whole answer", run_id="r1"))
    assert [message["text"] for message in await emulator.visible(CHAT)] == ["The whole answer"]
    assert len(await emulator.calls("editMessageText")) == 1


async def test_files_are_held_for_a_few_messages_at_a_time(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context):
        await emulator.wait(polls_running=1)
        context.door.open.clear()
        await emulator.user_message("first", chat_id=CHAT)
        await context.door.wait(knocks=1)
        for number in range(12):
            await emulator.user_message(chat_id=CHAT + number, photo=b"x")
        context.door.open.set()
        await context.door.wait(count=1)
        context.door.open.clear()
        await context.door.wait(knocks=2)
        loaded = (await emulator.stats())["attempted"].get("getFile", 0)
        assert 0 < loaded <= 4
        context.door.open.set()
        await context.door.wait(count=13)


async def test_a_stop_does_not_wait_for_a_file_that_hangs(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.fault("file", "hang")
    async with running(context, replace(QUICK, peek=0.1)):
        await emulator.user_message(chat_id=CHAT, photo=b"slow", caption="look")
        await emulator.wait(attempted="file", times=1)
        await emulator.user_message("of somebody else", chat_id=CHAT + 1)
        await emulator.user_message("/stop", chat_id=CHAT)
        await emulator.user_message("and then", chat_id=CHAT)
        await context.door.wait(count=2)
        # What it is to stop is known before it, without the file.
        first, stop = context.door.texts
        assert first.startswith("look\n[")
        assert stop == "/stop"
        assert (await emulator.stats())["pending_updates"] == 4
    assert (await emulator.stats())["concurrent_polls_max"] == 1


async def test_a_stop_that_came_together_with_a_file_does_not_wait_for_it(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.fault("file", "hang")
    await emulator.user_message(chat_id=CHAT, photo=b"slow", caption="look")
    await emulator.user_message("/stop", chat_id=CHAT)
    async with running(context, replace(QUICK, peek=0.1)):
        await context.door.wait(count=2)
        assert [text.partition("\n")[0] for text in context.door.texts] == ["look", "/stop"]


async def test_a_stop_by_webhook_does_not_wait_for_a_file_and_comes_after_its_message(
    emulator: TelegramEmulator, context: StandingContext
) -> None:
    await emulator.fault("file", "hang")
    async with listening(context) as (_, address):
        await emulator.wait(accepted="setWebhook")
        await emulator.user_message(chat_id=CHAT, photo=b"slow", caption="look")
        await emulator.wait(attempted="file", times=1)
        posted = asyncio.ensure_future(post(address, update(99, "/stop"), SECRET))
        await context.door.wait(count=2)
        assert [text.partition("\n")[0] for text in context.door.texts] == ["look", "/stop"]
        posted.cancel()
        await asyncio.gather(posted, return_exceptions=True)


async def test_a_stop_that_was_heard_early_is_no_second_one_later(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context, replace(QUICK, peek=0.05)):
        context.door.open.clear()
        await emulator.user_message("slow to store", chat_id=CHAT)
        await context.door.wait(knocks=1)
        sent = await emulator.user_message("/stop", chat_id=CHAT)
        await context.door.wait(knocks=2)
        context.door.open.set()
        await emulator.wait(confirmed=sent["update_id"])
    assert sorted(context.door.texts) == ["/stop", "slow to store"]


async def test_what_a_webhook_is_refused_for_is_named(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.fault("setWebhook", status=400, times=-1, description="Bad Request: bad webhook: HTTPS url must be provided")
    async with listening(context):
        await context.wait_for_reason("channels.telegram.webhookUrl: Telegram refuses it (Bad webhook: ")


async def test_a_body_past_the_limit_is_refused_before_it_is_read(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with listening(context) as (_, address):
        for secret, status in ((SECRET, 413), ("wrong", 401)):
            headers = {"X-Telegram-Bot-Api-Secret-Token": secret}
            body = io.BytesIO(json.dumps(update(1, "x" * 2_000_000)).encode())
            async with aiohttp.ClientSession(headers=headers) as session, session.post(address, data=body) as response:
                assert response.status == status
        assert await post(address, update(2, "hello"), SECRET) == 200
        await context.door.wait(count=1)
        headers = {"X-Telegram-Bot-Api-Secret-Token": SECRET}
        async with aiohttp.ClientSession(headers=headers) as session:
            for bad in (b"[" * 100_000, b"\xff\xfe", b'"text"', b"null", b""):
                async with session.post(address, data=bad) as response:
                    assert response.status == 400
    assert context.door.texts == ["hello"]


async def test_a_throttled_chat_does_not_hold_up_another(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.open_chat(43)
    await emulator.fault("sendMessage", retry_after=3600, chat_id=CHAT)
    async with running(context) as runtime:
        with pytest.raises(SendFailed) as failed:
            await runtime.send(answer("throttled"))
        assert failed.value.retry_after == 3600
        async with asyncio.timeout(2):
            await runtime.send(replace(answer("quick"), target=replace(TARGET, peer_id="43")))
    assert [message["text"] for message in await emulator.visible(43)] == ["quick"]


async def test_a_disk_that_is_full_for_a_moment_repeats_no_file(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context):
        context.door.refusal = DISK_FULL
        await emulator.user_message(chat_id=CHAT, photo=b"x")
        await context.door.wait(knocks=2)
        context.door.refusal = None
        await context.door.wait(count=1)
    assert context.door.accepted[0].attachments[0].content == b"x"
