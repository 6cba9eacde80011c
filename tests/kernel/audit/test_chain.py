"""Whatever is done to the rows, the check finds it and names the first place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditOrigin, state_digest, trace_id_of
from openclaw_kernel.audit.chain import ChainCheck, Checkpoint, Verdict
from openclaw_kernel.audit.checkpoints import CHECKPOINTS_FILE, KEY_FILE, CheckpointFile
from openclaw_kernel.audit.records import NO_HASH, AuditRow, digest_of_row, row_of

ROWS = 24
ACTIONS = list(AuditAction)


def chain_of(count: int) -> list[AuditRow]:
    """Rows of a sound log."""
    rows: list[AuditRow] = []
    for number in range(1, count + 1):
        entry = AuditEntry(
            action=ACTIONS[number % len(ACTIONS)],
            origin=AuditOrigin(actor=f"device:{number % 3}", surface="ws", address="192.0.2.1" if number % 2 else None),
            subject=f"s{number % 5}",
            before=state_digest({"n": number}) if number % 4 else None,
            details={"number": number % 7, "names": ["ü", "€"]},
        )
        previous = rows[-1].hash if rows else NO_HASH
        rows.append(row_of(entry, sequence=number, time_ms=1_000 + number, previous=previous))
    return rows


CHAIN = chain_of(ROWS)


def check(rows: Sequence[AuditRow], checkpoints: Sequence[Checkpoint] | None = None) -> Verdict:
    found = ChainCheck(checkpoints)
    for row in rows:
        found.take(row)
    return found.finish()


def signed(*sequences: int) -> list[Checkpoint]:
    return [Checkpoint(0, NO_HASH, 0), *(Checkpoint(number, CHAIN[number - 1].hash, 0) for number in sequences)]


def rebuilt(rows: Sequence[AuditRow], first: int) -> list[AuditRow]:
    """The rows with numbers and hashes computed anew from the index `first` on: what somebody does who knows how the chain is made."""
    result = list(rows[:first])
    for row in rows[first:]:
        follows = replace(row, sequence=len(result) + 1, previous=result[-1].hash if result else NO_HASH)
        result.append(replace(follows, hash=digest_of_row(follows)))
    return result


def test_a_sound_log_has_no_fault() -> None:
    verdict = check(CHAIN, signed(3, 10, 20))
    assert (verdict.fault, verdict.rows, verdict.head, verdict.signed, verdict.checkpoints) == (None, ROWS, CHAIN[-1].hash, 20, 4)
    assert check([], signed()).fault is None


def test_the_canonical_form_is_the_published_one() -> None:
    """The vectors of RFC 8785, section 3.2 and appendix B, and a whole row: anybody can check an export with another program."""
    vectors: list[tuple[Any, str]] = [
        ([333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001], "[333333333.3333333,1e+30,4.5,0.002,1e-27]"),
        ("\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f", '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
        ([None, True, False], "[null,true,false]"),
        (
            {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7},
            '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}',
        ),
        (
            [0.0, -0.0, 5e-324, 9007199254740992.0, 295147905179352830000.0, 1e21, 1e23],
            "[0,0,5e-324,9007199254740992,295147905179352830000,1e+21,1e+23]",
        ),
    ]
    for value, text in vectors:
        assert rfc8785.dumps(value).decode() == text
    row = CHAIN[0]
    body = rfc8785.dumps({key: value for key, value in row.to_json().items() if key != "hash"}).decode()
    assert body == (
        '{"action":"gateway.stopped","actor":"device:1","address":"192.0.2.1","after":null,'
        '"before":"2bfd14f43d17fc7cea24e0917a8879b4b2f880b8baeec1b9d90fbaad655e71bd","details":{"names":["ü","€"],"number":1},"outcome":"done",'
        f'"previous":"{NO_HASH}","reason":null,"sequence":1,"subject":"s1","surface":"ws","timeMs":1001,"traceId":null,"v":1}}'
    )
    assert row.hash == hashlib.sha256(body.encode()).hexdigest() == "fc9fe220d7e1671e80afb4015cfd8e0a8db955e0057a9ddb618a03f71ffacdf1"


def _other_text(value: str | None) -> str:
    return "x" if value is None else value[:-1] + ("0" if value[-1] != "0" else "1")


OTHER: dict[str, Callable[[Any], Any]] = {
    "sequence": lambda value: value + 1,
    "time_ms": lambda value: value + 1,
    "details": lambda value: value.replace(":", ": ", 1),
}


@settings(deadline=None)
@given(index=st.integers(0, ROWS - 1), column=st.sampled_from([field.name for field in fields(AuditRow) if field.name != "sequence"]))
def test_a_change_of_any_column_of_any_row_is_found_and_named(index: int, column: str) -> None:
    value = getattr(CHAIN[index], column)
    other = OTHER.get(column, _other_text)(value)
    verdict = check([*CHAIN[:index], replace(CHAIN[index], **{column: other}), *CHAIN[index + 1 :]])
    assert verdict.fault is not None
    assert (verdict.fault.kind, verdict.fault.sequence) == ("changed", index + 1)


@settings(deadline=None)
@given(index=st.integers(0, ROWS - 1), value=st.one_of(st.none(), st.integers(), st.binary(), st.text(), st.floats()))
def test_a_value_of_any_type_in_a_text_column_is_found(index: int, value: Any) -> None:
    for column in ("action", "actor", "subject", "details", "previous", "hash"):
        if value == getattr(CHAIN[index], column):
            continue
        verdict = check([*CHAIN[:index], replace(CHAIN[index], **{column: value}), *CHAIN[index + 1 :]])
        assert verdict.fault is not None
        assert verdict.fault.sequence == index + 1


@settings(deadline=None)
@given(first=st.integers(0, ROWS - 2), count=st.integers(1, ROWS), renumber=st.booleans())
def test_rows_taken_out_are_found_and_named(first: int, count: int, renumber: bool) -> None:
    last = min(first + count, ROWS - 1)
    left = [*CHAIN[:first], *CHAIN[last:]]
    if renumber:
        left = [replace(row, sequence=number) for number, row in enumerate(left, 1)]
    verdict = check(left)
    assert verdict.fault is not None
    assert verdict.fault.sequence == first + 1
    assert verdict.fault.kind == ("changed" if renumber else "removed")


@settings(deadline=None)
@given(one=st.integers(0, ROWS - 1), other=st.integers(0, ROWS - 1))
def test_two_rows_in_each_others_place_are_found_and_named(one: int, other: int) -> None:
    if one == other:
        return
    first, second = sorted((one, other))
    swapped = list(CHAIN)
    swapped[first] = replace(CHAIN[second], sequence=first + 1)
    swapped[second] = replace(CHAIN[first], sequence=second + 1)
    verdict = check(swapped)
    assert verdict.fault is not None
    assert (verdict.fault.kind, verdict.fault.sequence) == ("reordered", first + 1)
    assert verdict.fault.text == f"row {first + 1} is not where it belongs: it stands as row {second + 1}"


@settings(deadline=None)
@given(order=st.permutations(range(ROWS)))
def test_rows_in_any_other_order_are_found(order: list[int]) -> None:
    rows = [replace(CHAIN[index], sequence=number) for number, index in enumerate(order, 1)]
    verdict = check(rows)
    first = next((number for number, index in enumerate(order, 1) if index != number - 1), None)
    assert (verdict.fault and verdict.fault.sequence) == first


@settings(deadline=None)
@given(left=st.integers(0, ROWS - 1), marks=st.sets(st.integers(1, ROWS), min_size=1))
def test_an_end_that_was_cut_off_is_found_where_it_was_signed(left: int, marks: set[int]) -> None:
    verdict = check(CHAIN[:left], signed(*sorted(marks)))
    if max(marks) <= left:
        assert verdict.fault is None
        return
    assert verdict.fault is not None
    assert (verdict.fault.kind, verdict.fault.sequence) == ("truncated", left + 1)


@settings(deadline=None)
@given(data=st.data(), first=st.integers(0, ROWS - 1), marks=st.sets(st.integers(1, ROWS), min_size=1))
def test_a_log_computed_anew_behind_a_change_is_found_by_what_was_signed(data: st.DataObject, first: int, marks: set[int]) -> None:
    kind = data.draw(st.sampled_from(["change", "remove", "insert"]))
    changed = list(CHAIN)
    if kind == "change":
        changed[first] = replace(changed[first], actor="nobody")
    elif kind == "remove":
        del changed[first]
    else:
        changed.insert(first, replace(changed[first], actor="nobody"))
    forged = rebuilt(changed, first)
    assert check(forged).fault is None
    verdict = check(forged, signed(*sorted(marks)))
    behind = [mark for mark in sorted(marks) if mark > first]
    if not behind:
        assert verdict.fault is None
        return
    assert verdict.fault is not None
    assert verdict.fault.kind in {"rewritten", "truncated"}
    assert verdict.fault.sequence <= behind[0]


def test_rows_without_any_checkpoint_or_far_behind_the_last_are_no_sound_log() -> None:
    none = check(CHAIN, [])
    assert none.fault is not None
    assert (none.fault.kind, none.fault.sequence) == ("unsigned", 1)
    far = check(chain_of(300), signed(10))
    assert far.fault is not None
    assert (far.fault.kind, far.fault.sequence) == ("unsigned", 11)


# --- the file of checkpoints ---


def test_checkpoints_come_back_as_they_were_signed(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path)
    marks = signed(5, 9)
    for mark in marks:
        file.append(mark)
    again = CheckpointFile(tmp_path)
    assert again.read() == (marks, None)
    assert again.newest() == marks[-1]
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / CHECKPOINTS_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("key", ["sequence", "hash", "timeMs", "signature", "key"])
def test_a_checkpoint_that_was_changed_is_none(tmp_path: Path, key: str) -> None:
    file = CheckpointFile(tmp_path)
    for mark in signed(5, 9):
        file.append(mark)
    path = tmp_path / CHECKPOINTS_FILE
    lines = path.read_text().splitlines()
    line = json.loads(lines[1])
    line[key] = line[key] + 1 if isinstance(line[key], int) else line[key][::-1]
    path.write_text("\n".join([lines[0], json.dumps(line), lines[2]]) + "\n")
    found, fault = CheckpointFile(tmp_path).read()
    kept = [mark.sequence for mark in found]
    assert kept == [0, 9]
    assert fault is not None
    assert fault.text.startswith(f"{CHECKPOINTS_FILE}:2: ")
    assert check(CHAIN, found).fault is None
    assert ChainCheck(found, fault=fault).finish().fault is not None


def test_checkpoints_of_another_key_are_none(tmp_path: Path) -> None:
    CheckpointFile(tmp_path).append(signed(5)[1])
    (tmp_path / KEY_FILE).unlink()
    found, fault = CheckpointFile(tmp_path).read()
    assert found == []
    assert fault is not None
    assert fault.text.endswith("missing, so no checkpoint can be checked; restore it from a backup")
    assert CheckpointFile(tmp_path).fingerprint() is None
    CheckpointFile(tmp_path).append(signed(9)[1])
    found, fault = CheckpointFile(tmp_path).read()
    assert [mark.sequence for mark in found] == [9]
    assert fault is not None


def test_the_beginning_of_a_line_that_a_crash_left_is_cut_off(tmp_path: Path) -> None:
    CheckpointFile(tmp_path).append(signed(5)[1])
    path = tmp_path / CHECKPOINTS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert CheckpointFile(tmp_path).read() == (signed(5)[1:], None)
    CheckpointFile(tmp_path).append(signed(9)[1])
    assert [mark.sequence for mark in CheckpointFile(tmp_path).read()[0]] == [5, 9]


# --- small things ---


def test_only_a_traceparent_has_a_trace_id() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    assert trace_id_of(f"00-{trace}-b7ad6b7169203331-01") == trace
    assert trace_id_of(f"cc-{trace}-b7ad6b7169203331-01-more") == trace
    for wrong in (
        None,
        "",
        trace,
        f"ff-{trace}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{trace.upper()}-b7ad6b7169203331-01",
    ):
        assert trace_id_of(wrong) is None
