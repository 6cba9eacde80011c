"""The outbox: what goes to a channel is written first, then sent in order for each conversation."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

from openclaw_kernel.api import Attachment, Channels, OutboundMessage, Receipt, SendFailed, Store, Target
from openclaw_plugins.conversation import ledger, writable
from openclaw_plugins.conversation.durable import write_until_done
from openclaw_plugins.conversation.keys import conversation_of

logger: Final = logging.getLogger(__name__)

SentState: TypeAlias = Literal["sent", "unknown_after_send", "failed", "dead_lettered"]
Conversation: TypeAlias = tuple[str, str, str, str]

IN_MEMORY: Final = 32
IN_DOUBT: Final = "⚠️ My last answer may not have reached you: it broke off while it was being sent. If you do not see it, ask again."
UNDER_WAY_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRules:
    """How hard delivery tries. Delays are in seconds."""

    attempts: int = 12
    first_delay: float = 1.0
    longest_delay: float = 300.0
    channel_poll: float = 0.5
    """How often a channel that is down is looked at."""
    expiry_ms: int = 24 * 3_600_000

    def delay(self, attempts: int) -> float:
        """Return the wait after so many attempts."""
        return float(min(self.longest_delay, self.first_delay * 2 ** (attempts - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message to put into the outbox. `request` is the caller's idempotency key and hash of its params."""

    target: Target
    text: str
    attachments: tuple[Attachment, ...] = ()
    run_id: str | None = None
    reply_to_id: str | None = None
    inbound_id: int | None = None
    silent: bool = False
    request: tuple[str, str] | None = None


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """One row on its way. `message` is None where it was too much to hold in memory and is read when its turn comes."""

    id: int
    outbox_id: str
    target: Target
    created_ms: int
    message: OutboundMessage | None = None
    run_id: str | None = None
    attempts: int = 0
    next_attempt_ms: int = 0
    in_doubt: bool = False
    """True where an earlier process was sending it when it ended: it may have arrived."""
    ended: asyncio.Future[Delivered] | None = None
    """Becomes how it ended; there once it is dispatched."""
    on_attempt: Callable[[], None] | None = None
    """Called once, after the first attempt, however it went, or at the end where there was none."""
    inbound_id: int | None = None

    @property
    def is_answer(self) -> bool:
        """Tell whether somebody waits for it: the answer of a turn to a message from a channel."""
        return self.run_id is not None and self.inbound_id is not None

    def attempted(self) -> None:
        """Call `on_attempt`, once."""
        called, self.on_attempt = self.on_attempt, None
        if called is not None:
            called()


@dataclass(frozen=True, slots=True)
class Delivered:
    """The end of a row."""

    outbox_id: str
    state: SentState
    message_ids: tuple[str, ...] = ()
    error: str | None = None


def insert(connection: sqlite3.Connection, draft: Draft, now_ms: int) -> Outgoing:
    """Write a message inside a write; hand the result to `Outbox.dispatch` once it is on disk."""
    outbox_id = uuid.uuid4().hex
    target, text = draft.target, writable.text(draft.text)
    request_key, request_hash = draft.request or (None, None)
    cursor = connection.execute(
        "INSERT INTO conversation_outbox (outbox_id, channel, account_id, peer_kind, peer_id, thread_id, text, reply_to_id,"
        " run_id, inbound_id, silent, attachments, state, next_attempt_ms, created_ms, updated_ms, request_key, request_hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'prepared', ?, ?, ?, ?, ?)",
        (
            outbox_id,
            target.channel,
            target.account_id,
            target.peer_kind,
            target.peer_id,
            target.thread_id,
            text,
            draft.reply_to_id,
            draft.run_id,
            draft.inbound_id,
            int(draft.silent),
            len(draft.attachments),
            now_ms,
            now_ms,
            now_ms,
            request_key,
            request_hash,
        ),
    )
    row_id = int(cursor.lastrowid or 0)
    ledger.keep_attachments(connection, "outbox", row_id, draft.attachments)
    message = OutboundMessage(
        target=target,
        outbox_id=outbox_id,
        text=text,
        attachments=draft.attachments,
        reply_to_id=draft.reply_to_id,
        run_id=draft.run_id,
        silent=draft.silent,
    )
    return Outgoing(
        id=row_id,
        outbox_id=outbox_id,
        target=target,
        created_ms=now_ms,
        message=message,
        run_id=draft.run_id,
        inbound_id=draft.inbound_id,
    )


class Outbox:
    """Sends rows: strictly in order within a conversation, conversations beside each other.

    A row that cannot be sent holds up only its own conversation, until it is sent or given up.
    """

    def __init__(
        self,
        *,
        store: Store,
        channels: Callable[[], Channels],
        spawn: Callable[[str, Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        now_ms: Callable[[], int],
        rules: DeliveryRules,
    ) -> None:
        self._store = store
        self._channels = channels
        self._spawn = spawn
        self._now_ms = now_ms
        self._rules = rules
        self._queues: dict[Conversation, deque[Outgoing]] = {}
        self._active: dict[str, Outgoing] = {}
        self._under_way: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._opened = asyncio.Event()

    async def load(self) -> None:
        """Queue what an earlier process left, before anything new; nothing is sent until `open`."""
        latest = self._now_ms() + round(self._rules.longest_delay * 1000)
        for item in await self._store.read(_unfinished):
            # The clock of the process that wrote the time may have been ahead.
            item.next_attempt_ms = min(item.next_attempt_ms, latest) if item.attempts else 0
            self.dispatch(item)

    def open(self) -> None:
        """Begin to send: the channels have started."""
        self._opened.set()

    async def stop(self) -> None:
        """Let what is being sent right now end, for 3 s at most; the rest goes out after the next start."""
        self._stopping = True
        self._opened.set()
        try:
            async with asyncio.timeout(UNDER_WAY_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("outbox: %d messages were still being sent at the stop", len(self._under_way))

    async def enqueue(self, draft: Draft) -> Outgoing:
        """Write a message and send it when its turn comes; run it to its end."""
        item = await self._store.write(lambda connection: insert(connection, draft, self._now_ms()))
        self.dispatch(item)
        return item

    async def enqueue_once(self, draft: Draft) -> Outgoing | KnownRequest:
        """As `enqueue`, but a request that came before leads to its row, and nothing is written."""

        def write(connection: sqlite3.Connection) -> Outgoing | KnownRequest:
            known = find_request(connection, draft.request[0]) if draft.request is not None else None
            return known or insert(connection, draft, self._now_ms())

        item = await self._store.write(write)
        if isinstance(item, Outgoing):
            self.dispatch(item)
        return item

    def dispatch(self, item: Outgoing, *, at_once: bool = False) -> None:
        """Queue a row that is on disk, `at_once` right behind the one that is being sent."""
        self._active[item.outbox_id] = item
        item.ended = asyncio.get_running_loop().create_future()
        conversation = conversation_of(item.target)
        queue = self._queues.get(conversation)
        if queue is not None:
            if len(queue) >= IN_MEMORY:
                item.message = None
            queue.insert(1 if at_once else len(queue), item)
            return
        if self._stopping:
            return
        queue = self._queues[conversation] = deque([item])
        self._spawn(f"deliver to {item.target.channel}", self._serve(conversation, queue))

    def active(self, outbox_id: str) -> Outgoing | None:
        """Return a row that has not come to its end."""
        return self._active.get(outbox_id)

    async def _serve(self, conversation: Conversation, queue: deque[Outgoing]) -> None:
        try:
            await self._opened.wait()
            while queue and not self._stopping:
                item = queue[0]
                # Whatever goes wrong with one message, the next ones are sent.
                for problem in await asyncio.gather(self._deliver(item), return_exceptions=True):
                    if problem is not None:
                        logger.error("outbox %s: how its delivery went cannot be written", item.outbox_id, exc_info=problem)
                queue.popleft()
        finally:
            self._queues.pop(conversation, None)

    async def _deliver(self, item: Outgoing) -> None:
        if item.in_doubt and not _drops_repeats(self._channels(), item.target.channel):
            await self._end(item, "unknown_after_send", error="the gateway stopped while sending it")
            return
        while not self._stopping:
            due = await self._wait_until_due(item)
            if due == "stopping":
                return
            if due == "expired":
                await self._end(item, "dead_lettered", error="not delivered in time")
                return
            self._begin(item)
            try:
                answer = await self._attempt(item)
                item.attempted()
                if await self._judge(item, answer):
                    return
            finally:
                self._ended(item)

    async def _wait_until_due(self, item: Outgoing) -> Literal["due", "expired", "stopping"]:
        """Wait for the row's time and for its channel."""
        while not self._stopping:
            now = self._now_ms()
            if now - item.created_ms > self._rules.expiry_ms:
                return "expired"
            if item.next_attempt_ms > now:
                await asyncio.sleep(min(self._rules.longest_delay, (item.next_attempt_ms - now) / 1000))
            elif self._is_down(item.target.channel):
                await asyncio.sleep(self._rules.channel_poll)
            else:
                return "due"
        return "stopping"

    def _is_down(self, channel: str) -> bool:
        # An unknown channel is not down: sending says so, and that is the end of the message.
        channels = self._channels()
        return channel in channels.ids() and channels.capabilities(channel) is None

    async def _attempt(self, item: Outgoing) -> Receipt | SendFailed:
        """Offer a row to its channel once, after that is written down."""
        item.attempts += 1
        for message in await asyncio.gather(self._prepare(item), return_exceptions=True):
            if isinstance(message, BaseException):
                return SendFailed(f"it cannot be prepared: {type(message).__name__}: {message}")
            for answer in await asyncio.gather(self._channels().send(message), return_exceptions=True):
                if isinstance(answer, Receipt | SendFailed):
                    return answer
                logger.error("outbox %s: the channel %s broke its contract", item.outbox_id, item.target.channel, exc_info=answer)
                return SendFailed(f"{type(answer).__name__}: {answer}", unknown=True)
        raise AssertionError("a gathered coroutine has an answer")

    async def _prepare(self, item: Outgoing) -> OutboundMessage:
        message = item.message or await self._read(item)
        await write_until_done(
            self._store,
            lambda connection: _mark_sending(connection, item, self._now_ms()),
            what=f"that outbox {item.outbox_id} is being sent",
        )
        return message

    async def _judge(self, item: Outgoing, answer: Receipt | SendFailed) -> bool:
        """Write what an attempt led to; return True where the row has come to its end."""
        if isinstance(answer, Receipt):
            await self._end(item, "sent", message_ids=answer.message_ids)
            return True
        reason = writable.text(str(answer))
        if answer.permanent:
            await self._end(item, "failed", error=reason)
        elif answer.unknown and not _drops_repeats(self._channels(), item.target.channel):
            await self._end(item, "unknown_after_send", error=reason)
        elif item.attempts >= self._rules.attempts:
            await self._end(item, "dead_lettered", error=f"{reason} (given up after {item.attempts} attempts)")
        else:
            delay = answer.retry_after if answer.retry_after is not None else self._rules.delay(item.attempts)
            item.next_attempt_ms = self._now_ms() + round(delay * 1000)
            await write_until_done(
                self._store,
                lambda connection: _mark_waiting(connection, item, reason, self._now_ms()),
                what=f"that outbox {item.outbox_id} waits",
            )
            return False
        return True

    async def _end(self, item: Outgoing, state: SentState, *, message_ids: tuple[str, ...] = (), error: str | None = None) -> None:
        if state != "sent":
            logger.warning("outbox %s to %s: %s: %s", item.outbox_id, item.target.channel, state, error)
        result = Delivered(item.outbox_id, state, tuple(map(writable.text, message_ids)), error)

        def write(connection: sqlite3.Connection) -> Outgoing | None:
            _mark_ended(connection, item, result, self._now_ms())
            if state != "unknown_after_send" or not item.is_answer:
                return None
            return insert(connection, Draft(target=item.target, text=IN_DOUBT, inbound_id=item.inbound_id), self._now_ms())

        try:
            notice = await write_until_done(self._store, write, what=f"the end of outbox {item.outbox_id}")
        finally:
            item.attempted()
            self._active.pop(item.outbox_id, None)
            if item.ended is not None and not item.ended.done():
                item.ended.set_result(result)
        if notice is not None:
            self.dispatch(notice, at_once=True)

    async def _read(self, item: Outgoing) -> OutboundMessage:
        message = await self._store.read(lambda connection: _read_message(connection, item))
        item.message = message
        return message

    def _begin(self, item: Outgoing) -> None:
        self._under_way.add(item.outbox_id)
        self._idle.clear()

    def _ended(self, item: Outgoing) -> None:
        self._under_way.discard(item.outbox_id)
        if not self._under_way:
            self._idle.set()


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """What the outbox answers to a repeated `send`."""

    outbox_id: str
    channel: str
    peer_id: str
    state: str
    receipt: tuple[str, ...]
    error: str | None
    request_hash: str


def find_request(connection: sqlite3.Connection, request_key: str) -> KnownRequest | None:
    """Return the row that a caller's idempotency key made."""
    row = connection.execute(
        "SELECT outbox_id, channel, peer_id, state, receipt, error, request_hash FROM conversation_outbox WHERE request_key = ?",
        (request_key,),
    ).fetchone()
    if row is None:
        return None
    outbox_id, channel, peer_id, state, receipt, error, request_hash = row
    return KnownRequest(outbox_id, channel, peer_id, state, tuple(orjson.loads(receipt or "[]")), error, request_hash)


def _drops_repeats(channels: Channels, channel: str) -> bool:
    capabilities = channels.capabilities(channel)
    return capabilities is not None and capabilities.idempotent_send


def _mark_sending(connection: sqlite3.Connection, item: Outgoing, now_ms: int) -> None:
    connection.execute(
        "UPDATE conversation_outbox SET state = 'sending', attempts = ?, updated_ms = ? WHERE id = ?",
        (item.attempts, now_ms, item.id),
    )


def _mark_waiting(connection: sqlite3.Connection, item: Outgoing, error: str, now_ms: int) -> None:
    connection.execute(
        "UPDATE conversation_outbox SET state = 'prepared', next_attempt_ms = ?, error = ?, updated_ms = ? WHERE id = ?",
        (item.next_attempt_ms, error, now_ms, item.id),
    )


def _mark_ended(connection: sqlite3.Connection, item: Outgoing, result: Delivered, now_ms: int) -> None:
    connection.execute(
        "UPDATE conversation_outbox SET state = ?, receipt = ?, error = ?, updated_ms = ? WHERE id = ?",
        (result.state, orjson.dumps(result.message_ids).decode(), result.error, now_ms, item.id),
    )
    ledger.drop_attachments(connection, "outbox", item.id)


def _unfinished(connection: sqlite3.Connection) -> list[Outgoing]:
    rows = connection.execute(
        "SELECT id, outbox_id, channel, account_id, peer_kind, peer_id, thread_id, created_ms, run_id, inbound_id,"
        " attempts, next_attempt_ms, state FROM conversation_outbox WHERE state IN ('prepared', 'sending') ORDER BY id"
    )
    return [
        Outgoing(
            id=row_id,
            outbox_id=outbox_id,
            target=Target(channel=channel, account_id=account, peer_kind=kind, peer_id=peer, thread_id=thread),
            created_ms=created,
            run_id=run_id,
            inbound_id=inbound_id,
            attempts=attempts,
            next_attempt_ms=due,
            in_doubt=state == "sending",
        )
        for row_id, outbox_id, channel, account, kind, peer, thread, created, run_id, inbound_id, attempts, due, state in rows
    ]


def _read_message(connection: sqlite3.Connection, item: Outgoing) -> OutboundMessage:
    text, reply_to_id, run_id, silent, attachments = connection.execute(
        "SELECT text, reply_to_id, run_id, silent, attachments FROM conversation_outbox WHERE id = ?", (item.id,)
    ).fetchone()
    return OutboundMessage(
        target=item.target,
        outbox_id=item.outbox_id,
        text=text,
        attachments=ledger.read_attachments(connection, "outbox", item.id) if attachments else (),
        reply_to_id=reply_to_id,
        run_id=run_id,
        silent=bool(silent),
    )
