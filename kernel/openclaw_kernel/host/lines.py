"""Texts of plugins as one line for people: a reason is shown in tables, logs and on the wire."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 1_000
_LOOKED_AT: Final = 4 * LONGEST


def one_line(text: str) -> str:
    """Return the text without line breaks, control characters and halves of characters, at most 1000 characters of it."""
    # A text of a gigabyte is not walked through to show its beginning.
    words = "".join(each if each.isprintable() else " " for each in text[:_LOOKED_AT]).split()
    line = " ".join(words)
    return line if len(line) <= LONGEST and len(text) <= _LOOKED_AT else f"{line[: LONGEST - 1]}\u2026"


def encodable(text: str) -> str:
    """Return the text with halves of characters replaced by U+FFFD; neither UTF-8 nor the store can hold them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
