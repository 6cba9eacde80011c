"""Receiving from Telegram: nothing lost, nothing acknowledged too early, faults named and outlived."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from openclaw_channels.telegram.pacing import Pacing
from openclaw_kernel.api import ConfigRejected, OutboundMessage, Target
from tests.channels.telegram.standing import DISK_FULL, QUICK, StandingContext, running
from tests.emulators.telegram_control import TelegramEmulator

CHAT = 42


def to_chat(chat_id: int = CHAT, *, account_id: str = "default") -> Target:
    return Target(channel="telegram", account_id=account_id, peer_kind="direct", peer_id=str(chat_id))


async def test_messages_arrive_in_order_with_who_sent_them(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context) as runtime:
        for number in range(3):
            await emulator.user_message(f"hello {number}", chat_id=CHAT, sender={"id": 7, "first_name": "Ada"})
        await context.door.wait(count=3)
        (status,) = runtime.status()
    assert context.door.texts == ["hello 0", "hello 1", "hello 2"]
    first = context.door.accepted[0]
    assert first.target == to_chat()
    assert (first.sender_id, first.sender_name, first.mentioned) == ("7", "Ada", True)
    bot = emulator.token.partition(":")[0]
    assert first.message_id == f"{bot}:{CHAT}:1"
    assert (status.connected, status.detail, status.last_error) == (True, "@emulated_bot", None)
    stats = await emulator.stats()
    assert stats["concurrent_polls_max"] == 1
    assert [command["command"] for command in stats["commands"]] == ["new", "stop", "status", "model", "help"]


async def test_an_update_is_acknowledged_only_after_it_was_accepted(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context):
        context.door.open.clear()
        sent = await emulator.user_message("keep me", chat_id=CHAT)
        await context.door.wait(knocks=1)
        assert (await emulator.stats())["pending_updates"] == 1
        context.door.open.set()
        await emulator.wait(confirmed=sent["update_id"])
    assert context.door.texts == ["keep me"]
    assert (await emulator.stats())["pending_updates"] == 0


async def test_a_message_that_could_not_be_stored_comes_again(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context):
        context.door.refusal = DISK_FULL
        sent = await emulator.user_message("do not lose me", chat_id=CHAT)
        await context.wait_for_reason("could not store them (OperationalError: database or disk is full)")
        await context.door.wait(knocks=3)
        assert context.door.accepted == []
        context.door.refusal = None
        await context.door.wait(count=1)
        await emulator.wait(confirmed=sent["update_id"])
        await context.wait_for_reason(None)
    assert context.door.texts == ["do not lose me"]


async def test_a_stop_before_the_acceptance_loses_nothing(emulator: TelegramEmulator, context: StandingContext) -> None:
    context.door.open.clear()
    async with running(context):
        await emulator.user_message("half way", chat_id=CHAT)
        await context.door.wait(knocks=1)
    context.door.open.set()
    async with running(context):
        await context.door.wait(count=1)
    assert context.door.texts == ["half way"]


async def test_a_repeated_update_is_recognised_by_its_key(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context):
        sent = await emulator.user_message("once", chat_id=CHAT)
        await context.door.wait(count=1)
        await emulator.repeat(sent["update_id"])
        await context.door.wait(repeats=1)
        await emulator.user_message("twice", chat_id=CHAT)
        await context.door.wait(count=2)
    assert context.door.texts == ["once", "twice"]


async def test_a_hung_poll_is_given_up_and_built_anew_without_a_second_one(emulator: TelegramEmulator, context: StandingContext) -> None:
    context.section = {**context.section, "pollTimeoutSeconds": 1}
    await emulator.fault("getUpdates", "hang", skip=1, times=2)
    async with running(context) as runtime:
        await emulator.wait(attempted="getUpdates", times=2)
        await emulator.open_chat(CHAT)
        await runtime.send(OutboundMessage(target=to_chat(), outbox_id="1", text="sending works meanwhile"))
        await context.wait_for_reason("cannot be reached (no answer in time)")
        (hung,) = runtime.status()
        assert hung.connected is False
        last_cycle = hung.last_inbound_at
        await emulator.user_message("after the hang", chat_id=CHAT)
        await context.door.wait(count=1)
        await context.wait_for_reason(None)
        (well,) = runtime.status()
    assert context.door.texts == ["after the hang"]
    assert well.connected
    assert (well.last_inbound_at or 0) > (last_cycle or 0)
    assert (await emulator.stats())["concurrent_polls_max"] == 1


async def test_dropped_connections_and_server_errors_are_outlived(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.fault("getUpdates", "drop", times=2)
    await emulator.fault("getUpdates", "garbage", status=502)
    await emulator.fault("getUpdates", status=500)
    await emulator.fault("getUpdates", retry_after=1)
    await emulator.fault("getUpdates", "drop", after_accept=True)
    async with running(context):
        await emulator.user_message("through the storm", chat_id=CHAT)
        await context.door.wait(count=1)
    assert context.door.texts == ["through the storm"]
    assert (await emulator.stats())["concurrent_polls_max"] == 1


async def test_a_conflict_backs_off_reports_and_recovers(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.fault("getUpdates", status=409, times=3)
    async with running(context) as runtime:
        await context.wait_for_reason("channels.telegram.botToken: another program reads this bot's updates")
        assert runtime.status()[0].connected is False
        await emulator.user_message("patience", chat_id=CHAT)
        await context.door.wait(count=1)
        await context.wait_for_reason(None)
    polls = [call["at"] for call in await emulator.calls("getUpdates")][:4]
    pauses = [later - earlier for earlier, later in pairwise(polls)]
    assert pauses[0] >= QUICK.conflict_first
    assert pauses[1] >= QUICK.conflict_longest
    assert pauses[2] >= QUICK.conflict_longest


async def test_a_wrong_token_is_rejected_with_its_key_and_the_cure(emulator: TelegramEmulator) -> None:
    context = StandingContext({"botToken": "999:WRONG", "apiRoot": emulator.api_root})
    with pytest.raises(ConfigRejected) as rejected:
        async with running(context):
            pass
    assert str(rejected.value) == (
        "channels.telegram.botToken: Telegram does not accept the token; copy the bot's current token from @BotFather into it"
    )
    assert "999:WRONG" not in " ".join(reason or "" for reason in context.reasons)


async def test_one_wrong_token_leaves_the_other_accounts_at_work(emulator: TelegramEmulator) -> None:
    context = StandingContext(
        {
            "botToken": emulator.token,
            "apiRoot": emulator.api_root,
            "accounts": {"work": {"botToken": "999:WRONG"}},
        }
    )
    async with running(context) as runtime:
        await emulator.user_message("still here", chat_id=CHAT)
        await context.door.wait(count=1)
        by_account = {status.account_id: status for status in runtime.status()}
    fault = "channels.telegram.accounts.work.botToken: Telegram does not accept the token"
    assert by_account["work"].last_error is not None
    assert by_account["work"].last_error.startswith(fault)
    assert by_account["work"].running is False
    assert by_account["default"].last_error is None
    assert any(reason and reason.startswith(fault) for reason in context.reasons)


async def test_a_token_revoked_while_running_stops_the_account_and_says_so(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.add_bot("3003:SECOND", username="second_bot")
    context.section = {**context.section, "botToken": "3003:SECOND"}
    async with running(context) as runtime:
        await emulator.wait(token="3003:SECOND", polls_running=1)
        await emulator.user_message("last words", chat_id=CHAT, token="3003:SECOND")
        await context.door.wait(count=1)
        await emulator.remove_bot("3003:SECOND")
        await context.wait_for_reason("Telegram does not accept the token")
        assert runtime.status()[0].running is False


async def test_two_accounts_keep_their_messages_apart(emulator: TelegramEmulator) -> None:
    await emulator.add_bot("2002:OTHER", username="other_bot")
    section = {"apiRoot": emulator.api_root, "accounts": {"home": {"botToken": emulator.token}, "work": {"botToken": "2002:OTHER"}}}
    context = StandingContext(section)
    async with running(context) as runtime:
        await emulator.user_message("to home", chat_id=CHAT)
        await emulator.user_message("to work", chat_id=CHAT, token="2002:OTHER")
        await context.door.wait(count=2)
        await runtime.send(OutboundMessage(target=to_chat(account_id="work"), outbox_id="1", text="from work"))
    accounts = {message.text: message.target.account_id for message in context.door.accepted}
    assert accounts == {"to home": "home", "to work": "work"}
    assert await emulator.visible(CHAT) == []
    assert [message["text"] for message in await emulator.visible(CHAT, token="2002:OTHER")] == ["from work"]


async def test_an_unreachable_telegram_does_not_hold_up_the_start(context: StandingContext) -> None:
    context.section = {**context.section, "apiRoot": "http://127.0.0.1:9"}
    async with running(context) as runtime:
        (status,) = runtime.status()
        assert status.running
        assert not status.connected
        assert status.last_error is not None
        assert status.last_error.startswith("channels.telegram: http://127.0.0.1:9 cannot be reached")


async def test_files_are_loaded_and_those_over_the_limit_are_named(emulator: TelegramEmulator, context: StandingContext) -> None:
    context.section = {**context.section, "mediaMaxMb": 0.001}
    async with running(context):
        await emulator.user_message(chat_id=CHAT, caption="look", photo=b"picture")
        await emulator.user_message(chat_id=CHAT, document={"content": b"a,b", "file_name": "../t.csv", "mime_type": "text/csv"})
        await emulator.user_message(chat_id=CHAT, document={"content": b"x" * 1001, "file_name": "big.bin"})
        await emulator.user_message(chat_id=CHAT, document={"content": b"y" * 5000, "file_name": "liar.bin", "size": 10})
        await context.door.wait(count=4)
    photo, table, big, liar = context.door.accepted
    assert (photo.text, photo.attachments[0].kind, photo.attachments[0].content) == ("look", "image", b"picture")
    assert (table.attachments[0].file_name, table.attachments[0].mime_type) == ("_t.csv", "text/csv")
    assert big.attachments == liar.attachments == ()
    assert big.text == "[big.bin was not loaded: it is larger than 0.001 MB (channels.telegram.mediaMaxMb)]"
    assert liar.text == "[liar.bin was not loaded: it is larger than 0.001 MB (channels.telegram.mediaMaxMb)]"


async def test_a_file_that_fails_once_is_loaded_and_one_that_keeps_failing_is_named(
    emulator: TelegramEmulator, context: StandingContext
) -> None:
    async with running(context):
        await emulator.fault("file", "drop")
        await emulator.user_message(chat_id=CHAT, photo=b"second try")
        await context.door.wait(count=1)
        await emulator.fault("file", status=500, times=2)
        await emulator.user_message(chat_id=CHAT, caption="see", document={"content": b"never", "file_name": "n.txt"})
        await context.door.wait(count=2)
    first, second = context.door.accepted
    assert first.attachments[0].content == b"second try"
    assert second.attachments == ()
    assert second.text == "see\n[n.txt could not be loaded: the file server answered 500]"


async def test_nothing_is_loaded_for_a_stranger(emulator: TelegramEmulator, context: StandingContext) -> None:
    context.policies.guests = {"7"}
    async with running(context):
        await emulator.user_message(chat_id=CHAT, caption="hi", photo=b"from a stranger", sender={"id": 666, "first_name": "X"})
        await context.door.wait(count=1)
    assert context.door.accepted[0].attachments == ()
    assert context.door.texts == ["hi\n[photo-1.jpg]"]
    assert (await emulator.stats())["attempted"].get("getFile", 0) == 0


async def test_an_album_becomes_one_message(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context, replace(QUICK, album=0.5)):
        await emulator.wait(polls_running=1)
        await emulator.user_message(chat_id=CHAT, caption="holidays", photo=b"one", media_group_id="g1")
        await emulator.user_message(chat_id=CHAT, photo=b"two", media_group_id="g1")
        await emulator.user_message("and then?", chat_id=CHAT)
        await context.door.wait(count=2)
    album, question = context.door.accepted
    assert (album.text, album.message_id.partition(":")[2]) == ("holidays", f"{CHAT}:1-2")
    assert [attachment.content for attachment in album.attachments] == [b"one", b"two"]
    assert question.text == "and then?"


async def test_the_channel_stops_at_once_while_a_poll_waits(emulator: TelegramEmulator, context: StandingContext) -> None:
    context.section = {**context.section, "pollTimeoutSeconds": 50}
    async with asyncio.timeout(10):
        async with running(context):
            await emulator.wait(polls_running=1)
        await emulator.wait(polls_running=0)
        async with running(context):
            await emulator.wait(polls_running=1)
    assert (await emulator.stats())["concurrent_polls_max"] == 1


async def test_the_token_is_in_no_log_line(emulator: TelegramEmulator, context: StandingContext, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await emulator.fault("getUpdates", "drop")
    await emulator.fault("getUpdates", status=500, description=f"no such bot {emulator.token}")
    async with running(context, Pacing(retry_first=0.01)):
        await emulator.user_message(chat_id=CHAT, photo=b"x")
        await context.door.wait(count=1)
    told = "".join(reason or "" for reason in context.reasons)
    assert "<token>" in told
    assert emulator.token not in told + caplog.text


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
async def test_a_hundred_reconnects_leave_no_socket_and_no_task_behind(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context, replace(QUICK, retry_first=0.001, retry_longest=0.002)):
        await emulator.user_message("before", chat_id=CHAT)
        await context.door.wait(count=1)
        descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
        await emulator.fault("getUpdates", "drop", times=100)
        await emulator.user_message("after", chat_id=CHAT)
        await context.door.wait(count=2)
        assert (await emulator.stats())["attempted"]["getUpdates"] > 100
        assert open_descriptors() <= descriptors + 2
        assert len(asyncio.all_tasks()) <= tasks + 1
    assert (await emulator.stats())["concurrent_polls_max"] == 1
