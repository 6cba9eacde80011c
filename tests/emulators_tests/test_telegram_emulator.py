"""The Bot API emulator, driven by the real python-telegram-bot library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import pytest
import pytest_asyncio
from telegram import Bot, BotCommand, InputMediaDocument, ReplyParameters, Update
from telegram.error import (
    BadRequest,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TimedOut,
)
from telegram.ext import (
    Application,
    ApplicationBuilder,
    ContextTypes,
    MessageHandler,
    filters,
)

from tests.emulators.telegram_control import TelegramEmulator
from tests.emulators.telegram_text import EntityError, parse_html, parse_markdown_v2

CHAT = 42
EchoApplication = Application[Any, Any, Any, Any, Any, Any]


@pytest.fixture(autouse=True)
def _periods_are_timedeltas(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library warns of a coming change wherever a number of seconds is read."""
    monkeypatch.setenv("PTB_TIMEDELTA", "true")


@pytest_asyncio.fixture
async def emulator() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as running:
        yield running


@pytest_asyncio.fixture
async def bot(emulator: TelegramEmulator) -> AsyncIterator[Bot]:
    await emulator.open_chat(CHAT)
    async with Bot(emulator.token, base_url=emulator.base_url, base_file_url=emulator.base_file_url) as running:
        yield running


async def echo(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    assert update.effective_message is not None
    await update.effective_message.reply_text(f"echo: {update.effective_message.text}")


def echo_application(emulator: TelegramEmulator) -> EchoApplication:
    application = ApplicationBuilder().token(emulator.token).base_url(emulator.base_url).base_file_url(emulator.base_file_url).build()
    application.add_handler(MessageHandler(filters.ALL, echo))
    return application


async def test_an_application_that_polls_echoes_every_message_once(
    emulator: TelegramEmulator,
) -> None:
    application = echo_application(emulator)
    async with application:
        assert application.updater is not None
        await application.updater.start_polling(timeout=5)
        await application.start()
        for number in range(3):
            await emulator.user_message(f"hello {number}", chat_id=CHAT)
        messages = await emulator.wait(chat_id=CHAT, count=3, contains="echo: hello 2")
        await application.updater.stop()
        await application.stop()
    assert [message["text"] for message in messages] == [f"echo: hello {number}" for number in range(3)]
    stats = await emulator.stats()
    assert stats["concurrent_polls_max"] == 1
    assert stats["pending_updates"] == 0


async def test_a_webhook_gets_updates_again_until_it_takes_them(emulator: TelegramEmulator, bot: Bot) -> None:
    seen: list[tuple[str, int]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
        await reader.readexactly(length)
        secret = next(line for line in head.splitlines() if line.startswith("x-telegram-bot-api-secret-token"))
        status = "500 Error" if not seen else "200 OK"
        seen.append((secret.split(": ")[1], length))
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await bot.set_webhook(f"http://127.0.0.1:{port}/hook", secret_token="s3cret")
        await emulator.user_message("hello", chat_id=CHAT)
        await emulator.wait(webhook_deliveries=1)
        with pytest.raises(Conflict, match="webhook is active"):
            await bot.get_updates()
        info = await bot.get_webhook_info()
        assert info.last_error_message == "Wrong response from the webhook: 500 Error"
        assert info.pending_update_count == 0
        await bot.delete_webhook()
    assert [secret for secret, _ in seen] == ["s3cret", "s3cret"]
    assert seen[0] == seen[1]


async def test_updates_come_again_until_the_offset_passes_them(emulator: TelegramEmulator, bot: Bot) -> None:
    sent = await emulator.user_message("/start now", chat_id=CHAT, sender={"id": 7, "first_name": "Ada"})
    first = await bot.get_updates(timeout=5)
    second = await bot.get_updates(timeout=5)
    assert [update.update_id for update in first] == [update.update_id for update in second] == [sent["update_id"]]
    message = first[0].message
    assert message is not None
    assert message.from_user is not None
    assert (message.from_user.id, message.from_user.first_name, message.text) == (
        7,
        "Ada",
        "/start now",
    )
    assert message.parse_entities(["bot_command"]) == {message.entities[0]: "/start"}
    assert await bot.get_updates(offset=sent["update_id"] + 1) == ()
    assert await bot.get_updates() == ()
    await emulator.repeat(sent["update_id"])
    assert [update.update_id for update in await bot.get_updates(offset=sent["update_id"] + 1)] == [sent["update_id"]]


async def test_a_second_poll_ends_the_first_with_409_and_is_recorded(emulator: TelegramEmulator, bot: Bot) -> None:
    async with asyncio.TaskGroup() as group:

        async def first_poll() -> None:
            with pytest.raises(Conflict, match="terminated by other getUpdates request"):
                await bot.get_updates(timeout=20)

        group.create_task(first_poll())
        await emulator.wait(polls_running=1)
        async with Bot(emulator.token, base_url=emulator.base_url) as rival:
            assert await rival.get_updates(timeout=0) == ()
    assert (await emulator.stats())["concurrent_polls_max"] == 2


async def test_a_poll_that_its_client_gave_up_is_not_counted_as_running(emulator: TelegramEmulator, bot: Bot) -> None:
    await emulator.fault("getUpdates", "hang")
    with pytest.raises(TimedOut):
        await bot.get_updates(timeout=0, read_timeout=0.3)
    assert await bot.get_updates(timeout=0) == ()
    assert (await emulator.stats())["concurrent_polls_max"] == 1


@pytest.mark.parametrize(
    ("mode", "text", "complaint"),
    [
        ("HTML", "<b>open", 'Can\'t find end tag corresponding to start tag "b"'),
        ("HTML", "<div>x</div>", 'Unsupported start tag "div" at byte offset 0'),
        (
            "HTML",
            "<b><i>x</b></i>",
            'Unmatched end tag at byte offset 7, expected "</i>", found "</b>"',
        ),
        ("HTML", "x</b>", "Unexpected end tag at byte offset 1"),
        ("HTML", "1 < 2", "Unsupported start tag"),
        ("MarkdownV2", "a *bold", "Can't find end of Bold entity at byte offset 2"),
        (
            "MarkdownV2",
            "1. first",
            "Character '.' is reserved and must be escaped with the preceding '\\'",
        ),
        ("MarkdownV2", "`code", "Can't find end of Code entity at byte offset 0"),
    ],
)
def test_markup_that_does_not_parse_is_refused(mode: str, text: str, complaint: str) -> None:
    with pytest.raises(EntityError) as refused:
        (parse_html if mode == "HTML" else parse_markdown_v2)(text)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("mode", "source", "text", "kinds"),
    [
        ("HTML", "<b>bold <i>both</i></b> &lt;x&gt; &amp;amp;", "bold both <x> &amp;", ["bold", "italic"]),
        ("HTML", '<pre><code class="language-python">x = 1</code></pre>', "x = 1", ["pre"]),
        ("HTML", '<a href="https://example.org/?a=1&amp;b=2">link</a>', "link", ["text_link"]),
        ("HTML", "<blockquote>said</blockquote><tg-spoiler>😀</tg-spoiler>", "said😀", ["blockquote", "spoiler"]),
        ("MarkdownV2", "*bold* _italic_ __under__ ~gone~", "bold italic under gone",
         ["bold", "italic", "underline", "strikethrough"]),
        ("MarkdownV2", "```python\nx = [1]\n``` `a.b`", "x = [1]\n a.b", ["pre", "code"]),
        ("MarkdownV2", "[link](https://example.org/\\)) done\\.", "link done.", ["text_link"]),
        ("MarkdownV2", ">one\n>two\nthree", "one\ntwo\nthree", ["blockquote"]),
    ],
)  # fmt: skip
def test_markup_becomes_text_and_entities(mode: str, source: str, text: str, kinds: list[str]) -> None:
    plain, entities = (parse_html if mode == "HTML" else parse_markdown_v2)(source)
    assert plain == text
    assert [entity["type"] for entity in entities] == kinds


async def test_a_message_with_markup_is_shown_parsed_or_refused(emulator: TelegramEmulator, bot: Bot) -> None:
    message = await bot.send_message(CHAT, "<b>bold</b> &amp; <i>italic</i>", parse_mode="HTML")
    assert message.text == "bold & italic"
    assert message.parse_entities() == {message.entities[0]: "bold", message.entities[1]: "italic"}
    (seen,) = await emulator.visible(CHAT)
    assert (seen["source"], seen["parse_mode"]) == ("<b>bold</b> &amp; <i>italic</i>", "HTML")
    with pytest.raises(BadRequest, match=r"(?i)can't parse entities: unsupported start tag \"div\" at byte offset 0"):
        await bot.send_message(CHAT, "<div>x</div>", parse_mode="HTML")
    with pytest.raises(BadRequest, match=r"(?i)can't parse entities: character '\.' is reserved"):
        await bot.send_message(CHAT, "1. first", parse_mode="MarkdownV2")


async def test_text_is_limited_in_utf16_units_and_may_not_be_empty(bot: Bot) -> None:
    await bot.send_message(CHAT, "😀" * 2048)
    with pytest.raises(BadRequest, match=r"(?i)message is too long"):
        await bot.send_message(CHAT, "😀" * 2048 + "x")
    with pytest.raises(BadRequest, match=r"(?i)message text is empty"):
        await bot.send_message(CHAT, " \n")
    with pytest.raises(BadRequest, match=r"(?i)chat not found"):
        await bot.send_message(999, "hello")


async def test_edits_are_kept_and_the_same_text_is_refused(emulator: TelegramEmulator, bot: Bot) -> None:
    asked = await emulator.user_message("question", chat_id=CHAT)
    message = await bot.send_message(CHAT, "one", reply_parameters=ReplyParameters(asked["message_id"]))
    await bot.edit_message_text("two", CHAT, message.message_id)
    with pytest.raises(BadRequest, match=r"(?i)message is not modified"):
        await bot.edit_message_text("two", CHAT, message.message_id)
    with pytest.raises(BadRequest, match=r"(?i)message can't be edited"):
        await bot.edit_message_text("two", CHAT, asked["message_id"])
    (seen,) = await emulator.visible(CHAT)
    assert (seen["text"], [edit["text"] for edit in seen["edits"]]) == ("two", ["one"])
    assert seen["reply_to"] == asked["message_id"]
    await bot.delete_message(CHAT, message.message_id)
    assert await emulator.visible(CHAT) == []
    with pytest.raises(BadRequest, match=r"(?i)message to edit not found"):
        await bot.edit_message_text("three", CHAT, message.message_id)
    with pytest.raises(BadRequest, match=r"(?i)message to be replied not found"):
        await bot.send_message(CHAT, "x", reply_parameters=ReplyParameters(12345))


async def test_files_go_both_ways(emulator: TelegramEmulator, bot: Bot) -> None:
    await emulator.user_message(chat_id=CHAT, caption="look", photo=b"picture bytes")
    await emulator.user_message(
        chat_id=CHAT,
        document={
            "content": b"a,b\n",
            "file_name": "räum list.csv",
            "mime_type": "text/csv",
        },
    )
    await emulator.user_message(chat_id=CHAT, document={"file_name": "huge.bin", "size": 30_000_000})
    photo, document, huge = (update.message for update in await bot.get_updates(timeout=5))
    assert photo is not None
    assert document is not None
    assert huge is not None
    assert photo.caption == "look"
    assert bytes(await (await photo.photo[-1].get_file()).download_as_bytearray()) == b"picture bytes"
    assert document.document is not None
    assert (document.document.file_name, document.document.mime_type) == (
        "räum list.csv",
        "text/csv",
    )
    assert bytes(await (await document.document.get_file()).download_as_bytearray()) == b"a,b\n"
    assert huge.document is not None
    with pytest.raises(BadRequest, match=r"(?i)file is too big"):
        await huge.document.get_file()

    sent = await bot.send_document(
        CHAT,
        BytesIO(b"report"),
        filename="report.txt",
        caption="<b>here</b>",
        parse_mode="HTML",
    )
    assert sent.document is not None
    assert (sent.document.file_name, sent.caption) == ("report.txt", "here")
    assert bytes(await (await sent.document.get_file()).download_as_bytearray()) == b"report"
    await bot.send_photo(CHAT, BytesIO(b"jpeg"))
    group = await bot.send_media_group(CHAT, [InputMediaDocument(BytesIO(b"1")), InputMediaDocument(BytesIO(b"2"))])
    assert len({message.media_group_id for message in group}) == 1
    assert [seen["media"] for seen in await emulator.visible(CHAT)] == [
        "document",
        "photo",
        "document",
        "document",
    ]


async def test_flood_control_refuses_and_notices_who_does_not_wait(emulator: TelegramEmulator, bot: Bot) -> None:
    await emulator.flood(2, seconds=30, retry_after=3)
    message = await bot.send_message(CHAT, "one")
    await bot.edit_message_text("two", CHAT, message.message_id)
    with pytest.raises(RetryAfter) as refused:
        await bot.send_message(CHAT, "three")
    assert refused.value.retry_after in (3, 3.0) or str(refused.value.retry_after) == "0:00:03"
    with pytest.raises(RetryAfter):
        await bot.send_message(CHAT, "four")
    stats = await emulator.stats()
    assert (stats["flood_refused"], stats["flood_ignored"]) == (2, 1)
    await emulator.open_chat(43)
    await bot.send_message(43, "another chat")


async def test_faults_hang_drop_refuse_and_lose_the_answer_after_accepting(emulator: TelegramEmulator, bot: Bot) -> None:
    await emulator.fault("sendMessage", "hang")
    with pytest.raises(TimedOut):
        await bot.send_message(CHAT, "hangs", read_timeout=0.2)
    await emulator.fault("sendMessage", "drop")
    with pytest.raises(NetworkError):
        await bot.send_message(CHAT, "dropped")
    await emulator.fault("sendMessage", status=403)
    with pytest.raises(Forbidden, match="bot was blocked by the user"):
        await bot.send_message(CHAT, "blocked")
    await emulator.fault("sendMessage", retry_after=7)
    with pytest.raises(RetryAfter):
        await bot.send_message(CHAT, "slow down")
    await emulator.fault("sendMessage", "garbage", status=502)
    with pytest.raises(NetworkError):
        await bot.send_message(CHAT, "gateway")
    assert await emulator.visible(CHAT) == []
    await emulator.fault("sendMessage", "drop", after_accept=True)
    with pytest.raises(NetworkError):
        await bot.send_message(CHAT, "accepted and lost")
    await bot.send_message(CHAT, "fine")
    assert [message["text"] for message in await emulator.visible(CHAT)] == [
        "accepted and lost",
        "fine",
    ]
    assert [call["parameters"]["text"] for call in (await emulator.sent())["calls"] if call["method"] == "sendMessage"] == [
        "accepted and lost",
        "fine",
    ]


async def test_tokens_methods_and_bots_are_told_apart(emulator: TelegramEmulator, bot: Bot) -> None:
    with pytest.raises(InvalidToken, match="rejected by the server"):
        async with Bot("999:WRONG", base_url=emulator.base_url):
            pass
    with pytest.raises(Exception, match="not found"):
        await bot.do_api_request("noSuchMethod")
    await emulator.add_bot("2002:OTHER", username="other_bot")
    async with Bot("2002:OTHER", base_url=emulator.base_url) as other:
        assert other.username == "other_bot"
        await emulator.user_message("to the other", chat_id=CHAT, token="2002:OTHER")
        assert len(await other.get_updates(timeout=5)) == 1
        assert await bot.get_updates() == ()
    await emulator.remove_bot("2002:OTHER")
    with pytest.raises(InvalidToken):
        async with Bot("2002:OTHER", base_url=emulator.base_url):
            pass


async def test_commands_actions_and_callback_queries(emulator: TelegramEmulator, bot: Bot) -> None:
    await bot.set_my_commands([BotCommand("new", "start afresh"), BotCommand("stop", "stop the answer")])
    assert [command.command for command in await bot.get_my_commands()] == [
        "new",
        "stop",
    ]
    with pytest.raises(BadRequest, match=r"(?i)bot_command_invalid"):
        await bot.set_my_commands([BotCommand("Not-Valid", "x")])
    await bot.send_chat_action(CHAT, "typing")
    with pytest.raises(BadRequest):
        await bot.send_chat_action(CHAT, "thinking")
    person = {"id": 7, "is_bot": False, "first_name": "Ada"}
    await emulator.update(
        "callback_query",
        {"id": "q1", "from": person, "chat_instance": "1", "data": "yes"},
    )
    (update,) = await bot.get_updates(timeout=5)
    assert update.callback_query is not None
    await update.callback_query.answer()
    with pytest.raises(BadRequest, match=r"(?i)query is too old"):
        await update.callback_query.answer()
    assert await bot.close()
    assert await bot.log_out()


async def test_only_allowed_updates_are_delivered(emulator: TelegramEmulator, bot: Bot) -> None:
    sent = await emulator.user_message("first", chat_id=CHAT)
    await emulator.user_message("edited", chat_id=CHAT, edited=True, message_id=sent["message_id"])
    updates = await bot.get_updates(timeout=5, allowed_updates=["edited_message"])
    assert [update.edited_message.text for update in updates if update.edited_message] == ["edited"]
    assert len(updates) == 1
