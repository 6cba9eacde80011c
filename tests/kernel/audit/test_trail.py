"""Rows are written with what they record, or soon; never changed, never lost without a count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.secrets import Secret
from openclaw_kernel.api.audit import BY_POLICY, AuditAction, AuditEntry, AuditFilter, AuditOrigin
from openclaw_kernel.audit import table
from openclaw_kernel.audit.chain import CHECKPOINT_ROWS, ChainCheck, Verdict
from openclaw_kernel.audit.checkpoints import CHECKPOINTS_FILE, CheckpointFile
from openclaw_kernel.audit.records import DETAILS_BYTES, NO_HASH, TEXT_LIMIT, AuditRow, digest_of_row
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.audit.verifying import verify, verify_files
from openclaw_kernel.store.sqlite import SqliteStore

NOBODY = AuditOrigin(actor="nobody", surface="ws", address="203.0.113.9")
APPROVED = AuditEntry(action=AuditAction.DEVICE_APPROVED, origin=BY_POLICY, subject="device:d1")
WRONG_TOKEN = AuditEntry(action=AuditAction.AUTH_REFUSED, origin=NOBODY, reason="token_mismatch")

OTHERS = table.COLUMNS.removeprefix("sequence, ")


class Clock:
    """Unix milliseconds, moved by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state.sqlite3")
    await store.open({})
    yield store
    await store.close()


@pytest.fixture
async def trail(store: SqliteStore, tmp_path: Path, clock: Clock) -> AsyncIterator[AuditTrail]:
    trail = AuditTrail(store, home=tmp_path, now_ms=clock)
    await trail.open()
    yield trail
    await trail.close()


async def rows(store: SqliteStore) -> list[AuditRow]:
    return await store.read(lambda connection: table.rows_after(connection, 0, 10_000))


def _put(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO kernel_key_value VALUES ('test', 'k', 'v')")


def _kept(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM kernel_key_value").fetchone()[0])


async def test_a_row_is_chained_to_the_one_before(store: SqliteStore, trail: AuditTrail) -> None:
    numbers = [await store.write(lambda connection: trail.append(connection, APPROVED)) for _ in range(3)]
    found = await rows(store)
    assert numbers == [row.sequence for row in found] == [1, 2, 3]
    assert [row.previous for row in found] == [NO_HASH, found[0].hash, found[1].hash]
    assert all(row.hash == digest_of_row(row) for row in found)


async def test_a_write_that_fails_after_its_row_leaves_neither(store: SqliteStore, trail: AuditTrail) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        _put(connection)
        trail.append(connection, APPROVED)
        raise ValueError("after the row")

    with pytest.raises(ValueError, match="after the row"):
        await store.write(fails)
    assert await store.read(_kept) == 0
    assert await rows(store) == []


async def test_a_row_factory_of_the_work_does_not_disturb_the_chain(store: SqliteStore, trail: AuditTrail) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.row_factory = lambda _cursor, values: {"values": values}
        trail.append(connection, APPROVED)
        trail.append(connection, APPROVED)

    await store.write(work)
    assert [row.sequence for row in await rows(store)] == [1, 2]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE kernel_audit SET actor = 'nobody' WHERE sequence = 1",
        "DELETE FROM kernel_audit WHERE sequence = 2",
        "DELETE FROM kernel_audit",
        "INSERT OR REPLACE INTO kernel_audit SELECT * FROM kernel_audit WHERE sequence = 1",
        f"INSERT INTO kernel_audit SELECT 9, {OTHERS} FROM kernel_audit WHERE sequence = 2",  # noqa: S608 - the columns of the table
        f"INSERT INTO kernel_audit SELECT 3, {OTHERS} FROM kernel_audit WHERE sequence = 2",  # noqa: S608 - the columns of the table
        "DROP TABLE kernel_audit",
        "DROP TRIGGER kernel_audit_no_delete",
        "ALTER TABLE kernel_audit RENAME TO other",
        "CREATE TRIGGER more BEFORE INSERT ON kernel_audit BEGIN SELECT RAISE(IGNORE); END",
    ],
)
async def test_no_statement_changes_what_is_written(store: SqliteStore, trail: AuditTrail, statement: str) -> None:
    for _ in range(2):
        await store.write(lambda connection: trail.append(connection, APPROVED))
    before = await rows(store)
    with pytest.raises(sqlite3.DatabaseError, match=r"append-only|not authorized"):
        await store.write(lambda connection: connection.execute(statement))
    assert await rows(store) == before
    await store.write(lambda connection: trail.append(connection, APPROVED))


async def test_the_first_refusal_is_a_row_at_once_and_the_rest_one_with_the_count(
    store: SqliteStore, trail: AuditTrail, clock: Clock
) -> None:
    for number in range(1_000):
        clock.now_ms += 10
        trail.refused(AuditEntry(action=AuditAction.METHOD_REFUSED, origin=NOBODY, reason="missing scope", subject=f"m{number % 20}"))
    await trail.settled()
    (first,) = await rows(store)
    assert (first.outcome, first.subject, first.details) == ("refused", "m0", "{}")
    clock.now_ms += 60_000
    await trail.settled()
    _, summary = await rows(store)
    details = json.loads(summary.details)
    assert details["count"] == 999
    assert details["untilMs"] - details["sinceMs"] == 9_990
    assert details["subjects"] == [f"m{number}" for number in range(8)]


async def test_addresses_of_one_network_are_counted_together_and_others_apart(store: SqliteStore, trail: AuditTrail) -> None:
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "203.0.113.9", "203.0.113.10"):
        origin = AuditOrigin(actor="nobody", surface="ws", address=address)
        trail.refused(AuditEntry(action=AuditAction.AUTH_REFUSED, origin=origin, reason="token_mismatch"))
    await trail.settled()
    assert [row.address for row in await rows(store)] == ["2001:db8::1", "2001:db8:0:1::1", "203.0.113.9", "203.0.113.10"]


async def test_an_attack_from_everywhere_fills_no_disk_and_hides_no_other_refusal(
    store: SqliteStore, trail: AuditTrail, clock: Clock
) -> None:
    for minute in range(60):
        for number in range(200):
            origin = AuditOrigin(actor="nobody", surface="ws", address=f"10.{minute}.{number}.1")
            trail.refused(AuditEntry(action=AuditAction.AUTH_REFUSED, origin=origin, reason="token_mismatch"))
        clock.now_ms += 60_000
        await trail.settled()
    insider = AuditOrigin(actor="device:d1", surface="ws", address="10.0.0.1")
    trail.refused(AuditEntry(action=AuditAction.GRANT_REFUSED, origin=insider, reason="nobody hands out more than it has"))
    clock.now_ms += 3_600_000
    await trail.settled()
    found = await rows(store)
    assert len(found) < 300
    assert [row.actor for row in found if row.action == "grant.refused"] == ["device:d1"]
    counts = [json.loads(row.details)["counts"]["auth.refused"] for row in found if row.action == "audit.overflowed"]
    assert sum(counts) + sum(row.action == "auth.refused" for row in found) == 12_000


async def test_what_waits_for_the_disk_is_bounded_and_what_is_lost_is_counted(trail: AuditTrail, store: SqliteStore, clock: Clock) -> None:
    actions = [action for action in AuditAction if action is not AuditAction.AUDIT_OVERFLOWED]
    for action in actions:
        for number in range(32):
            trail.note(AuditEntry(action=action, origin=NOBODY, subject=f"s{number}"))
    await trail.settled()
    found = await rows(store)
    lost = [json.loads(row.details)["counts"] for row in found if row.action == "audit.overflowed"]
    assert len(found) == 512 + len(lost)
    assert sum(count for counts in lost for count in counts.values()) == 32 * len(actions) - 512


async def test_what_is_noted_is_on_disk_after_the_stop_with_its_count(store: SqliteStore, tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(store, home=tmp_path, now_ms=clock)
    await trail.open()
    for _ in range(5):
        trail.note(AuditEntry(action=AuditAction.PLUGIN_STATE, origin=BY_POLICY, subject="plugin:x", reason="failed"))
    await trail.close()
    assert [json.loads(row.details).get("count") for row in await rows(store)] == [None, 4]


async def test_no_secret_and_nothing_without_bound_comes_into_a_row(store: SqliteStore, trail: AuditTrail) -> None:
    secret = Secret("hunter2-canary")
    text = "hunter2-canary \ud800 " + "x" * 10_000
    entry = AuditEntry(
        action=AuditAction.SECRET_READ,
        origin=AuditOrigin(actor=text, surface="ws", address=text),
        subject=text,
        reason=text,
        details={"secret": secret, text: [text, secret], "large": 2**60, "deep": {"a": {"b": {"c": {"d": 1}}}}, "nan": float("nan")},
    )
    await store.write(lambda connection: trail.append(connection, entry))
    many = AuditEntry(action=AuditAction.SECRET_READ, origin=BY_POLICY, details={str(number): "y" * 400 for number in range(50)})
    await store.write(lambda connection: trail.append(connection, many))
    found = await rows(store)
    assert "hunter2" not in str(found)
    assert all(len(text) <= TEXT_LIMIT for row in found for text in (row.actor, row.subject or "", row.reason or ""))
    assert all(len(row.details) <= DETAILS_BYTES for row in found)
    assert json.loads(found[1].details)["omittedBytes"] > 20_000
    assert all(row.hash == digest_of_row(row) for row in found)


async def test_rows_are_read_and_checked_while_no_more_can_be_written(store: SqliteStore, trail: AuditTrail, tmp_path: Path) -> None:
    await store.write(lambda connection: trail.append(connection, APPROVED))
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        trail.refused(WRONG_TOKEN)
        page = await trail.page(AuditFilter(), behind=None, limit=10, oldest_first=True)
        assert [row["action"] for row in page.rows] == ["device.approved"]
        other.execute("ROLLBACK")
    verdict = await trail.verify()
    assert (verdict["ok"], verdict["rows"]) == (True, 2)


@pytest.mark.parametrize("oldest_first", [True, False])
async def test_pages_follow_each_other_and_filters_hold(store: SqliteStore, trail: AuditTrail, *, oldest_first: bool) -> None:
    traced = AuditOrigin(actor="device:d1", surface="ws", trace_id="0af7651916cd43dd8448eb211c80319c")
    entries = [APPROVED, AuditEntry(action=AuditAction.DEVICE_REMOVED, origin=traced, subject="device:d2"), APPROVED, APPROVED]
    await store.write(lambda connection: [trail.append(connection, entry) for entry in entries])

    async def found(behind: int | None = None, limit: int = 10, **filters: Any) -> tuple[list[int], int | None]:
        page = await trail.page(AuditFilter(**filters), behind=behind, limit=limit, oldest_first=oldest_first)
        return [row["sequence"] for row in page.rows], page.next

    order = [1, 2, 3, 4] if oldest_first else [4, 3, 2, 1]
    assert await found() == (order, None)
    assert await found(limit=3) == (order[:3], order[2])
    assert await found(behind=order[2]) == (order[3:], None)
    for filters in ({"action": "device.removed"}, {"actor": "device:d1"}, {"subject": "device:d2"}, {"trace_id": traced.trace_id}):
        assert await found(**filters) == ([2], None)
    assert await found(action="device") == (order, None)
    for nothing in ({"action": "dev"}, {"outcome": "refused"}, {"since_ms": 1_000_001}, {"until_ms": 999_999}):
        assert await found(**nothing) == ([], None)


async def test_a_page_of_a_long_log_looks_at_a_bounded_number_of_rows(store: SqliteStore, trail: AuditTrail) -> None:
    await store.write(lambda connection: [trail.append(connection, APPROVED) for _ in range(5)])
    seen: list[int | None] = [0]
    while (behind := seen[-1]) is not None:
        rows, following = await store.read(
            lambda connection, behind=behind: table.page(  # type: ignore[misc]
                connection, AuditFilter(actor="nobody"), behind=behind, limit=10, oldest_first=True, scanned=2
            )
        )
        assert rows == []
        seen.append(following)
    assert seen == [0, 2, 4, None]


# --- checkpoints of a running log ---


async def verdict_of(store: SqliteStore, home: Path) -> Verdict:
    checkpoints, fault = CheckpointFile(home).read()
    found = ChainCheck(checkpoints, fault=fault)
    for row in await rows(store):
        found.take(row)
    return found.finish()


async def test_after_a_stop_every_row_is_signed(store: SqliteStore, tmp_path: Path, clock: Clock) -> None:
    for number in (3, 4):
        trail = AuditTrail(store, home=tmp_path, now_ms=clock)
        await trail.open()
        for _ in range(number):
            await store.write(lambda connection, trail=trail: trail.append(connection, APPROVED))  # type: ignore[misc]
        await trail.close()
    verdict = await verdict_of(store, tmp_path)
    assert (verdict.fault, verdict.rows, verdict.signed) == (None, 7, 7)


async def test_a_row_is_signed_soon_and_many_rows_sooner(store: SqliteStore, tmp_path: Path, clock: Clock) -> None:
    soon = AuditTrail(store, home=tmp_path, now_ms=clock, checkpoint_seconds=0.01)
    await soon.open()
    await store.write(lambda connection: soon.append(connection, APPROVED))
    await _until_signed(tmp_path, 1)
    await soon.close()
    never = AuditTrail(store, home=tmp_path, now_ms=clock, checkpoint_seconds=3_600)
    await never.open()
    await store.write(lambda connection: [never.append(connection, APPROVED) for _ in range(CHECKPOINT_ROWS)])
    await _until_signed(tmp_path, CHECKPOINT_ROWS + 1)
    await never.close()


async def _until_signed(home: Path, sequence: int) -> None:
    async with asyncio.timeout(20):
        while (newest := CheckpointFile(home).newest()) is None or newest.sequence < sequence:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("statements", "kind", "row"),
    [
        (["DELETE FROM kernel_audit WHERE sequence > 6"], "truncated", 7),
        (["DELETE FROM kernel_audit"], "truncated", 1),
        (["DELETE FROM kernel_audit WHERE sequence = 4"], "removed", 4),
        (["UPDATE kernel_audit SET actor = 'nobody' WHERE sequence = 5"], "changed", 5),
        (
            [
                "UPDATE kernel_audit SET sequence = 100 WHERE sequence = 2",
                "UPDATE kernel_audit SET sequence = 2 WHERE sequence = 6",
                "UPDATE kernel_audit SET sequence = 6 WHERE sequence = 100",
            ],
            "reordered",
            2,
        ),
    ],
)
async def test_what_is_done_to_the_file_with_its_triggers_dropped_is_found_and_recorded_at_the_next_start(
    tmp_path: Path, clock: Clock, statements: list[str], kind: str, row: int
) -> None:
    store, trail = await _opened(tmp_path, clock)
    for _ in range(8):
        await store.write(lambda connection: trail.append(connection, APPROVED))
    await trail.close()
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite3")) as file:
        for trigger in ("no_update", "no_delete", "in_order"):
            file.execute(f"DROP TRIGGER kernel_audit_{trigger}")
        for statement in statements:
            file.execute(statement)
        file.commit()
    store, trail = await _opened(tmp_path, clock)
    verdict = await verdict_of(store, tmp_path)
    assert verdict.fault is not None
    assert (verdict.fault.kind, verdict.fault.sequence) == (kind, row)
    await trail.settled()
    (recorded,) = [row for row in await rows(store) if row.action == "audit.broken"]
    assert recorded.reason is not None
    assert recorded.reason.startswith("kernel_audit_no_update, kernel_audit_no_delete, kernel_audit_in_order did not guard it")
    # Only the newest row is looked at when the gateway starts, however long the log is.
    assert recorded.reason.endswith("the row that was signed last is missing or another") == (kind == "truncated")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        await store.write(lambda connection: connection.execute("DELETE FROM kernel_audit WHERE sequence = 1"))
    await trail.close()
    assert (await verdict_of(store, tmp_path)).fault is not None
    await store.close()


async def test_a_log_whose_checkpoints_were_taken_away_says_so_in_a_row(tmp_path: Path, clock: Clock) -> None:
    store, trail = await _opened(tmp_path, clock)
    await store.write(lambda connection: trail.append(connection, APPROVED))
    await trail.close()
    (tmp_path / CHECKPOINTS_FILE).unlink()
    assert (await verdict_of(store, tmp_path)).fault is not None
    again = AuditTrail(store, home=tmp_path, now_ms=clock)
    await again.open()
    await again.close()
    assert [row.action for row in await rows(store)] == ["device.approved", "audit.broken"]
    await store.close()


async def test_what_a_gateway_found_broken_at_its_start_is_told_by_every_later_check(tmp_path: Path, clock: Clock) -> None:
    store, trail = await _opened(tmp_path, clock)
    await store.write(lambda connection: trail.append(connection, APPROVED))
    await trail.close()
    assert (await verify(store, tmp_path))["brokenRows"] == []
    (tmp_path / CHECKPOINTS_FILE).unlink()
    again = AuditTrail(store, home=tmp_path, now_ms=clock)
    await again.open()
    await again.close()
    found = await verify(store, tmp_path)
    assert (found["ok"], found["brokenRows"]) == (True, [2])
    await store.close()


async def test_a_guard_that_was_put_out_of_action_under_its_name_guards_again_after_a_start(tmp_path: Path, clock: Clock) -> None:
    store, trail = await _opened(tmp_path, clock)
    await store.write(lambda connection: trail.append(connection, APPROVED))
    await trail.close()
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection, connection:
        connection.execute("DROP TRIGGER kernel_audit_no_delete")
        connection.execute("CREATE TRIGGER kernel_audit_no_delete BEFORE DELETE ON kernel_audit BEGIN SELECT 1; END")
    for _ in range(2):
        store, trail = await _opened(tmp_path, clock)
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            await store.write(lambda connection: connection.execute("DELETE FROM kernel_audit WHERE sequence = 1"))
        await trail.close()
        # It guards, so the next start has nothing to say.
        assert [row.action for row in await rows(store)].count("audit.broken") == 1
        await store.close()


@pytest.mark.parametrize("sequence", [-(2**63), -1, 0])
async def test_a_row_in_front_of_the_first_is_found(tmp_path: Path, clock: Clock, sequence: int) -> None:
    store, trail = await _opened(tmp_path, clock)
    await store.write(lambda connection: trail.append(connection, APPROVED))
    await trail.close()
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection, connection:
        connection.execute("DROP TRIGGER kernel_audit_in_order")
        connection.execute(f"INSERT INTO kernel_audit ({table.COLUMNS}) SELECT ?, {OTHERS} FROM kernel_audit", (sequence,))  # noqa: S608
    fault = verify_files(tmp_path / "state.sqlite3", tmp_path)["fault"]
    assert (fault["kind"], fault["row"]) == ("reordered", 1)
    store, trail = await _opened(tmp_path, clock)
    assert (await trail.verify())["fault"]["message"] == f"row {sequence} stands where row 1 belongs"
    await trail.close()
    await store.close()


async def _opened(home: Path, clock: Clock) -> tuple[SqliteStore, AuditTrail]:
    store = SqliteStore(home / "state.sqlite3")
    await store.open({})
    trail = AuditTrail(store, home=home, now_ms=clock)
    await trail.open()
    return store, trail
