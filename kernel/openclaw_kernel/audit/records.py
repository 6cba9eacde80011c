"""A row of the audit log, its canonical form and its hash. No I/O.

The hash of a row is SHA-256 over RFC 8785 JSON of everything else in it, the hash of the row before included.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import rfc8785

from openclaw_config.redaction import hide_users, known_spellings
from openclaw_config.secrets import REDACTED
from openclaw_kernel.api.audit import AuditEntry

FORMAT: Final = 1
NO_HASH: Final = "0" * 64
"""What the first row is chained to."""
TEXT_LIMIT: Final = 512
DETAILS_BYTES: Final = 4096
_DEPTH: Final = 4
_ITEMS: Final = 64
_LARGEST: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row as it is stored, in the order of the table's columns; `details` is canonical JSON."""

    sequence: int
    time_ms: int
    action: str
    outcome: str
    actor: str
    surface: str
    address: str | None
    subject: str | None
    reason: str | None
    before: str | None
    after: str | None
    trace_id: str | None
    details: str
    previous: str
    hash: str

    def to_json(self) -> dict[str, Any]:
        """The row as an object, by the names under which it is hashed and exported."""
        return {**_hashed(self), "hash": self.hash}


class NotCanonical(Exception):
    """The row holds what none of ours ever held, so somebody else wrote it."""


def digest_of_row(row: AuditRow) -> str:
    """The hash that the row must have; raise `NotCanonical`."""
    if any(type(value) is not str for value in (row.action, row.outcome, row.actor, row.surface, row.details, row.previous)):
        raise NotCanonical("a column holds a value of another type")
    try:
        body = _hashed(row)
        if rfc8785.dumps(body["details"]).decode() != row.details:
            raise NotCanonical("details are not in canonical form")
        return hashlib.sha256(rfc8785.dumps(body)).hexdigest()
    except (ValueError, TypeError, RecursionError) as error:
        raise NotCanonical(str(error)) from error


def _hashed(row: AuditRow) -> dict[str, Any]:
    return {
        "v": FORMAT,
        "sequence": row.sequence,
        "timeMs": row.time_ms,
        "action": row.action,
        "outcome": row.outcome,
        "actor": row.actor,
        "surface": row.surface,
        "address": row.address,
        "subject": row.subject,
        "reason": row.reason,
        "before": row.before,
        "after": row.after,
        "traceId": row.trace_id,
        "details": json.loads(row.details),
        "previous": row.previous,
    }


def row_of(entry: AuditEntry, *, sequence: int, time_ms: int, previous: str) -> AuditRow:
    """The row that records an entry: cut where it is long, and without any secret that this process knows."""
    known = known_spellings()
    origin = entry.origin
    row = AuditRow(
        sequence=sequence,
        time_ms=time_ms,
        action=str(entry.action),
        outcome=entry.outcome,
        actor=_text(origin.actor, known),
        surface=_text(origin.surface, known),
        address=_optional(origin.address, known),
        subject=_optional(entry.subject, known),
        reason=_optional(entry.reason, known),
        before=_optional(entry.before, known),
        after=_optional(entry.after, known),
        trace_id=_optional(origin.trace_id, known),
        details=_details(entry.details, known),
        previous=previous,
        hash="",
    )
    return replace(row, hash=digest_of_row(row))


def _details(details: Mapping[str, Any], known: Sequence[str]) -> str:
    encoded = rfc8785.dumps(_plain(details, known, 0))
    if len(encoded) > DETAILS_BYTES:
        # What is recorded must not fail for the length of what is told of it.
        encoded = rfc8785.dumps({"omittedBytes": len(encoded)})
    return encoded.decode()


def _plain(value: Any, known: Sequence[str], depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, known)
    if isinstance(value, int):
        return int(value) if abs(value) <= _LARGEST else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= _DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return {_text(str(key), known): _plain(item, known, depth + 1) for key, item in list(value.items())[:_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
        return [_plain(item, known, depth + 1) for item in items[:_ITEMS]]
    # Its own text could be anything, a secret too.
    return f"<{type(value).__name__}>"


def _optional(text: str | None, known: Sequence[str]) -> str | None:
    return None if text is None else _text(text, known)


def _text(text: str, known: Sequence[str]) -> str:
    # A header's odd bytes are surrogates here, which have no canonical form.
    for secret in known:
        text = text.replace(secret, REDACTED)
    clean = hide_users(text).encode("utf-8", "backslashreplace").decode()
    return clean if len(clean) <= TEXT_LIMIT else f"{clean[: TEXT_LIMIT - 3]}..."
