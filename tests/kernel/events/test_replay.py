"""P25: a client that comes back with its cursor folds to the state of one that never left, or is told of a gap."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openclaw_kernel.api.errors import InvalidRequest, Unavailable
from openclaw_kernel.api.scopes import ALL_SCOPES
from openclaw_kernel.bus import EventBus
from openclaw_kernel.events.log import EventLog
from openclaw_kernel.events.records import Bounds
from openclaw_kernel.events.replay import LogReplay
from openclaw_kernel.protocol.frames import EventFrame, dumps
from openclaw_kernel.store.sqlite import SqliteStore
from tests.kernel.declared_events import bus_with_events

QUICK = Bounds(gather_seconds=0, linger_seconds=0.001)
DEADLINE = 10.0


class Socket:
    """A connection that keeps what it is sent; `open` is cleared to stall it."""

    def __init__(
        self, name: str, scopes: Collection[str] = ("operator.read",), topics: Collection[str] = (), count: Callable[[], int] = lambda: 0
    ) -> None:
        self.connection_id = name
        self.role = "operator"
        self.effective_scopes = frozenset(scopes)
        self.caps: frozenset[str] = frozenset()
        self.topics = set(topics)
        self.frames: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.counts: list[int] = []
        """What `count` was when each frame came."""
        self._count = count
        self.plain: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.gaps_in_seq = 0
        self._changed = asyncio.Event()

    def offer(self, frame: EventFrame) -> None:
        self.plain.append(frame.name)

    async def room(self) -> None:
        await self.open.wait()

    def send(self, frame: bytes) -> None:
        self.frames.append(json.loads(frame))
        self.raw.append(frame)
        self.counts.append(self._count())
        self._changed.set()

    def skipped(self) -> None:
        self.gaps_in_seq += 1

    async def until(self, event: str, payload: object = None) -> None:
        """Wait until an event came, as an item with this payload where one is given."""
        async with asyncio.timeout(DEADLINE):
            while not any(
                one["event"] == event if payload is None else one["event"] == "events.item" and one["payload"]["payload"] == payload
                for one in self.frames
            ):
                self._changed.clear()
                await self._changed.wait()

    async def reach(self, log: EventLog) -> None:
        """Wait until it was told of all there is, by an event or by a gap."""
        async with asyncio.timeout(DEADLINE):
            await log.settled()
            while not self.frames or self.cursor() != log.cursor(log.end()):
                self._changed.clear()
                await self._changed.wait()

    def items(self) -> list[dict[str, Any]]:
        return [one["payload"] for one in self.frames if one["event"] == "events.item"]

    def gaps(self) -> list[str]:
        return [one["payload"]["reason"] for one in self.frames if one["event"] == "events.gap"]

    def cursor(self) -> str:
        return str(self.frames[-1]["payload"]["cursor"])


class Running:
    """A log, its bus and its feeds over one state folder; `crash` leaves what is not on disk."""

    def __init__(self, folder: Path, bounds: Bounds = QUICK) -> None:
        self.now = 1_700_000_000_000
        self.store = SqliteStore(folder / "state.sqlite3")
        self.bus = bus_with_events()
        self.log = EventLog(self.store, now_ms=lambda: self.now, bounds=bounds)
        self.replay = LogReplay(self.log, self.bus)

    async def start(self) -> Running:
        await self.store.open({})
        await self.log.open()
        self.bus.log = self.log
        return self

    async def stop(self) -> None:
        await self.replay.close()
        await self.log.close()
        await self.store.close()

    async def crash(self) -> None:
        await self.replay.close()
        await self.store.close()
        await self.log._tasks.close(1.0)

    def attach(self, socket: Socket) -> Socket:
        self.bus.attach(socket)
        self.replay.attach(socket)
        return socket

    async def follow(self, socket: Socket, since: str | None = None, events: Collection[str] | None = None) -> tuple[str, str | None]:
        self.attach(socket)
        began = await self.replay.subscribe(socket.connection_id, since=since, events=events)
        return began.cursor, None if began.gap is None else began.gap.reason.value

    def tell(self, number: int, event: str = "chat", **options: Any) -> None:
        self.bus.broadcast(event, {"n": number}, **options)


@asynccontextmanager
async def running(bounds: Bounds = QUICK) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        one = await Running(Path(folder), bounds).start()
        try:
            yield one
        finally:
            await one.stop()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.integers(1, 8)),
        st.tuples(st.just("stream"), st.integers(2, 8)),
        st.tuples(st.just("yield"), st.integers(1, 4)),
        st.tuples(st.just("cut"), st.integers(0, 6)),
        st.tuples(st.just("restart"), st.booleans()),
    ),
    min_size=3,
    max_size=14,
)


@dataclass
class History:
    """What was told, as the bytes on the wire; `kinds` has the key of those that later ones stand for."""

    told: list[bytes] = field(default_factory=list)
    kinds: list[str | None] = field(default_factory=list)
    crashed_at: int = 0

    def tell(self, bus: EventBus, kind: str | None) -> None:
        payload = {"n": len(self.told), "text": "\u00e4\n" * len(self.told), "kind": kind}
        self.told.append(dumps(payload))
        self.kinds.append(kind)
        bus.broadcast("chat", payload, replaces=kind)

    def check(self, parts: list[Part]) -> None:
        """Each part between two gaps has all that was told from its begin on, but for what a later event stands for."""
        for number, part in enumerate(parts):
            seen = [json.loads(payload)["n"] for payload in part.payloads]
            assert [self.told[n] for n in seen] == part.payloads, "not the bytes that were told"
            assert seen == sorted(set(seen)), "an event came twice or out of order"
            is_last = number == len(parts) - 1
            end = len(self.told) if is_last else max(seen, default=-1) + 1
            missing = [n for n in range(part.begin, end) if n not in seen and self.kinds[n] not in self.kinds[n + 1 :]]
            missing += [n for n in range(part.begin, end) if n not in seen and self.kinds[n] is None]
            assert not missing, f"never came, and no gap was told: {missing}"
            if is_last:
                whole = [payload for payload in self.told if json.loads(payload)["n"] >= min([part.begin, *seen])]
                assert folded(part.payloads) == folded(whole), "not the state of one that never left"


@dataclass
class Part:
    """What a client was sent between two gaps; `begin` is the number of the first event that it must have."""

    begin: int
    payloads: list[bytes] = field(default_factory=list)
    reason: str = ""


def folded(payloads: list[bytes]) -> tuple[list[bytes], dict[str, bytes]]:
    """The state of a client: every event that stands for itself, the newest of those that stand for others."""
    kept: list[bytes] = []
    newest: dict[str, bytes] = {}
    for payload in payloads:
        kind = json.loads(payload)["kind"]
        if kind is None:
            kept.append(payload)
        else:
            newest[kind] = payload
    return kept, newest


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, rows=st.sampled_from([5, 100_000]))
def test_p25_any_cut_any_interleaving(steps: list[tuple[str, int]], rows: int) -> None:
    asyncio.run(_cut_anywhere(steps, Bounds(rows=rows, gather_seconds=0, linger_seconds=0.001, tail=400)))


async def _cut_anywhere(steps: list[tuple[str, int]], bounds: Bounds) -> None:  # noqa: C901 - one step after the other
    history, parts, crashes = History(), [Part(0)], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = await Running(folder, bounds).start()
        socket = Socket("c0", count=lambda: len(history.told))
        cursor, _ = await one.follow(socket)
        count = 0

        def begin(reason: str, at: int) -> None:
            parts.append(Part(history.crashed_at if reason == "crash" else at, reason=reason))

        def keep(upto: int | None = None) -> str:
            """Take what the client had read when it was cut, and its cursor then."""
            frames = socket.frames if upto is None else socket.frames[:upto]
            for frame, raw, at in zip(frames, socket.raw, socket.counts, strict=False):
                if frame["event"] == "events.item":
                    parts[-1].payloads.append(raw.split(b',"payload":', 2)[2][:-2])
                elif frame["event"] == "events.gap":
                    begin(frame["payload"]["reason"], at)
            return str(frames[-1]["payload"]["cursor"]) if frames else cursor

        for step, amount in [*steps, ("cut", 0)]:
            if step in ("tell", "stream"):
                for _ in range(amount):
                    history.tell(one.bus, f"run {amount % 3}" if step == "stream" else None)
            elif step == "yield":
                for _ in range(amount):
                    await asyncio.sleep(0)
            else:
                cursor = keep(max(0, len(socket.frames) - amount) if step == "cut" else None)
                one.replay.unsubscribe(socket.connection_id)
                if step == "restart":
                    await (one.crash() if amount else one.stop())
                    if amount:
                        crashes, history.crashed_at = crashes + 1, len(history.told)
                    one = await Running(folder, bounds).start()
                count += 1
                socket = Socket(f"c{count}", count=lambda: len(history.told))
                cursor, gap = await one.follow(socket, cursor)
                if gap is not None:
                    begin(gap, len(history.told))
        history.tell(one.bus, None)
        await socket.reach(one.log)
        keep()
        await one.stop()
    history.check(parts)
    reasons = [part.reason for part in parts[1:]]
    assert reasons.count("crash") <= crashes
    assert bounds.rows == 5 or "too-old" not in reasons
    assert not {"unknown", "lost", "paused"} & {*reasons}


async def test_nothing_is_written_while_nobody_asks() -> None:
    async with running() as one:
        one.tell(1)
        await one.follow(Socket("a"))
        assert (one.log.recording, one.log.written) == (True, 0)


async def test_followers_get_recorded_events_from_the_log_alone_and_the_rest_at_once() -> None:
    async with running() as one:
        follower, other = Socket("a"), one.attach(Socket("b"))
        await one.follow(follower)
        one.tell(1)
        one.tell(2, connections=["a"])
        one.bus.publish(EventFrame("tick", b"{}"))
        await follower.until("events.item", {"n": 1})
        assert follower.plain == ["chat", "tick"]
        assert other.plain == ["chat", "tick"]


async def test_scopes_topics_and_names_narrow_a_replay() -> None:
    async with running() as one:
        start, _ = await one.follow(Socket("first", ["operator.read", "operator.pairing"]))
        one.tell(1, "device.pair.requested")
        one.tell(2, "session.message", topics=["sessions", "session:a"])
        one.tell(3, "agent", scoped_topic="session:a")
        one.tell(4, "session.message", topics=["session:b"])
        one.tell(5)
        wanted = {
            Socket("reader"): [3, 5],
            Socket("pairing", ["operator.pairing"]): [1],
            Socket("nobody", []): [],
            Socket("topics", topics=["session:a"]): [2, 3, 5],
        }
        scoped = Socket("scoped", topics=["session:b"])
        scoped.caps = frozenset({"session-scoped-events"})
        wanted[scoped] = [4, 5]
        for socket in wanted:
            await one.follow(socket, start)
        named = Socket("named", topics=["session:a"])
        await one.follow(named, start, ["session.message"])
        wanted[named] = [2]
        for socket, numbers in wanted.items():
            await socket.until("events.current")
            assert [item["payload"]["n"] for item in socket.items()] == numbers, socket.connection_id


async def test_a_cursor_that_is_too_old_foreign_or_nonsense_is_told_apart() -> None:
    async with running(Bounds(rows=3, gather_seconds=0, tail=0)) as one, running() as foreign:
        first, gap = await one.follow(Socket("a"))
        assert gap is None
        watcher = Socket("watcher")
        await one.follow(watcher)
        for number in range(40):
            one.tell(number)
            await watcher.until("events.item", {"n": number})
        assert await one.follow(Socket("b"), first) == (one.log.cursor(one.log.end()), "too-old")
        other, _ = await foreign.follow(Socket("a"))
        assert (await one.follow(Socket("c"), other))[1] == "unknown"
        assert (await one.follow(Socket("d"), first.partition(".")[0] + ".999"))[1] == "unknown"
        for nonsense in ("", "yesterday", first + "0x", "0" * 16 + ".-1", "0" * 16 + ".\u0661"):
            with pytest.raises(InvalidRequest, match="since"):
                await one.follow(Socket("e"), nonsense)
        with pytest.raises(InvalidRequest, match="tick"):
            await one.follow(Socket("f"), events=["tick"])


async def test_a_stalled_follower_holds_nothing_and_is_told_what_it_missed() -> None:
    async with running(Bounds(rows=50, gather_seconds=0, tail=2_000)) as one:
        stalled, watcher = Socket("stalled"), Socket("watcher")
        await one.follow(stalled)
        await stalled.until("events.current")
        await one.follow(watcher)
        stalled.open.clear()
        for number in range(600):
            one.tell(number)
            if number % 20 == 19:
                await watcher.until("events.item", {"n": number})
        assert len(stalled.items()) <= 1
        stalled.open.set()
        await stalled.until("events.gap")
        assert "too-old" in stalled.gaps()
        one.tell(600)
        await stalled.until("events.item", {"n": 600})


async def test_a_state_folder_restored_from_a_copy_does_not_take_newer_cursors() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, copy = Path(name) / "now", Path(name) / "copy"
        folder.mkdir()
        copy.mkdir()
        one = await Running(folder).start()
        socket = Socket("a")
        await one.follow(socket)
        one.tell(1)
        await socket.until("events.item", {"n": 1})
        await one.stop()
        (copy / "state.sqlite3").write_bytes((folder / "state.sqlite3").read_bytes())
        one = await Running(folder).start()
        socket = Socket("a")
        await one.follow(socket)
        for number in range(2, 9):
            one.tell(number)
        await socket.until("events.item", {"n": 8})
        newer = socket.cursor()
        await one.stop()
        two = await Running(copy).start()
        for number in range(20, 40):
            two.tell(number)
        assert (await two.follow(Socket("b"), newer))[1] == "unknown"
        await two.stop()


async def test_a_log_that_a_newer_gateway_wrote_is_followed_all_the_same(tmp_path: Path) -> None:
    """P3: an event that this version knows no scope for goes to nobody, and ends no feed; a reason it does not know is still a gap."""
    one = await Running(tmp_path).start()
    start, _ = await one.follow(Socket("before", ALL_SCOPES))
    for number in range(3):
        one.tell(number)
    await one.stop()
    with sqlite3.connect(one.store.path) as connection:
        connection.execute("UPDATE kernel_events SET event = 'of.tomorrow' WHERE position = 2")
        connection.execute(
            "INSERT INTO kernel_event_epochs (first, name, gap, ended, wanted_ms) VALUES (4, ?, 'tomorrow', 1, ?)", ("f" * 16, one.now)
        )
    connection.close()
    two = await Running(tmp_path).start()
    after = Socket("after", ALL_SCOPES)
    await two.follow(after, start)
    two.tell(3)
    await after.until("events.item", {"n": 3})
    assert [item["payload"]["n"] for item in after.items()] == [0, 2, 3]
    assert after.gaps() == ["unknown"]
    await two.stop()


async def test_a_second_subscription_replaces_the_first_and_an_end_gives_the_cursor_back() -> None:
    async with running() as one:
        socket = Socket("a")
        start, _ = await one.follow(socket)
        one.tell(1)
        await socket.until("events.item", {"n": 1})
        await one.replay.subscribe("a", since=start, events=None)
        await asyncio.wait_for(_twice(socket), DEADLINE)
        reached = one.replay.unsubscribe("a")
        assert reached == socket.items()[-1]["cursor"]
        assert one.replay.unsubscribe("a") is None
        one.tell(2)
        assert socket.plain == ["chat"]


async def _twice(socket: Socket) -> None:
    while len(socket.items()) < 2:
        socket._changed.clear()
        await socket._changed.wait()


@asynccontextmanager
async def broken_disk(store: SqliteStore) -> AsyncIterator[None]:
    """No row of the log can be written meanwhile."""
    fault = "CREATE TRIGGER broken BEFORE INSERT ON kernel_events BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
    await store.write(lambda connection: connection.execute(fault))
    try:
        yield
    finally:
        await store.write(lambda connection: connection.execute("DROP TRIGGER broken"))


def numbers(socket: Socket) -> list[int]:
    return [item["payload"]["n"] for item in socket.items()]


async def test_what_the_disk_never_took_is_told_as_a_gap() -> None:
    """Who subscribes meanwhile is refused, keeps its plain events, and is told by `seq` what it missed while it waited."""
    async with running(Bounds(gather_seconds=0, waiting=2_000, settle_seconds=0.05)) as one:
        follower, late = Socket("a"), one.attach(Socket("late"))
        await one.follow(follower)
        one.tell(1)
        await follower.until("events.item", {"n": 1})
        async with broken_disk(one.store):
            for number in range(2, 100):
                one.tell(number)
            with pytest.raises(Unavailable, match="disk"):
                await one.replay.subscribe("late", since=None, events=None)
            assert late.gaps_in_seq == 1
            one.tell(100)
            assert len(late.plain) == 100
        await follower.until("events.gap")
        one.tell(101)
        await follower.until("events.item", {"n": 101})
        assert follower.gaps() == ["lost"]
        at = next(place for place, one in enumerate(follower.frames) if one["event"] == "events.gap")
        after = [one["payload"]["payload"]["n"] for one in follower.frames[at:] if one["event"] == "events.item"]
        assert after == list(range(after[0], 102))
        back = Socket("b")
        assert (await one.follow(back, follower.items()[0]["cursor"]))[1] is None
        await back.until("events.current")
        assert (numbers(back), back.gaps()) == (numbers(follower)[1:], ["lost"])


async def test_a_disk_that_fails_for_a_moment_costs_no_event(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as one:
        follower = Socket("a")
        await one.follow(follower)
        async with broken_disk(one.store):
            one.tell(1)
            async with asyncio.timeout(DEADLINE):
                while "not written yet" not in caplog.text:  # noqa: ASYNC110 - a log has no event to wait for
                    await asyncio.sleep(0.01)
        one.tell(2)
        await follower.until("events.item", {"n": 2})
        assert (numbers(follower), follower.gaps()) == ([1, 2], [])


async def test_a_gateway_that_is_busy_forgets_by_age_and_ends_recording_a_day_after_the_last_follower() -> None:
    """There is an event all the time, so that the log never rests."""
    async with running(Bounds(age_seconds=100, gather_seconds=0, linger_seconds=0, maintain_seconds=0.01)) as one:
        follower = Socket("a")
        start, _ = await one.follow(follower)
        one.tell(1)
        await follower.until("events.item", {"n": 1})
        reached = follower.cursor()
        one.now += 50_000
        one.tell(2)
        await follower.until("events.item", {"n": 2})
        one.now += 60_000
        async with asyncio.timeout(DEADLINE):
            while one.log.oldest is None or one.log.oldest.position < 2:
                one.tell(3)
                await asyncio.sleep(0.001)
        assert await one.follow(Socket("b"), start) == (one.log.cursor(one.log.end()), "too-old")
        assert (await one.follow(Socket("c"), reached))[1] is None
        for name in "abc":
            one.replay.unsubscribe(name)
        one.now += 101_000
        async with asyncio.timeout(DEADLINE):
            while one.log.recording:
                one.tell(4)
                await asyncio.sleep(0.001)
        one.tell(5)
        back = Socket("d")
        _, gap = await one.follow(back, one.log.cursor(one.log.end()))
        one.tell(6)
        await back.until("events.item", {"n": 6})
        assert ([gap] if gap else back.gaps()) == ["paused"]
        assert 5 not in numbers(back)


async def test_an_answer_costs_the_log_its_length_and_not_its_square() -> None:
    """2,000 pieces of 100 bytes, each with all that came before: 200 MB on the wire, 200 kB in the log."""
    async with running() as one:
        follower = Socket("a", ["operator.read"])
        start, _ = await one.follow(follower)
        for number in range(2_000):
            one.bus.broadcast("chat", {"n": number, "text": "x" * 100 * number}, replaces="run")
            if number % 20 == 19:
                await one.log.settled()
        one.tell(2_000)
        await follower.until("events.item", {"n": 2_000})

        def size(connection: sqlite3.Connection) -> tuple[int, int]:
            return tuple(connection.execute("SELECT sum(length(payload)), sum(size) FROM kernel_events").fetchone())

        kept, counted = await one.store.read(size)
        assert kept < 250_000
        assert one.log._total == counted
        back = Socket("b")
        await one.follow(back, start)
        await back.until("events.current")
        assert numbers(back) == [1_999, 2_000]


async def test_who_is_cancelled_while_it_subscribes_gets_plain_events_again() -> None:
    async with running() as one:
        first = Socket("first")
        await one.follow(first)
        socket = one.attach(Socket("a"))
        async with broken_disk(one.store):
            one.tell(1)
            waiting = asyncio.create_task(one.replay.subscribe("a", since=None, events=None))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert socket.gaps_in_seq == 1
            one.tell(2)
        assert socket.plain == ["chat", "chat"]


async def test_what_stalled_followers_hold_of_the_tail_is_bounded_by_the_page() -> None:
    async with running(Bounds(gather_seconds=0, page=10_000)) as one:
        await one.follow(Socket("a"))
        for number in range(100):
            one.bus.broadcast("chat", {"n": number, "text": "x" * 4_000})
        await one.log.settled()
        page = await one.log.read(0)
        assert page is not None
        assert sum(record.size for record in page) <= 10_000
