"""What an import took, changed and left, each with its path; no secret in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One thing. `path` is where it stands in the source, `to` where it is now, `why` what is to be said of it."""

    path: str
    to: str | None = None
    why: str | None = None

    def to_json(self) -> dict[str, str]:
        """For programs."""
        return {name: value for name, value in (("path", self.path), ("to", self.to), ("why", self.why)) if value is not None}


@dataclass(slots=True)
class Report:
    """`taken` is what was taken as it is, `changed` what had to become something else, `not_taken` what stays behind, and why."""

    source: str
    taken: list[Line] = field(default_factory=list)
    changed: list[Line] = field(default_factory=list)
    not_taken: list[Line] = field(default_factory=list)
    there: int = 0
    """How much was here already, as it is in the source."""
    written: list[str] = field(default_factory=list)
    """The files that were written, or would be."""

    def take(self, path: str, to: str, why: str | None = None) -> None:
        """Something was taken; with `why` it was changed."""
        (self.taken if why is None else self.changed).append(Line(path, to, why))

    def leave(self, path: str, why: str) -> None:
        """Something was not taken."""
        line = Line(path, None, why)
        if line not in self.not_taken:
            self.not_taken.append(line)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "source": self.source,
            "taken": [line.to_json() for line in self.taken],
            "changed": [line.to_json() for line in self.changed],
            "notTaken": [line.to_json() for line in self.not_taken],
            "alreadyHere": self.there,
            "written": self.written,
        }
