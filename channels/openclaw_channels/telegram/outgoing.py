"""Answers to Telegram: rendered, split, in place of their draft, each part once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from telegram import InputFile, LinkPreviewOptions, ReplyParameters
from telegram.constants import ParseMode
from telegram.error import BadRequest, ChatMigrated, Forbidden, TelegramError

from openclaw_channels.telegram.client import BAD_ANSWER, Client, Flooded, describe, was_not_sent
from openclaw_channels.telegram.drafts import Drafts
from openclaw_channels.telegram.markdown import Span, to_html, to_parts, to_plain
from openclaw_channels.telegram.pacing import CHATS_REMEMBERED, Pacing, Quiet
from openclaw_channels.telegram.settings import AccountSettings
from openclaw_channels.telegram.wire import chat_id, safe_file_name, telegram_message_id, thread_id
from openclaw_kernel.api import Attachment, KeyValue, OutboundMessage, Receipt, SendFailed

PHOTO_LIMIT_BYTES: Final = 10 * 1024 * 1024
PHOTO_TYPES: Final = ("image/jpeg", "image/png", "image/webp")
GONE_DRAFT: Final = ("message to edit not found", "message can't be edited", "message_id_invalid")
Part = list[Span] | Attachment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    chat: int
    thread: int | None
    reply_to: int | None
    silent: bool


class Outgoing:
    """Sends for one account."""

    def __init__(
        self,
        *,
        client: Client,
        settings: AccountSettings,
        pacing: Pacing,
        quiet: Quiet,
        drafts: Drafts,
        storage: KeyValue,
    ) -> None:
        self._client = client
        self._settings = settings
        self._pacing = pacing
        self._quiet = quiet
        self._drafts = drafts
        self._storage = storage
        self._newest: dict[tuple[int, int | None], int] = {}
        """The last message of the newest answer in each place."""

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send all parts; after a failure the next attempt with the same outbox id goes on with the first unsent part."""
        place = self._place(message)
        # Parsing a long answer takes a noticeable part of a second.
        texts = await asyncio.to_thread(to_parts, message.text, self._settings.text_chunk_limit)
        parts: list[Part] = [*texts, *message.attachments]
        shown = await self._drafts.take(message.run_id)
        # A late edit would overwrite the answer, and a draft that stands before an earlier answer would turn their order around:
        # then it comes as a message of its own, and the draft goes.
        stays = shown is not None and shown.settled and shown.message_id > self._newest.get((place.chat, place.thread), 0)
        draft = shown.message_id if shown is not None and stays else None
        if not parts and shown is None:
            raise SendFailed("there is nothing to send: the message has neither text nor files", permanent=True)
        progress = f"sent:{message.outbox_id}"
        sent = await self._already_sent(progress) if len(parts) > 1 else []
        give_up = asyncio.get_running_loop().time() + self._pacing.send_budget
        first = len(sent)
        for number in range(first, len(parts)):
            if number > first:
                await self._pause(place, give_up)
            sent.append(await self._deliver(parts[number], place, draft=draft, number=number))
            if len(parts) > 1:
                await self._storage.put(progress, json.dumps(sent))
        if shown is not None and shown.message_id not in sent:
            await self._remove(place, shown.message_id)
        if message.run_id is not None and sent:
            self._note_newest(place, sent[-1])
        await self._drafts.forget(message.run_id)
        if len(parts) > 1:
            await self._storage.remove(progress)
        return Receipt(message_ids=tuple(f"{place.chat}:{message_id}" for message_id in sent))

    def _note_newest(self, place: _Place, message_id: int) -> None:
        self._newest.pop((place.chat, place.thread), None)
        self._newest[place.chat, place.thread] = message_id
        if len(self._newest) > CHATS_REMEMBERED:
            del self._newest[next(iter(self._newest))]

    async def _pause(self, place: _Place, give_up: float) -> None:
        """Wait out a short silence between parts; a long one, or too many parts, is left to the next attempt."""
        left = self._quiet.left(place.chat)
        if asyncio.get_running_loop().time() + left > give_up:
            raise SendFailed("the rest of a long message waits for the next attempt", retry_after=left)
        await asyncio.sleep(left)

    def _place(self, message: OutboundMessage) -> _Place:
        chat = chat_id(message.target)
        if chat is None:
            found = message.target.peer_id
            raise SendFailed(f"{found!r} is not a numeric Telegram chat id; write to the number", permanent=True)
        return _Place(
            chat=chat,
            thread=thread_id(message.target),
            reply_to=telegram_message_id(message.reply_to_id) if message.reply_to_id else None,
            silent=message.silent,
        )

    async def _already_sent(self, progress: str) -> list[int]:
        stored = await self._storage.get(progress)
        return [int(number) for number in json.loads(stored)] if stored else []

    async def _deliver(self, part: Part, place: _Place, *, draft: int | None, number: int) -> int:
        """Send one part; every failure leaves as `SendFailed`. A later part that meets a 429 is tried once more."""
        try:
            return await self._deliver_once(part, place, draft=draft, number=number)
        except SendFailed as failed:
            if number == 0 or failed.retry_after is None or failed.retry_after > self._pacing.short_silence:
                raise
            await asyncio.sleep(failed.retry_after)
        return await self._deliver_once(part, place, draft=draft, number=number)

    async def _deliver_once(self, part: Part, place: _Place, *, draft: int | None, number: int) -> int:
        if (left := self._quiet.left(place.chat)) > 0:
            raise SendFailed(f"Telegram wants a pause in chat {place.chat}", retry_after=left, whole_account=self._quiet.whole_bot)
        edits = draft is not None and number == 0 and not isinstance(part, Attachment)
        try:
            async with asyncio.timeout(self._pacing.call):
                if isinstance(part, Attachment):
                    return await self._file(part, place)
                if draft is not None and edits and await self._replace(draft, part, place):
                    return draft
                return await self._text(part, place, replies=number == 0)
        except Flooded as error:
            self._quiet.ask(place.chat, error.seconds)
            raise SendFailed(str(error), retry_after=error.seconds, whole_account=self._quiet.whole_bot) from error
        except ChatMigrated as error:
            text = f"the group {place.chat} has become {error.new_chat_id}; write the new id where the config names it"
            raise SendFailed(text, permanent=True) from error
        except (TelegramError, TimeoutError, *BAD_ANSWER) as error:
            permanent = isinstance(error, BadRequest | Forbidden)
            # The same edit twice is one edit.
            unknown = not edits and not was_not_sent(error)
            raise SendFailed(describe(error, self._settings), permanent=permanent, unknown=unknown) from error

    async def _replace(self, draft: int, part: Sequence[Span], place: _Place) -> bool:
        """Turn the draft into the first part; return False where the draft is gone."""
        try:
            await self._edit(draft, to_html(part), place, ParseMode.HTML)
        except BadRequest as error:
            refusal = error.message.lower()
            if "not modified" in refusal:
                return True
            if any(reason in refusal for reason in GONE_DRAFT):
                return False
            if "parse entities" not in refusal:
                raise
            await self._edit(draft, to_plain(part), place, None)
        return True

    async def _edit(self, draft: int, text: str, place: _Place, mode: ParseMode | None) -> None:
        await self._client.bot.edit_message_text(text, place.chat, draft, parse_mode=mode, link_preview_options=self._preview())

    async def _text(self, part: Sequence[Span], place: _Place, *, replies: bool) -> int:
        try:
            return await self._message(to_html(part), place, ParseMode.HTML, replies=replies)
        except BadRequest as error:
            if "parse entities" not in error.message.lower():
                raise
        return await self._message(to_plain(part), place, None, replies=replies)

    async def _message(self, text: str, place: _Place, mode: ParseMode | None, *, replies: bool) -> int:
        message = await self._client.bot.send_message(
            place.chat,
            text,
            parse_mode=mode,
            link_preview_options=self._preview(),
            message_thread_id=place.thread,
            disable_notification=place.silent,
            reply_parameters=_reply(place) if replies else None,
        )
        return message.message_id

    async def _file(self, attachment: Attachment, place: _Place) -> int:
        bot = self._client.bot
        file = InputFile(attachment.content, filename=safe_file_name(attachment.file_name, "file"))
        photo = attachment.mime_type in PHOTO_TYPES and len(attachment.content) <= PHOTO_LIMIT_BYTES
        if attachment.kind == "image" and photo:
            message = await bot.send_photo(place.chat, file, message_thread_id=place.thread, disable_notification=place.silent)
        elif attachment.kind == "audio":
            message = await bot.send_audio(place.chat, file, message_thread_id=place.thread, disable_notification=place.silent)
        elif attachment.kind == "video":
            message = await bot.send_video(place.chat, file, message_thread_id=place.thread, disable_notification=place.silent)
        else:
            message = await bot.send_document(place.chat, file, message_thread_id=place.thread, disable_notification=place.silent)
        return message.message_id

    async def _remove(self, place: _Place, draft: int) -> None:
        try:
            async with asyncio.timeout(self._pacing.call):
                await self._client.bot.delete_message(place.chat, draft)
        except BadRequest:
            return
        except (TelegramError, TimeoutError, *BAD_ANSWER) as error:
            raise SendFailed(describe(error, self._settings)) from error

    def _preview(self) -> LinkPreviewOptions | None:
        return None if self._settings.link_preview else LinkPreviewOptions(is_disabled=True)


def _reply(place: _Place) -> ReplyParameters | None:
    if place.reply_to is None:
        return None
    return ReplyParameters(place.reply_to, allow_sending_without_reply=True)
