"""P25: a client that comes back with its cursor folds to the state of one that never left, or is told of a gap."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openclaw_kernel.api.errors import InvalidRequest
from openclaw_kernel.bus import EventBus
from openclaw_kernel.events.log import EventLog
from openclaw_kernel.events.records import Bounds
from openclaw_kernel.events.replay import LogReplay
from openclaw_kernel.protocol.frames import EventFrame
from openclaw_kernel.store.sqlite import SqliteStore

QUICK = Bounds(gather_seconds=0, linger_seconds=0.001)
DEADLINE = 10.0


class Socket:
    """A connection that keeps what it is sent; `open` is cleared to stall it."""

    def __init__(self, name: str, scopes: Collection[str] = ("operator.read",), topics: Collection[str] = ()) -> None:
        self.connection_id = name
        self.role = "operator"
        self.effective_scopes = frozenset(scopes)
        self.caps: frozenset[str] = frozenset()
        self.topics = set(topics)
        self.frames: list[dict[str, Any]] = []
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

    def folded(self) -> list[bytes]:
        return [json.dumps([one["event"], one["payload"]]).encode() for one in self.items()]

    def gaps(self) -> list[str]:
        return [one["payload"]["reason"] for one in self.frames if one["event"] == "events.gap"]

    def cursor(self) -> str:
        return str(self.frames[-1]["payload"]["cursor"])


class Running:
    """A log, its bus and its feeds over one state folder; `crash` leaves what is not on disk."""

    def __init__(self, folder: Path, bounds: Bounds = QUICK) -> None:
        self.now = 1_700_000_000_000
        self.store = SqliteStore(folder / "state.sqlite3")
        self.bus = EventBus()
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
        st.tuples(st.just("yield"), st.integers(1, 4)),
        st.tuples(st.just("cut"), st.integers(0, 6)),
        st.tuples(st.just("restart"), st.booleans()),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, rows=st.sampled_from([5, 100_000]))
def test_p25_any_cut_any_interleaving(steps: list[tuple[str, int]], rows: int) -> None:
    asyncio.run(_cut_anywhere(steps, Bounds(rows=rows, gather_seconds=0, linger_seconds=0.001, tail=400)))


async def _cut_anywhere(steps: list[tuple[str, int]], bounds: Bounds) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = await Running(folder, bounds).start()
        told: list[int] = []
        seen: list[int] = []
        gaps: list[str] = []
        crashed = False
        socket = Socket("c0")
        cursor, _ = await one.follow(socket)
        number = count = 0

        def keep(upto: int | None = None) -> str:
            """Take what the client had read when it was cut, and its cursor then."""
            frames = socket.frames if upto is None else socket.frames[:upto]
            seen.extend(one["payload"]["payload"]["n"] for one in frames if one["event"] == "events.item")
            gaps.extend(one["payload"]["reason"] for one in frames if one["event"] == "events.gap")
            return str(frames[-1]["payload"]["cursor"]) if frames else cursor

        for step, amount in [*steps, ("cut", 0)]:
            if step == "tell":
                for _ in range(amount):
                    number += 1
                    told.append(number)
                    one.tell(number)
            elif step == "yield":
                for _ in range(amount):
                    await asyncio.sleep(0)
            else:
                cursor = keep(max(0, len(socket.frames) - amount) if step == "cut" else None)
                one.replay.unsubscribe(socket.connection_id)
                if step == "restart":
                    await (one.crash() if amount else one.stop())
                    crashed = crashed or bool(amount)
                    one = await Running(folder, bounds).start()
                count += 1
                socket = Socket(f"c{count}")
                cursor, gap = await one.follow(socket, cursor)
                gaps.extend([gap] if gap else [])
        number += 1
        told.append(number)
        one.tell(number)
        await socket.reach(one.log)
        keep()
        await one.stop()
    assert seen == sorted(set(seen)), "an event came twice or out of order"
    if not gaps:
        assert seen == told
    assert crashed or "crash" not in gaps
    assert set(seen) <= set(told)


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
