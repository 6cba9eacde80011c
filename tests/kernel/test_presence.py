"""Who is here: bounded whatever clients say of themselves."""

from __future__ import annotations

import json
from typing import Any

from openclaw_kernel.presence import LIMIT, TTL_MS, PresenceBook


class Book:
    """A presence book with a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.book = PresenceBook(version="1.2", now_ms=lambda: self.now)

    def texts(self) -> list[Any]:
        """The text of each entry but the gateway's own."""
        return [entry.get("text") for entry in self.book.entries()[1:]]


def test_the_gateway_itself_comes_first_and_never_expires() -> None:
    standing = Book()
    standing.now += 10 * TTL_MS
    (own,) = standing.book.entries()
    assert (own["mode"], own["reason"], own["version"]) == ("gateway", "self", "1.2")


def test_a_client_is_here_until_it_leaves() -> None:
    standing = Book()
    standing.book.connected("a", {"text": "phone", "ip": None})
    standing.now += 10 * TTL_MS
    assert standing.texts() == ["phone"]
    assert "ip" not in standing.book.entries()[1]
    assert standing.book.disconnected("a") is True
    assert standing.book.disconnected("a") is False
    assert standing.texts() == []


def test_a_beacon_expires_and_a_newer_one_replaces_it() -> None:
    standing = Book()
    standing.book.beacon({"text": "one", "instanceId": "i"})
    standing.now += 1
    standing.book.beacon({"text": "two", "instanceId": "i", "unknown": "x"})
    assert standing.texts() == ["two"]
    assert "unknown" not in standing.book.entries()[1]
    standing.now += TTL_MS
    assert standing.texts() == ["two"]
    standing.now += 1
    assert standing.texts() == []


def test_the_version_counts_changes_and_the_json_follows() -> None:
    standing = Book()
    before = standing.book.version
    first = standing.book.json()
    assert standing.book.json() is first
    standing.book.connected("a", {"text": "phone"})
    assert standing.book.version == before + 1
    assert [entry["text"] for entry in json.loads(standing.book.json())][1:] == ["phone"]


def test_the_list_is_bounded_newest_first() -> None:
    standing = Book()
    for number in range(3 * LIMIT):
        standing.now += 1
        standing.book.connected(f"c{number}", {"text": f"client {number}"})
        standing.book.beacon({"text": f"beacon {number}"})
    entries = standing.book.entries()
    assert len(entries) == LIMIT
    assert {entries[1]["text"], entries[2]["text"]} == {f"client {3 * LIMIT - 1}", f"beacon {3 * LIMIT - 1}"}
    assert len(standing.book._beacons) == LIMIT


def test_what_one_says_of_itself_is_cut() -> None:
    standing = Book()
    standing.book.connected("a", {"text": "x" * 60_000, "host": "y" * 60_000, "roles": ["z" * 1000] * 1000})
    standing.book.beacon({"text": "x" * 60_000, "tags": ["y" * 1000] * 1000, "lastInputSeconds": 5})
    assert len(standing.book.json()) < 20_000
    assert standing.book.entries()[2]["lastInputSeconds"] == 5
