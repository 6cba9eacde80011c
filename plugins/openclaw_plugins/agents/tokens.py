"""How many tokens a text may take, without any model's tokenizer.

The estimate errs on the high side: a byte-level tokenizer makes at most one token of each byte, and words of small
letters are the only place where we count on it to do better.
"""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase
from typing import Final

_LOWER: Final = ascii_lowercase.encode()
_LETTERS: Final = _LOWER + ascii_uppercase.encode()
_TO_WORDS: Final = bytes(byte if byte in _LETTERS else 32 for byte in range(256))
_SPACE: Final = b" "

CUT_NOTE: Final = "\n[cut: too long]"


def estimate(text: str) -> int:
    """Return a ceiling of the tokens of a text: three small letters a token and one more a word, else one a byte.

    Spaces between words count with the words. The estimate never shrinks when text is appended, and that of a whole is
    never more than those of its parts.
    """
    raw = text.encode("utf-8", "surrogatepass")
    lower = len(raw) - len(raw.translate(None, _LOWER))
    spaces = raw.count(_SPACE)
    words = len(raw.translate(_TO_WORDS).split())
    others = len(raw) - lower - spaces
    return -(-lower // 3) + words + others + max(0, spaces - words)


CUT_NOTE_TOKENS: Final = estimate(CUT_NOTE)


def cut(text: str, ceiling: int) -> str:
    """Return the text, or its beginning with a note, in at most `ceiling` tokens; empty where not even the note fits."""
    if estimate(text) <= ceiling:
        return text
    room = ceiling - CUT_NOTE_TOKENS
    return beginning(text, room) + CUT_NOTE if room >= 0 else ""


def cut_middle(text: str, ceiling: int) -> str:
    """Return the text, or its beginning and end around a note, in at most `ceiling` tokens."""
    if estimate(text) <= ceiling:
        return text
    room = ceiling - CUT_NOTE_TOKENS - 1
    if room < 0:
        return ""
    head = beginning(text, room * 2 // 3)
    tail = beginning(text[::-1], room // 3)[::-1]
    return f"{head}{CUT_NOTE}\n{tail}"


def beginning(text: str, ceiling: int) -> str:
    """Return as much of the start of a text as fits into the ceiling."""
    low, high = 0, min(len(text), max(ceiling, 0) * 4 + 4)
    while low < high:
        middle = (low + high + 1) // 2
        if estimate(text[:middle]) <= ceiling:
            low = middle
        else:
            high = middle - 1
    return text[:low]
