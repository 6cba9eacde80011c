"""The running gateway as checks ask it from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAnswer:
    """What came back: the status, the headers (names in lower case), and the beginning of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Probe(Protocol):
    """The running gateway from outside, as somebody without any credential sees it. It reaches the gateway's own address, and nothing else.

    Every call is bounded in time and size, and raises `OSError` where nothing answers.
    """

    @property
    def url(self) -> str:
        """The address that is asked."""
        ...

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> ProbeAnswer:
        """Ask for a path."""
        ...

    def upgrade(self, headers: Mapping[str, str] | None = None) -> int:
        """Ask for a WebSocket and hang up; return the status, 101 where it was given."""
        ...

    def frames(self, *frames: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Open a WebSocket, send frames in place of a handshake, and return those that came back until it was closed or silent."""
        ...

    def tls(self, version: Literal["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"]) -> bool:
        """Tell whether a handshake with exactly this version of TLS succeeds."""
        ...

    def listening(self) -> Sequence[tuple[str, int]] | None:
        """Return the addresses and ports on which the gateway's process listens; None where that cannot be seen."""
        ...
