"""Whether the audit log is what was written: a pure check, row by row, that names the first place where it is not.

The chain finds a row that was changed, taken out or put elsewhere. Who recomputes all hashes behind a change, or cuts off the end, is found
by the checkpoints: the gateway signed then which row was the newest, and its hash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from openclaw_kernel.api.audit import AuditAction
from openclaw_kernel.audit.records import NO_HASH, AuditRow, NotCanonical, digest_of_row

CHECKPOINT_ROWS: Final = 100
"""So many rows at most stand without a checkpoint, but for those that one write brings."""
_UNSIGNED_ROWS: Final = 2 * CHECKPOINT_ROWS + 50
_BROKEN_TOLD: Final = 20

FaultKind: TypeAlias = Literal["changed", "removed", "reordered", "rewritten", "truncated", "unsigned", "checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was signed: that the row `sequence` was the newest then, with this hash."""

    sequence: int
    hash: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Fault:
    """The first place where the log is not what was written; `sequence` is its row."""

    kind: FaultKind
    sequence: int
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found.

    `signed` is the newest row that a checkpoint vouches for, `head` the hash of the newest that is sound. `broken` are the newest rows
    by which a start recorded that the log was not as it was left: what was new since may stand on what is not.
    """

    rows: int
    head: str
    checkpoints: int
    signed: int
    fault: Fault | None
    broken: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The verdict as an object."""
        fault = self.fault
        found = None if fault is None else {"kind": fault.kind, "row": fault.sequence, "message": fault.text}
        return {
            "ok": fault is None,
            "rows": self.rows,
            "head": self.head,
            "checkpoints": self.checkpoints,
            "signedRow": self.signed,
            "fault": found,
            "brokenRows": list(self.broken),
        }


class ChainCheck:
    """Takes every row in order, then is finished. The checkpoints' own signatures are checked by who reads them."""

    def __init__(self, checkpoints: Sequence[Checkpoint] | None = None, *, fault: Fault | None = None) -> None:
        """Without checkpoints the chain alone is checked. `fault`: what is wrong with them, told where the rows are sound."""
        self._is_signed = checkpoints is not None
        self._count = len(checkpoints or ())
        # The first is signed before there is any row.
        self._checkpoints = deque(one for one in checkpoints or () if one.sequence > 0)
        self._signers_fault = fault
        self._fault: Fault | None = None
        self._rows = 0
        self._sequence = 0
        self._head = NO_HASH
        self._signed = 0
        self._broken: deque[int] = deque(maxlen=_BROKEN_TOLD)

    def take(self, row: AuditRow) -> None:
        """Take the next row."""
        self._rows += 1
        if self._fault is not None:
            self._look_for_displaced(row)
            return
        self._fault = self._judge(row)
        if self._fault is None:
            self._sequence, self._head = row.sequence, row.hash
            if row.action == AuditAction.AUDIT_BROKEN:
                self._broken.append(row.sequence)

    def finish(self) -> Verdict:
        """Say what was found."""
        fault = self._fault or self._judge_end() or self._signers_fault or self._judge_signed()
        return Verdict(rows=self._rows, head=self._head, checkpoints=self._count, signed=self._signed, fault=fault, broken=(*self._broken,))

    def _judge(self, row: AuditRow) -> Fault | None:
        expected = self._sequence + 1
        if type(row.sequence) is not int or row.sequence < expected:
            return Fault("reordered", expected, f"row {row.sequence} stands where row {expected} belongs")
        if row.sequence > expected:
            missing = f"row {expected} is" if row.sequence == expected + 1 else f"rows {expected} to {row.sequence - 1} are"
            return Fault("removed", expected, f"{missing} missing: row {row.sequence} follows row {self._sequence}")
        try:
            digest = digest_of_row(row)
        except NotCanonical as error:
            return Fault("changed", expected, f"row {expected} was changed: {error}")
        if row.hash != digest or row.previous != self._head:
            what = "its content does not fit its hash" if row.hash != digest else "it does not follow the row before it"
            return Fault("changed", expected, f"row {expected} was changed: {what}")
        return self._compare(row)

    def _compare(self, row: AuditRow) -> Fault | None:
        while self._checkpoints and self._checkpoints[0].sequence <= row.sequence:
            checkpoint = self._checkpoints.popleft()
            if checkpoint.sequence == row.sequence and checkpoint.hash == row.hash:
                self._signed = row.sequence
                continue
            first = self._signed + 1
            place = f"row {first} is" if first == row.sequence else f"of the rows {first} to {row.sequence} one is"
            text = (
                f"{place} not what was written, and the hashes from there on were computed anew: row {row.sequence} was signed as another"
            )
            return Fault("rewritten", first, text)
        return None

    def _look_for_displaced(self, row: AuditRow) -> None:
        # The row that belongs where the fault is names the last sound one as the one before it.
        fault = self._fault
        if fault is None or fault.kind not in {"changed", "removed"} or row.previous != self._head:
            return
        text = f"row {fault.sequence} is not where it belongs: it stands as row {row.sequence}"
        self._fault = Fault("reordered", fault.sequence, text)

    def _judge_end(self) -> Fault | None:
        if self._checkpoints:
            last, first = self._checkpoints[-1].sequence, self._sequence + 1
            missing = f"row {first} is" if first == last else f"rows {first} to {last} are"
            return Fault("truncated", first, f"{missing} missing at the end: row {last} was signed")
        return None

    def _judge_signed(self) -> Fault | None:
        unsigned = self._sequence - self._signed
        if self._is_signed and (unsigned > _UNSIGNED_ROWS or (unsigned and not self._count)):
            first = self._signed + 1
            text = f"no checkpoint covers rows {first} to {self._sequence}; the file audit-checkpoints.jsonl was cut or taken away"
            return Fault("unsigned", first, text)
        return None
