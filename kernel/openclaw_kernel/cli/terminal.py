"""What people see: tables, colours where the terminal has them, times in words; and JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

DIM: Final = "\x1b[2m"
RED: Final = "\x1b[31m"
GREEN: Final = "\x1b[32m"
YELLOW: Final = "\x1b[33m"
_RESET: Final = "\x1b[0m"
_GAP: Final = "  "
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What overrides the direction of writing."""


def has_colour(stream: TextIO) -> bool:
    """Whether colours make sense there; NO_COLOR says no."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO) -> str:
    """The text in colour where the stream shows it; no colour is the empty string."""
    return f"{colour}{text}{_RESET}" if colour and text and has_colour(stream) else text


def paint_out(text: str, colour: str) -> str:
    """The text in colour where stdout shows it."""
    return paint(text, colour, sys.stdout)


def printable(text: str) -> str:
    """The text without control characters but tab and newline: what others wrote must not steer the terminal, nor turn its lines round."""
    return "".join(char for char in text if char in "\t\n" or (char >= " " and not "\x7f" <= char <= "\x9f" and char not in _TURNING))


def harmless(value: Any) -> Any:
    """A JSON value whose strings are printable and on one line each: an id that others chose must not look like lines of ours."""
    match value:
        case str():
            return " ".join(printable(value).split())
        case list():
            return [harmless(item) for item in value]
        case dict():
            return {name: harmless(item) for name, item in value.items()}
    return value


def one_line(text: str, width: int = 160) -> str:
    """The text on one line, cut to the width."""
    joined = " ".join(printable(text).split())
    return joined if len(joined) <= width else joined[: width - 1] + "…"


def table(rows: Iterable[Sequence[object]], *, head: Sequence[str] = ()) -> str:
    """Columns as wide as they need to be; the last one runs free."""
    lines = [[one_line("" if cell is None else str(cell), 400) for cell in row] for row in ([head, *rows] if head else rows)]
    if not lines:
        return ""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def duration(milliseconds: float) -> str:
    """A span in its two largest units: `3 d 4 h`, `12 s`."""
    seconds, parts = int(milliseconds // 1000), []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def emit(text: str) -> None:
    """Write a line to stdout."""
    sys.stdout.write(f"{text}\n")


def emit_json(value: Any) -> None:
    """Write JSON to stdout: indented on a terminal, one line elsewhere."""
    indent = 2 if sys.stdout.isatty() else None
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    emit(escaped(json.dumps(value, ensure_ascii=ascii_only, indent=indent)))


def escaped(text: str) -> str:
    """JSON that says the same and cannot steer the terminal."""
    return "".join(char if printable(char) else f"\\u{ord(char):04x}" for char in text)


def note(text: str, colour: str = DIM) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{paint(text, colour, sys.stderr)}\n")
