"""What routing and admission decide."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a message goes. `reason` names the deciding rule, for people."""

    agent_id: str
    session_key: str
    reason: str


class Verdict(StrEnum):
    """What becomes of a routed message."""

    ALLOW = "allow"
    DROP = "drop"
    """No turn and no answer."""
    HINT = "hint"
    """No turn; one hint to the sender, then silence (the ledger remembers who was hinted)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The verdict on a message. `hint` is the text sent once under `HINT`."""

    verdict: Verdict
    reason: str
    hint: str = ""
