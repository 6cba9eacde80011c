"""Who is here: the gateway itself, its connected clients, and beacons from `system-event`."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

TTL_MS: Final = 300_000
LIMIT: Final = 200
_FIELDS: Final = frozenset(
    {
        "host",
        "ip",
        "version",
        "platform",
        "deviceFamily",
        "modelIdentifier",
        "timeZone",
        "mode",
        "lastInputSeconds",
        "reason",
    }
    | {"tags", "text", "deviceId", "roles", "scopes", "instanceId"}
)


_LONGEST_TEXT: Final = 256
_LONGEST_LIST: Final = 32


def _short(value: Any) -> Any:
    # Everybody is told of everybody: what one says of itself is paid for by all.
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    return [_short(item) for item in value[:_LONGEST_LIST]] if isinstance(value, list) else value


class PresenceBook:
    """Entries by key; `version` counts changes, `json` is encoded once per change."""

    def __init__(self, *, version: str, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._beacons: dict[str, dict[str, Any]] = {}
        self._connected: dict[str, dict[str, Any]] = {}
        self._self: dict[str, Any] = {
            "host": socket.gethostname() or "gateway",
            "version": version,
            "platform": platform.system().lower() or "unknown",
            "mode": "gateway",
            "reason": "self",
            "text": f"gateway {version}",
            "ts": now_ms(),
        }
        self.version = 1
        self._json: bytes | None = None

    def entries(self) -> list[dict[str, Any]]:
        """All entries, the gateway first, then newest first."""
        self._expire()
        others = sorted([*self._connected.values(), *self._beacons.values()], key=lambda entry: -int(entry["ts"]))
        return [self._self, *others[: LIMIT - 1]]

    def json(self) -> bytes:
        """The entries as JSON."""
        self._expire()
        if self._json is None:
            self._json = orjson.dumps(self.entries())
        return self._json

    def connected(self, connection_id: str, entry: Mapping[str, Any]) -> None:
        """A client is here until `disconnected`."""
        self._connected[connection_id] = {key: _short(value) for key, value in entry.items() if value} | {"ts": self._now_ms()}
        self._changed()

    def disconnected(self, connection_id: str) -> bool:
        """A client left; tell whether it had an entry."""
        left = self._connected.pop(connection_id, None) is not None
        if left:
            self._changed()
        return left

    def beacon(self, entry: Mapping[str, Any]) -> None:
        """Record what somebody said of itself; it expires after five minutes."""
        known = {key: _short(value) for key, value in entry.items() if key in _FIELDS and value not in (None, "", [])}
        key = str(known.get("instanceId") or known.get("deviceId") or known.get("host") or known.get("text"))
        self._beacons.pop(key, None)
        self._beacons[key] = known | {"ts": self._now_ms()}
        while len(self._beacons) > LIMIT:
            del self._beacons[next(iter(self._beacons))]
        self._changed()

    def _expire(self) -> None:
        if not self._beacons:
            return
        oldest_allowed = self._now_ms() - TTL_MS
        expired = [key for key, entry in self._beacons.items() if entry["ts"] < oldest_allowed]
        for key in expired:
            del self._beacons[key]
        if expired:
            self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._json = None
