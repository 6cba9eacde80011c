"""Secrets that are looked for afterwards: one in every slot, in every spelling, everywhere."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote


class Canaries:
    """Distinct values by slot."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def new(self, slot: str, pattern: str = "canary-{}") -> str:
        """Make the value of a slot; `pattern` has `{}` where it may be anything."""
        self.values[slot] = pattern.format(secrets.token_hex(16))
        return self.values[slot]

    def take(self, slot: str, value: str) -> str:
        """Look for a value that somebody else made."""
        assert len(value) >= 16, f"{slot} is too short to be looked for"
        self.values[slot] = value
        return value

    def found(self, where: str, content: bytes | str, *, but: Collection[str] = ()) -> list[str]:
        """Say which slots' values are in a content, but for those that may be; `slot in where`."""
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        return [
            f"{slot} in {where}"
            for slot, value in self.values.items()
            if slot not in but and any(spelling in data for spelling in _spellings(value))
        ]

    def found_below(self, folder: Path, *, but_in: Collection[str]) -> list[str]:
        """The same for every file below a folder, names too; `but_in` are the folders that may hold them."""
        lines: list[str] = []
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            lines += self.found("the name of a file", name)
            if path.is_file() and not any(name == kept or name.startswith(f"{kept}/") for kept in but_in):
                lines += self.found(name, path.read_bytes())
        return lines


def _spellings(value: str) -> Iterator[bytes]:
    raw = value.encode()
    yield raw
    yield raw[::-1]
    yield json.dumps(value)[1:-1].encode()
    yield quote(value, safe="").encode()
    yield quote(value).encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield value.encode("utf-16-le")
    for skipped in range(3):
        # What base64 makes of it, wherever in a longer text it begins.
        part = raw[skipped:]
        encoded = base64.b64encode(part[: len(part) // 3 * 3])
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))
