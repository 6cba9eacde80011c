"""The outbox: what goes to a channel is written first, then sent in order for each conversation."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from openclaw_kernel.api import Channels, OutboundMessage, Receipt, SendFailed, Store
from openclaw_plugins.conversation import attempts, outbox_rows, writable
from openclaw_plugins.conversation.durable import write_until_done
from openclaw_plugins.conversation.keys import conversation_of
from openclaw_plugins.conversation.outbox_rows import Delivered, Draft, Outgoing, SentState
from openclaw_plugins.conversation.pauses import Pauses
from openclaw_plugins.conversation.settings import UnknownPolicy

logger: Final = logging.getLogger(__name__)

Conversation: TypeAlias = tuple[str, str, str, str]

IN_MEMORY: Final = 32
UNDER_WAY_SECONDS: Final = 3.0
SHORTEST_PAUSE: Final = 0.05
CLOCK_STEP_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRules:
    """How hard delivery tries. Delays are in seconds."""

    attempts: int = 12
    first_delay: float = 1.0
    longest_delay: float = 300.0
    channel_poll: float = 0.5
    """How often a channel that is down is looked at."""
    expiry_ms: int = 24 * 3_600_000
    unknown: UnknownPolicy = "notify"
    """What is done with a message that may have arrived."""
    unknown_by_channel: Mapping[str, UnknownPolicy] = field(default_factory=dict)

    def unknown_policy(self, channel: str) -> UnknownPolicy:
        """Return what is done with a message of a channel that may have arrived."""
        return self.unknown_by_channel.get(channel, self.unknown)

    def delay(self, attempts: int) -> float:
        """Return the wait after so many attempts."""
        return float(min(self.longest_delay, self.first_delay * 2 ** (attempts - 1)))


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
        rules: Callable[[], DeliveryRules],
    ) -> None:
        self._store = store
        self._channels = channels
        self._spawn = spawn
        self._now_ms = now_ms
        self._rules_now = rules
        self._queues: dict[Conversation, deque[Outgoing]] = {}
        self._active: dict[str, Outgoing] = {}
        self._pauses = Pauses()
        self._looked_ms = now_ms()
        self._under_way: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._opened = asyncio.Event()

    @property
    def _rules(self) -> DeliveryRules:
        return self._rules_now()

    async def load(self) -> None:
        """Queue what an earlier process left, before anything new; nothing is sent until `open`."""
        latest = self._now_ms() + round(self._rules.longest_delay * 1000)
        for item in await self._store.read(outbox_rows.unfinished):
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
        item = await self._store.write(lambda connection: outbox_rows.insert(connection, draft, self._now_ms()))
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

    async def flush(self) -> None:
        """Wait until nothing is left that could be sent now; what waits for its time or its channel is not waited for."""
        while due := [queue[0].ended for queue in self._queues.values() if queue and queue[0].ended and self._could_go(queue[0])]:
            await asyncio.wait(due, timeout=self._rules.channel_poll)

    def _could_go(self, item: Outgoing) -> bool:
        due = max(item.next_attempt_ms, self._pauses.until(item.target))
        return due <= self._look() and not self._is_down(item.target.channel)

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
        if item.in_doubt and not self._sends_again(item):
            await self._end(item, "unknown_after_send", "unknown", error=attempts.BROKE_OFF)
            return
        if item.in_doubt and await self._is_given_up(item, attempts.BROKE_OFF, "unknown"):
            return
        while not self._stopping:
            due = await self._wait_until_due(item)
            if due == "stopping":
                return
            if due == "expired":
                await self._end(item, "dead_lettered", "failed", error=self._late(item.target.channel))
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
        """Wait for the row's time, for the pause of its account and for its channel."""
        while not self._stopping:
            now = self._look()
            due = max(item.next_attempt_ms, self._pauses.until(item.target))
            if now - item.since_ms > self._rules.expiry_ms:
                return "expired"
            if due > now:
                await asyncio.sleep(min(self._rules.longest_delay, (due - now) / 1000))
            elif self._is_down(item.target.channel):
                await asyncio.sleep(self._rules.channel_poll)
            else:
                return "due"
        return "stopping"

    def _is_down(self, channel: str) -> bool:
        # One that is not there is down as well: it was there when the message was written, and who switched it off may switch it on again.
        return self._channels().capabilities(channel) is None

    def _late(self, channel: str) -> str:
        return f"not delivered in time; channel {channel!r} does not run" if self._is_down(channel) else "not delivered in time"

    def _look(self) -> int:
        """Return the time, on the loop's thread; a clock that was set back takes with it what was to wait until a time of its own."""
        now = self._now_ms()
        back = self._looked_ms - now
        self._looked_ms = now
        if back > CLOCK_STEP_MS:
            logger.warning("outbox: the clock was set back by %.0f s; what waits goes on waiting as long as it was to", back / 1000)
            self._pauses.set_back(back)
            for item in self._active.values():
                item.next_attempt_ms -= back
                item.since_ms -= back
        return now

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
            lambda connection: outbox_rows.mark_sending(connection, item, self._now_ms()),
            what=f"that outbox {item.outbox_id} is being sent",
        )
        return message

    async def _judge(self, item: Outgoing, answer: Receipt | SendFailed) -> bool:
        """Write what an attempt led to; return True where the row has come to its end."""
        if isinstance(answer, Receipt):
            await self._end(item, "sent", "sent", message_ids=answer.message_ids)
            return True
        reason = writable.text(str(answer))
        outcome: attempts.Outcome = "unknown" if answer.unknown else "failed"
        now = self._look()
        if answer.permanent:
            await self._end(item, "failed", "refused", error=reason)
            return True
        if answer.unknown and not self._sends_again(item):
            await self._end(item, "unknown_after_send", "unknown", error=reason)
            return True
        if answer.retry_after is not None and not answer.unknown:
            # The platform was asked too often; that says nothing against the message. Only its time bounds it.
            outcome = "limited"
            item.excused += 1
            item.next_attempt_ms = now + round(max(SHORTEST_PAUSE, answer.retry_after) * 1000)
            if answer.whole_account:
                self._pauses.ask(item.target, item.next_attempt_ms, now)
        elif await self._is_given_up(item, reason, outcome):
            return True
        else:
            delay = answer.retry_after if answer.retry_after is not None else self._rules.delay(item.counted)
            item.next_attempt_ms = now + round(delay * 1000)
        await write_until_done(
            self._store,
            lambda connection: outbox_rows.mark_waiting(connection, item, outcome, reason, self._now_ms()),
            what=f"that outbox {item.outbox_id} waits",
        )
        return False

    async def _is_given_up(self, item: Outgoing, reason: str, outcome: attempts.Outcome) -> bool:
        """End a row that was offered as often as it may be; return False where it was not."""
        if item.counted < self._rules.attempts:
            return False
        await self._end(item, "dead_lettered", outcome, error=f"{reason} (given up after {item.counted} attempts)")
        return True

    def _sends_again(self, item: Outgoing) -> bool:
        """Tell whether a row that may have arrived is offered again."""
        if item.is_doubt:
            # Read twice it says nothing wrong; not read at all, its reader waits for an answer that was given up.
            return True
        channel = item.target.channel
        return _drops_repeats(self._channels(), channel) or self._rules.unknown_policy(channel) == "resend"

    async def _end(
        self,
        item: Outgoing,
        state: SentState,
        outcome: attempts.Outcome,
        *,
        message_ids: tuple[str, ...] = (),
        error: str | None = None,
    ) -> None:
        if state != "sent":
            logger.warning("outbox %s to %s: %s: %s", item.outbox_id, item.target.channel, state, error)
        result = Delivered(item.outbox_id, state, tuple(map(writable.text, message_ids)), error)
        notifies = state == "unknown_after_send" and item.is_answer and self._rules.unknown_policy(item.target.channel) == "notify"

        def write(connection: sqlite3.Connection) -> Outgoing | None:
            outbox_rows.mark_ended(connection, item, result, outcome, self._now_ms())
            if not notifies:
                return None
            return outbox_rows.insert(
                connection, Draft(target=item.target, text=outbox_rows.IN_DOUBT, inbound_id=item.inbound_id), self._now_ms()
            )

        try:
            notice = await write_until_done(self._store, write, what=f"the end of outbox {item.outbox_id}")
        finally:
            item.attempted()
            if self._active.get(item.outbox_id) is item:
                del self._active[item.outbox_id]
            if item.ended is not None and not item.ended.done():
                item.ended.set_result(result)
        if notice is not None:
            self.dispatch(notice, at_once=True)

    async def _read(self, item: Outgoing) -> OutboundMessage:
        message = await self._store.read(lambda connection: outbox_rows.read_message(connection, item))
        item.message = message
        return message

    def _begin(self, item: Outgoing) -> None:
        self._under_way.add(item.outbox_id)
        self._idle.clear()

    def _ended(self, item: Outgoing) -> None:
        self._under_way.discard(item.outbox_id)
        if not self._under_way:
            self._idle.set()


def _drops_repeats(channels: Channels, channel: str) -> bool:
    capabilities = channels.capabilities(channel)
    return capabilities is not None and capabilities.idempotent_send
