"""Sending to Telegram: split, rendered, each part once, drafts that become the answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Literal

import pytest

from openclaw_channels.telegram.runtime import Runtime
from openclaw_kernel.api import Attachment, OutboundMessage, PeerKind, Progress, SendFailed, Target
from tests.channels.telegram.standing import QUICK, StandingContext, running
from tests.emulators.telegram_control import TelegramEmulator
from tests.emulators.telegram_text import utf16_length

CHAT = 42
GROUP = -1001


def target(chat_id: int = CHAT, *, kind: PeerKind = "direct", thread: str | None = None) -> Target:
    return Target(channel="telegram", account_id="default", peer_kind=kind, peer_id=str(chat_id), thread_id=thread)


def answer(text: str, *, outbox_id: str = "o1", run_id: str | None = None, reply_to: str | None = None) -> OutboundMessage:
    return OutboundMessage(target=target(), outbox_id=outbox_id, text=text, run_id=run_id, reply_to_id=reply_to)


def progress(phase: Literal["started", "text", "tool", "ended"], text: str = "", *, run_id: str = "r1") -> Progress:
    return Progress(target=target(), run_id=run_id, phase=phase, text=text)


async def send_like_an_outbox(runtime: Runtime, message: OutboundMessage) -> int:
    """Send, waiting as long as the channel asks for; return the number of attempts."""
    for attempt in range(1, 10):
        try:
            await runtime.send(message)
        except SendFailed as failed:
            if failed.retry_after is None:
                raise
            await asyncio.sleep(failed.retry_after)
        else:
            return attempt
    raise AssertionError("nine attempts did not suffice")


async def test_markdown_is_shown_as_telegram_entities(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    async with running(context) as runtime:
        receipt = await runtime.send(answer("**bold** & `a < b`\n\n```python\nprint(1)\n```"))
        (status,) = runtime.status()
    (seen,) = await emulator.visible(CHAT)
    assert seen["text"] == "bold & a < b\n\nprint(1)"
    assert [entity["type"] for entity in seen["entities"]] == ["bold", "code", "pre"]
    assert seen["entities"][2]["language"] == "python"
    assert receipt.message_ids == (f"{CHAT}:{seen['message_id']}",)
    assert status.last_outbound_at is not None


async def test_a_long_answer_is_split_and_its_code_opened_again(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    code = "\n".join(f"line {number} 😀" for number in range(900))
    async with running(context) as runtime:
        receipt = await runtime.send(answer(f"Here it is:\n\n```text\n{code}\n```\n\nDone."))
    messages = await emulator.visible(CHAT)
    assert len(messages) == len(receipt.message_ids) > 2
    assert all(utf16_length(message["text"]) <= 4096 for message in messages)
    assert all(any(entity["type"] == "pre" for entity in message["entities"]) for message in messages[:-1])
    assert "\n".join(message["text"] for message in messages).replace("\n\n", "\n") == f"Here it is:\n{code}\nDone."


async def test_text_goes_plain_where_telegram_refuses_the_markup(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    refusal = "Bad Request: can't parse entities: Unsupported start tag at byte offset 0"
    await emulator.fault("sendMessage", status=400, description=refusal)
    async with running(context) as runtime:
        await runtime.send(answer("**still** readable <3"))
    (seen,) = await emulator.visible(CHAT)
    assert (seen["text"], seen["parse_mode"], seen["entities"]) == ("still readable <3", None, [])


async def test_typing_is_shown_until_the_answer_and_a_draft_becomes_it(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    async with running(context) as runtime:
        runtime.show_progress(progress("started"))
        await emulator.wait(accepted="sendChatAction")
        runtime.show_progress(progress("text", "The capital of France is"))
        # The first message shows no whole text: if we are killed before we know its number, it stays.
        await emulator.wait(chat_id=CHAT, contains="The capital of France …")
        runtime.show_progress(progress("text", "The capital of France is **Par"))
        await emulator.wait(chat_id=CHAT, contains="France is **Par")
        runtime.show_progress(progress("ended"))
        await runtime.send(answer("The capital of France is **Paris**.", run_id="r1"))
        typed = (await emulator.stats())["accepted"]["sendChatAction"]
    (seen,) = await emulator.visible(CHAT)
    assert seen["text"] == "The capital of France is Paris."
    assert [edit["text"] for edit in seen["edits"]] == ["The capital of France …", "The capital of France is **Par"]
    assert typed == 1
    assert context.storage.values == {"drafts:default": "{}"}


async def test_the_typing_indicator_is_renewed_while_a_turn_lasts(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    async with running(context, replace(QUICK, typing=0.1)) as runtime:
        runtime.show_progress(progress("started"))
        await emulator.wait(accepted="sendChatAction", times=3)
        runtime.show_progress(progress("ended"))


async def test_a_final_answer_longer_than_a_message_starts_in_the_draft(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    text = "\n\n".join(f"paragraph {number} " + "word " * 60 for number in range(30))
    async with running(context) as runtime:
        runtime.show_progress(progress("text", text[:6000]))
        await emulator.wait(chat_id=CHAT, count=1)
        (draft,) = await emulator.visible(CHAT)
        receipt = await runtime.send(answer(text, run_id="r1"))
    messages = await emulator.visible(CHAT)
    assert draft["text"].startswith("…\n")
    assert messages[0]["message_id"] == draft["message_id"]
    assert messages[0]["text"].startswith("paragraph 0")
    assert len(messages) == len(receipt.message_ids) == 3
    assert [word for message in messages for word in message["text"].split()] == text.split()


async def test_streaming_off_shows_typing_but_no_draft(emulator: TelegramEmulator, context: StandingContext) -> None:
    context.section = {**context.section, "streaming": "off"}
    await emulator.open_chat(CHAT)
    async with running(context) as runtime:
        runtime.show_progress(progress("text", "A long enough beginning of an answer"))
        await emulator.wait(accepted="sendChatAction")
        await runtime.send(answer("done", run_id="r1"))
    (seen,) = await emulator.visible(CHAT)
    assert (seen["text"], seen["edits"]) == ("done", [])


async def test_drafts_respect_flood_control_and_the_answer_still_lands(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.flood(2, seconds=1.0, retry_after=1)
    number = 0
    async with running(context) as runtime:
        async with asyncio.timeout(20):
            while (await emulator.stats())["flood_refused"] == 0:
                number += 1
                runtime.show_progress(progress("text", f"the answer, {number} words of which are written"))
        attempts = await send_like_an_outbox(runtime, answer("the whole answer", run_id="r1"))
    (seen,) = await emulator.visible(CHAT)
    assert seen["text"] == "the whole answer"
    assert len(seen["edits"]) >= 1
    assert attempts == 2
    assert (await emulator.stats())["flood_ignored"] == 0


async def test_a_draft_whose_fate_is_unknown_is_not_drawn_twice(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.fault("sendMessage", "drop", after_accept=True)
    async with running(context, replace(QUICK, typing=0.1)) as runtime:
        runtime.show_progress(progress("text", "The beginning of some answer"))
        await emulator.wait(chat_id=CHAT, count=1)
        await emulator.wait(accepted="sendChatAction", times=2)
        runtime.show_progress(progress("text", "The beginning of some answer and more of it"))
        await emulator.wait(accepted="sendChatAction", times=4)
        assert (await emulator.stats())["attempted"]["sendMessage"] == 1
        runtime.show_progress(progress("ended"))


async def test_an_answer_after_a_restart_still_replaces_its_draft(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    async with running(context) as runtime:
        runtime.show_progress(progress("text", "The beginning of some answer"))
        await emulator.wait(chat_id=CHAT, count=1)
        await emulator.wait(accepted="sendChatAction")
    assert "r1" in context.storage.values["drafts:default"]
    async with running(context) as runtime:
        await runtime.send(answer("The whole answer", run_id="r1"))
        again = await runtime.send(answer("The whole answer", run_id="r1", outbox_id="o2"))
    messages = await emulator.visible(CHAT)
    assert [message["text"] for message in messages] == ["The whole answer", "The whole answer"]
    assert again.message_ids == (f"{CHAT}:{messages[1]['message_id']}",)


async def test_an_answer_behind_a_late_one_is_not_put_before_it(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    async with running(context) as runtime:
        runtime.show_progress(progress("text", "The beginning of the second answer", run_id="r2"))
        await emulator.wait(chat_id=CHAT, count=1)
        await runtime.send(answer("The first answer", run_id="r1"))
        await runtime.send(answer("The second answer", run_id="r2", outbox_id="o2"))
    assert [message["text"] for message in await emulator.visible(CHAT)] == ["The first answer", "The second answer"]


async def test_a_sign_of_life_that_comes_after_the_answer_changes_nothing(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    async with running(context) as runtime:
        runtime.show_progress(progress("text", "The beginning of some answer"))
        await emulator.wait(chat_id=CHAT, count=1)
        await runtime.send(answer("The whole answer", run_id="r1"))
        runtime.show_progress(progress("text", "The beginning of some answer and more"))
        runtime.show_progress(progress("started", run_id="r2"))
        await emulator.wait(accepted="sendChatAction")
        assert context.tasks == {"telegram account default", "telegram progress r2"}
    assert [message["text"] for message in await emulator.visible(CHAT)] == ["The whole answer"]


async def test_a_deleted_draft_is_replaced_by_a_new_message(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    async with running(context) as runtime:
        runtime.show_progress(progress("text", "The beginning of some answer"))
        await emulator.wait(chat_id=CHAT, count=1)
        await emulator.fault("editMessageText", status=400, description="Bad Request: message to edit not found")
        await runtime.send(answer("The whole answer", run_id="r1"))
    assert (await emulator.visible(CHAT))[-1]["text"] == "The whole answer"


async def test_a_lost_answer_to_the_final_edit_may_be_tried_again(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    async with running(context) as runtime:
        runtime.show_progress(progress("text", "The beginning of some answer"))
        await emulator.wait(chat_id=CHAT, count=1)
        await emulator.fault("editMessageText", "drop", after_accept=True)
        with pytest.raises(SendFailed) as failed:
            await runtime.send(answer("The whole answer", run_id="r1"))
        assert (failed.value.unknown, failed.value.permanent) == (False, False)
        await runtime.send(answer("The whole answer", run_id="r1"))
    assert [message["text"] for message in await emulator.visible(CHAT)] == ["The whole answer"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"mode": "drop", "after_accept": True}, {"unknown": True, "permanent": False, "retry_after": None}),
        ({"mode": "drop"}, {"unknown": True, "permanent": False, "retry_after": None}),
        ({"status": 403}, {"unknown": False, "permanent": True, "retry_after": None}),
        ({"status": 400}, {"unknown": False, "permanent": True, "retry_after": None}),
        ({"status": 500}, {"unknown": False, "permanent": False, "retry_after": None}),
        ({"retry_after": 7}, {"unknown": False, "permanent": False, "retry_after": 7.0}),
    ],
)
async def test_a_failure_says_whether_it_may_be_tried_again(
    emulator: TelegramEmulator, context: StandingContext, fault: dict[str, object], expected: dict[str, object]
) -> None:
    await emulator.open_chat(CHAT)
    await emulator.fault("sendMessage", **fault)  # type: ignore[arg-type]
    async with running(context) as runtime:
        with pytest.raises(SendFailed) as failed:
            await runtime.send(answer("hello"))
    found = {name: getattr(failed.value, name) for name in expected}
    assert found == expected


async def test_a_hung_send_ends_by_its_deadline_and_is_unknown(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.fault("sendMessage", "hang")
    async with running(context, replace(QUICK, call=0.5)) as runtime:
        with pytest.raises(SendFailed, match="no answer in time") as failed:
            await runtime.send(answer("hello"))
    assert failed.value.unknown


async def test_an_unreachable_telegram_is_known_not_to_have_got_it() -> None:
    async with TelegramEmulator() as emulator:
        await emulator.open_chat(CHAT)
        async with running(StandingContext({"botToken": emulator.token, "apiRoot": emulator.api_root})) as runtime:
            await emulator.stop()
            with pytest.raises(SendFailed) as failed:
                await runtime.send(answer("hello"))
    assert (failed.value.unknown, failed.value.permanent) == (False, False)


async def test_nothing_is_sent_into_a_chat_before_its_pause_is_over(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.fault("sendMessage", retry_after=30)
    async with running(context) as runtime:
        for _ in range(3):
            with pytest.raises(SendFailed) as failed:
                await runtime.send(answer("hello"))
            assert failed.value.retry_after is not None
            assert 25 < failed.value.retry_after <= 30
    assert (await emulator.stats())["attempted"]["sendMessage"] == 1


async def test_a_second_attempt_goes_on_after_the_parts_that_were_sent(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    context.section = {**context.section, "textChunkLimit": 64}
    text = "\n\n".join(f"part {number} " + "x" * 50 for number in range(4))
    await emulator.fault("sendMessage", status=500, skip=2)
    async with running(context) as runtime:
        with pytest.raises(SendFailed):
            await runtime.send(answer(text))
    async with running(context) as runtime:
        receipt = await runtime.send(answer(text))
    messages = await emulator.visible(CHAT)
    assert [message["text"][:6] for message in messages] == ["part 0", "part 1", "part 2", "part 3"]
    assert receipt.message_ids == tuple(f"{CHAT}:{message['message_id']}" for message in messages)
    assert context.storage.values == {}


async def test_a_late_second_attempt_keeps_the_draft_that_was_its_first_part(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    context.section = {**context.section, "textChunkLimit": 64}
    text = "\n\n".join(f"part {number} " + "x" * 50 for number in range(3))
    async with running(context) as runtime:
        runtime.show_progress(progress("text", "The beginning of some answer"))
        await emulator.wait(chat_id=CHAT, count=1)
        await emulator.fault("sendMessage", status=400)
        with pytest.raises(SendFailed):
            await runtime.send(answer(text, run_id="r1"))
        await runtime.send(answer("a later answer", run_id="r2", outbox_id="o2"))
        receipt = await runtime.send(answer(text, run_id="r1"))
    messages = await emulator.visible(CHAT)
    assert [message["text"][:6] for message in messages] == ["part 0", "a late", "part 1", "part 2"]
    assert receipt.message_ids == tuple(f"{CHAT}:{messages[place]['message_id']}" for place in (0, 2, 3))


async def test_a_second_attempt_removes_the_draft_that_the_first_did_not_use(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    context.section = {**context.section, "textChunkLimit": 64}
    text = "\n\n".join(f"part {number} " + "x" * 50 for number in range(2))
    async with running(context, replace(QUICK, draft_settle=0.05)) as runtime:
        runtime.show_progress(progress("text", "The beginning of some answer"))
        await emulator.wait(chat_id=CHAT, count=1)
        await emulator.fault("editMessageText", "hang")
        runtime.show_progress(progress("text", "The beginning of some answer and more"))
        await emulator.wait(attempted="editMessageText")
        await emulator.fault("sendMessage", status=500, skip=1)
        with pytest.raises(SendFailed):
            await runtime.send(answer(text, run_id="r1"))
        await runtime.send(answer(text, run_id="r1"))
    assert [message["text"][:6] for message in await emulator.visible(CHAT)] == ["part 0", "part 1"]


async def test_flood_control_between_parts_is_waited_out_in_one_attempt(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    await emulator.flood(3, seconds=1.0, retry_after=1)
    context.section = {**context.section, "textChunkLimit": 64}
    text = "\n\n".join(f"part {number} " + "x" * 50 for number in range(5))
    async with running(context) as runtime:
        assert await send_like_an_outbox(runtime, answer(text)) == 1
    assert [message["text"][:6] for message in await emulator.visible(CHAT)] == [f"part {number}" for number in range(5)]
    stats = await emulator.stats()
    assert (stats["flood_refused"], stats["flood_ignored"]) == (1, 0)


async def test_a_message_too_long_for_one_attempt_is_finished_by_the_next(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    context.section = {**context.section, "textChunkLimit": 64}
    text = "\n\n".join(f"part {number} " + "x" * 50 for number in range(3))
    async with running(context, replace(QUICK, send_budget=-1.0)) as runtime:
        assert await send_like_an_outbox(runtime, answer(text)) == 3
    assert [message["text"][:6] for message in await emulator.visible(CHAT)] == [f"part {number}" for number in range(3)]


async def test_files_go_out_as_what_they_are(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(CHAT)
    kinds = [("image", "image/png"), ("image", "image/svg+xml"), ("audio", "audio/mpeg"), ("video", "video/mp4"), ("file", "text/csv")]
    files = tuple(
        Attachment(kind=kind, mime_type=mime_type, file_name="../a.bin", content=b"content")  # type: ignore[arg-type]
        for kind, mime_type in kinds
    )
    async with running(context) as runtime:
        receipt = await runtime.send(replace(answer("with files"), attachments=files))
    messages = await emulator.visible(CHAT)
    assert [message["media"] for message in messages] == [None, "photo", "document", "audio", "video", "document"]
    assert len(receipt.message_ids) == 6


async def test_a_reply_names_its_message_and_goes_without_when_that_is_gone(emulator: TelegramEmulator, context: StandingContext) -> None:
    async with running(context) as runtime:
        asked = await emulator.user_message("question", chat_id=CHAT)
        await context.door.wait(count=1)
        await runtime.send(answer("answer", reply_to=context.door.accepted[0].message_id))
        await runtime.send(answer("to nothing", reply_to=f"{CHAT}:999", outbox_id="o2"))
    assert [message["reply_to"] for message in await emulator.visible(CHAT)] == [asked["message_id"], None]


async def test_a_forum_topic_gets_its_answer_and_typing(emulator: TelegramEmulator, context: StandingContext) -> None:
    await emulator.open_chat(GROUP, forum=True)
    topic = target(GROUP, kind="group", thread="5")
    async with running(context) as runtime:
        runtime.show_progress(Progress(target=topic, run_id="r1", phase="started"))
        await emulator.wait(accepted="sendChatAction")
        await runtime.send(OutboundMessage(target=topic, outbox_id="o1", text="in the topic", run_id="r1"))
    (seen,) = await emulator.visible(GROUP)
    assert seen["thread"] == 5
    (typing,) = await emulator.calls("sendChatAction")
    assert typing["parameters"]["message_thread_id"] == 5


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (answer("  \n"), "neither text nor files"),
        (replace(answer("x"), target=replace(target(), peer_id="@ada")), "'@ada' is not a numeric Telegram chat id"),
        (replace(answer("x"), target=replace(target(), account_id="work")), "there is no telegram account work, only: default"),
        (answer("x"), "Chat not found"),
    ],
)
async def test_what_cannot_be_sent_is_refused_for_good(
    emulator: TelegramEmulator, context: StandingContext, message: OutboundMessage, complaint: str
) -> None:
    async with running(context) as runtime:
        with pytest.raises(SendFailed, match=complaint) as failed:
            await runtime.send(message)
    assert failed.value.permanent
