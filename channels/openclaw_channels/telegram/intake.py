"""What arrived: translated, with its files loaded, accepted durably."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from telegram import Update
from telegram.error import BadRequest, TelegramError

from openclaw_channels.telegram.client import Client, FileTooLarge, describe, download
from openclaw_channels.telegram.settings import SECTION, AccountSettings
from openclaw_channels.telegram.wire import Bot, Incoming, Media, join_albums, read_update
from openclaw_kernel.api import Attachment, Commands, GatewayError, InboundMessage, Ingress, PluginContext, Policies, Verdict

# What a service of another plugin raises when it is missing, stopping, full or out of disk.
REFUSALS: Final = (GatewayError, LookupError, RuntimeError, OSError, TimeoutError, sqlite3.Error)
ATTEMPTS: Final = 2
AT_ONCE: Final = 4
STOP: Final = "stop"
MEGABYTE: Final = 1_000_000


class NotAccepted(Exception):
    """The gateway could not store a message; it is to be delivered again."""


class Intake:
    """The way of an account's updates to `Ingress.accept`."""

    def __init__(self, *, context: PluginContext, client: Client, settings: AccountSettings, account_id: str, bot: Bot) -> None:
        self._context = context
        self._client = client
        self._settings = settings
        self._account_id = account_id
        self._bot = bot
        self._loading = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[str, Incoming] = {}
        """Messages whose files are loaded and that are not accepted yet, in order, by id."""

    async def accept(self, updates: Sequence[Update]) -> None:
        """Accept all messages among the updates, in order; once it returns they are durable.

        Raise `NotAccepted` where the gateway could not store one: then none of the updates may be acknowledged.
        """
        incoming = self._incoming(updates)
        self._under_way |= {item.message.message_id: item for item in incoming}
        try:
            # A few at a time: all files of a hundred messages would not fit into memory.
            for begin in range(0, len(incoming), AT_ONCE):
                for message in await asyncio.gather(*(self._complete(item) for item in incoming[begin : begin + AT_ONCE])):
                    await self._store(message)
                    self._under_way.pop(message.message_id, None)
        finally:
            for item in incoming:
                self._under_way.pop(item.message.message_id, None)

    async def accept_stops(self, updates: Sequence[Update], heard: set[str]) -> None:
        """Accept the stop commands among updates whose turn has not come: they do not wait for the files before them.

        What came before a stop in its chat is accepted before it, so that it is stopped too, and needs no files for that. When their
        turn comes all of these are recognised as repeats. `heard` are the ids of the stops that were accepted so before. Raise as
        `accept`.
        """
        ahead = [*self._under_way.values(), *self._incoming(updates)]
        for number, found in enumerate(ahead):
            stop = found.message
            if stop.message_id in heard or not self._is_stop(found):
                continue
            earlier = [_without_files(item) for item in ahead[:number] if item.message.target == stop.target]
            # Begun in order, but not one after the other: where the store hangs, the stop is carried out all the same.
            outcomes = await asyncio.gather(*(self._store(message) for message in (*earlier, stop)), return_exceptions=True)
            for problem in outcomes:
                if problem is not None:
                    raise problem
            heard.add(stop.message_id)

    def _incoming(self, updates: Sequence[Update]) -> list[Incoming]:
        return join_albums([found for update in updates if (found := self._read(update)) is not None])

    def _is_stop(self, incoming: Incoming) -> bool:
        command = None if incoming.media else self._context.service(Commands).find(incoming.message.text)
        return command is not None and command[0].name == STOP

    async def _store(self, message: InboundMessage) -> None:
        try:
            await self._context.service(Ingress).accept(message)
        except REFUSALS as error:
            raise NotAccepted(f"{type(error).__name__}: {error}") from error

    def ends_in_album(self, updates: Sequence[Update]) -> bool:
        """Whether further parts of the last message may still be on their way."""
        last = updates[-1].message if updates else None
        return last is not None and last.media_group_id is not None

    def _read(self, update: Update) -> Incoming | None:
        try:
            return read_update(update, account_id=self._account_id, bot=self._bot, is_command=self._is_command)
        except (AttributeError, KeyError, TypeError, ValueError):
            # An update of a shape unknown to us must not stop those behind it.
            self._context.logger.exception("telegram update %s cannot be read and is skipped", update.update_id)
            return None

    def _is_command(self, text: str) -> bool:
        return self._context.service(Commands).find(text) is not None

    async def _complete(self, incoming: Incoming) -> InboundMessage:
        message = incoming.message
        if not incoming.media:
            return message
        if not self._is_admitted(message):
            # Strangers do not make the gateway load and keep files.
            return _without_files(incoming)
        loaded = await asyncio.gather(*(self._load(item) for item in incoming.media))
        return replace(
            message,
            text=_with_notes(message.text, [item for item in loaded if isinstance(item, str)]),
            attachments=tuple(item for item in loaded if isinstance(item, Attachment)),
        )

    def _is_admitted(self, message: InboundMessage) -> bool:
        policies = self._context.service(Policies)
        return policies.admit(message, policies.route(message)).verdict is Verdict.ALLOW

    async def _load(self, media: Media) -> Attachment | str:
        """Return the file, or a line that says why it is missing."""
        megabytes = self._settings.media_max_mb
        limit = int(megabytes * MEGABYTE)
        too_large = f"[{media.file_name} was not loaded: it is larger than {megabytes:g} MB ({SECTION}.mediaMaxMb)]"
        if media.size is not None and media.size > limit:
            return too_large
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                async with self._loading:
                    content = await download(self._client, media.file_id, limit=limit)
            except FileTooLarge:
                return too_large
            except (TelegramError, TimeoutError) as error:
                reason = describe(error, self._settings)
                self._context.logger.warning("telegram file %s could not be loaded: %s", media.file_name, reason)
                if isinstance(error, BadRequest):
                    break
            else:
                return Attachment(kind=media.kind, mime_type=media.mime_type, file_name=media.file_name, content=content)
        return f"[{media.file_name} could not be loaded: {reason}]"


def _without_files(incoming: Incoming) -> InboundMessage:
    message = incoming.message
    return replace(message, text=_with_notes(message.text, [f"[{item.file_name}]" for item in incoming.media]))


def _with_notes(text: str, notes: Sequence[str]) -> str:
    return "\n".join(line for line in (text, *notes) if line)
