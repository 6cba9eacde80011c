"""Writing values as YAML that is put into a text somebody else wrote. Pure, no pydantic."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*( [A-Za-z0-9_./@+-]+)*")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_OTHER_KINDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_ESCAPED: Final = re.compile("[\u007f-\u00a0\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")


class CannotRender(Exception):
    """A value that no file can hold; the message says what was found, and the cure."""


def scalar(value: Any, style: str | None = '"') -> str:
    """A scalar, quoted as what it replaces was: `style` is the sign that began that, None or "" for none."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CannotRender(f"found the number {value}; write a finite one")
        return repr(value)
    return _text(str(value), style)


def _text(value: str, style: str | None) -> str:
    if not style and _PLAIN.fullmatch(value) and value.casefold() not in _OTHER_KINDS:
        return value
    if style == "'" and value.isprintable() and not _ESCAPED.search(value):
        return "'" + value.replace("'", "''") + "'"
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def key_text(key: str, style: str | None = None) -> str:
    """A key as it is written in front of the colon."""
    if not style and _PLAIN_KEY.fullmatch(key) and key.casefold() not in _OTHER_KINDS:
        return key
    return _text(key, style or '"')


def flow(value: Any, key_style: str | None = None) -> str:
    """A value on one line. `key_style` is how keys beside it are quoted."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key_text(str(key), key_style)}: {flow(item, key_style)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item, key_style) for item in value) + "]"
    return scalar(value, key_style or None)


def entry_lines(key: str, value: Any, indent: int, step: int) -> list[str]:
    """The lines of one key of a mapping that is written over lines, without their ends."""
    beside = "" if isinstance(value, Mapping | list) and value else f" {flow(value)}"
    return [f"{' ' * indent}{key_text(key)}:{beside}", *below(value, indent + step, step)]


def item_lines(value: Any, indent: int, step: int) -> list[str]:
    """The lines of one item of a list that is written over lines, without their ends."""
    if isinstance(value, Mapping) and value:
        lines = below(value, indent + 2, step)
        return [f"{' ' * indent}- {lines[0].lstrip(' ')}", *lines[1:]]
    return [f"{' ' * indent}- {flow(value)}"]


def below(value: Any, indent: int, step: int) -> list[str]:
    """The lines of a collection beneath its key; none for what stands beside it."""
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in entry_lines(str(key), item, indent, step)]
    if isinstance(value, list):
        return [line for item in value for line in item_lines(item, indent, step)]
    return []
