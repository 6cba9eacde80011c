"""Signs of life of running turns: the typing indicator, and the answer as a draft that grows by edits."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from telegram import LinkPreviewOptions
from telegram.constants import ChatAction, ParseMode
from telegram.error import BadRequest, TelegramError

from openclaw_channels.telegram.client import BAD_ANSWER, Client, Flooded, describe
from openclaw_channels.telegram.markdown import to_html, to_parts, to_plain
from openclaw_channels.telegram.pacing import Pacing, Quiet
from openclaw_channels.telegram.settings import AccountSettings
from openclaw_channels.telegram.wire import chat_id, thread_id
from openclaw_kernel.api import KeyValue, Progress, Target

RUNS_REMEMBERED: Final = 256
DRAFTS_KEPT: Final = 64
"""How many drafts without an answer are remembered over a restart."""
DRAWN_LIMITS: Final = 3
"""Of a draft, so many times the platform's limit is looked at."""
SHORT_BEGINNING: Final = 24
"""A beginning of fewer characters waits for more."""
ELLIPSIS: Final = "…\n"
Spawn = Callable[[str, Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that shows a draft. Not `settled`, an edit of it is still on its way and may overwrite whatever replaces it."""

    message_id: int
    settled: bool = True


@dataclass(slots=True)
class _Run:
    id: str
    target: Target
    chat: int
    interval: float
    next_edit: float
    text: str = ""
    shown: str = ""
    message_id: int | None = None
    next_typing: float = 0.0
    ended: bool = False
    given_up: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Any] | None = None


class Drafts:
    """One worker per running turn, from its first sign of life to its end.

    Which message is the draft of which run is stored, so that an answer that comes after a restart still replaces it.
    """

    def __init__(
        self,
        *,
        client: Client,
        settings: AccountSettings,
        pacing: Pacing,
        quiet: Quiet,
        storage: KeyValue,
        storage_key: str,
        spawn: Spawn,
    ) -> None:
        self._client = client
        self._settings = settings
        self._pacing = pacing
        self._quiet = quiet
        self._storage = storage
        self._storage_key = storage_key
        self._spawn = spawn
        self._runs: dict[str, _Run] = {}
        self._drawn: dict[str, int] | None = None
        self._answered: deque[str] = deque(maxlen=RUNS_REMEMBERED)

    def show(self, progress: Progress, logger: logging.Logger) -> None:
        """Take note of a sign of life; the worker shows it."""
        run = self._runs.get(progress.run_id)
        if run is None:
            chat = chat_id(progress.target)
            # A sign of life that was overtaken by the answer must not start a second draft.
            late = progress.phase == "ended" or progress.run_id in self._answered
            if chat is None or late or not self._has_room():
                return
            run = self._begin(progress, chat, logger)
        if run.ended:
            return
        if progress.phase == "text":
            run.text = progress.text
        elif progress.phase == "ended":
            run.ended = True
        run.changed.set()

    async def take(self, run_id: str | None) -> Draft | None:
        """End the draft of a run; return the message that shows it, None where there is none."""
        if run_id is None:
            return None
        run = self._runs.get(run_id)
        if run is None:
            known = (await self._known()).get(run_id)
            return None if known is None else Draft(known)
        settled = True
        run.ended = True
        run.changed.set()
        if run.task is not None:
            _, late = await asyncio.wait({run.task}, timeout=self._pacing.draft_settle)
            for task in late:
                settled = False
                task.cancel()
        return None if run.message_id is None else Draft(run.message_id, settled=settled)

    async def forget(self, run_id: str | None) -> None:
        """The draft has become the answer."""
        if run_id is None:
            return
        self._runs.pop(run_id, None)
        self._answered.append(run_id)
        drawn = await self._known()
        if drawn.pop(run_id, None) is not None:
            await self._storage.put(self._storage_key, json.dumps(drawn))

    async def close(self) -> None:
        """End every worker."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        self._runs.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _known(self) -> dict[str, int]:
        if self._drawn is None:
            stored = await self._storage.get(self._storage_key)
            self._drawn = json.loads(stored) if stored else {}
        return self._drawn

    async def _remember(self, run_id: str, message_id: int) -> None:
        drawn = await self._known()
        drawn[run_id] = message_id
        while len(drawn) > DRAFTS_KEPT:
            del drawn[next(iter(drawn))]
        await self._storage.put(self._storage_key, json.dumps(drawn))

    def _has_room(self) -> bool:
        if len(self._runs) >= RUNS_REMEMBERED:
            # A run that ended without an answer was aborted; what it showed stays.
            ended = next((run_id for run_id, run in self._runs.items() if run.ended), None)
            if ended is None:
                return False
            del self._runs[ended]
        return True

    def _begin(self, progress: Progress, chat: int, logger: logging.Logger) -> _Run:
        direct = progress.target.peer_kind == "direct"
        run = _Run(
            id=progress.run_id,
            target=progress.target,
            chat=chat,
            interval=self._pacing.draft_direct if direct else self._pacing.draft_group,
            next_edit=asyncio.get_running_loop().time() + self._pacing.draft_first,
            given_up=self._settings.streaming == "off",
        )
        self._runs[progress.run_id] = run
        run.task = self._spawn(f"telegram progress {progress.run_id}", self._work(run, logger))
        return run

    async def _work(self, run: _Run, logger: logging.Logger) -> None:
        clock = asyncio.get_running_loop().time
        while not run.ended:
            run.changed.clear()
            try:
                async with asyncio.timeout(self._pacing.call):
                    await self._step(run, clock())
            except Flooded as error:
                self._quiet.ask(run.chat, error.seconds)
                run.interval = min(run.interval * 2, self._pacing.draft_longest)
            except (TelegramError, TimeoutError, *BAD_ANSWER) as error:
                # Without an answer it is not known whether the draft stands, and two of them would be worse than none.
                run.given_up = True
                logger.info("telegram draft in chat %s given up: %s", run.chat, describe(error, self._settings))
            await self._wait(run, clock())

    async def _wait(self, run: _Run, now: float) -> None:
        wake = max(run.next_typing, now + self._quiet.left(run.chat))
        if self._wants_edit(run):
            wake = min(wake, max(run.next_edit, now + self._quiet.left(run.chat)))
        try:
            async with asyncio.timeout(max(wake - now, 0.0)):
                await run.changed.wait()
        except TimeoutError:
            return

    def _wants_edit(self, run: _Run) -> bool:
        return not run.given_up and run.text.strip() != "" and run.text != run.shown

    async def _step(self, run: _Run, now: float) -> None:
        if self._quiet.left(run.chat) > 0:
            return
        due = now >= run.next_edit or (run.message_id is None and len(run.text) >= SHORT_BEGINNING)
        if self._wants_edit(run) and due:
            run.next_edit = now + run.interval
            await self._draw(run)
        elif now >= run.next_typing:
            run.next_typing = now + self._pacing.typing
            await self._client.bot.send_chat_action(run.chat, ChatAction.TYPING, message_thread_id=thread_id(run.target))

    async def _draw(self, run: _Run) -> None:
        whole = run.text
        # Killed before it is stored which message this is, we leave it behind: then it must not pass for the answer.
        text = whole if run.message_id is not None else _beginning(whole)
        limit = self._settings.text_chunk_limit - len(ELLIPSIS)
        # Only the end is shown: parsing the whole of a long answer for each edit would take ever longer.
        parts = to_parts(text[-DRAWN_LIMITS * limit :], limit)
        if not parts:
            return
        prefix = ELLIPSIS if len(parts) > 1 or len(text) > DRAWN_LIMITS * limit else ""
        try:
            await self._put(run, prefix + to_html(parts[-1]), ParseMode.HTML)
        except BadRequest as error:
            if "parse entities" in error.message.lower():
                await self._put(run, prefix + to_plain(parts[-1]), None)
            elif "not modified" not in error.message.lower():
                raise
        run.shown = whole

    async def _put(self, run: _Run, text: str, mode: ParseMode | None) -> None:
        no_preview = LinkPreviewOptions(is_disabled=True)
        if run.message_id is not None:
            await self._client.bot.edit_message_text(text, run.chat, run.message_id, parse_mode=mode, link_preview_options=no_preview)
            return
        message = await self._client.bot.send_message(
            run.chat,
            text,
            parse_mode=mode,
            link_preview_options=no_preview,
            message_thread_id=thread_id(run.target),
            disable_notification=True,
        )
        run.message_id = message.message_id
        await self._remember(run.id, message.message_id)


def _beginning(text: str) -> str:
    """Return a text without its last word, empty where it is its only one."""
    words = text.rstrip()
    end = max(words.rfind(" "), words.rfind("\n"))
    return f"{words[:end].rstrip()} …" if end > 0 else ""
