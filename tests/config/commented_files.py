"""Commented YAML files with a record of which line says what, and other trees to bring them to."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from openclaw_config.issues import KeyPath

BOM = "\ufeff"
KEYS = st.sampled_from(
    ["port", "mode", "botToken", "entries", "main", "x-y", "a.b", "with space", "on", "7", "dmScope", "ä", "#no", "k: v"],
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", "plain", "two words", "yes", "null", "12", "1e3", "# no comment", "a: b", "${env:X}", "it's", 'say "so"', "- x", "ä"]
    ),
    st.text(max_size=8).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text)),
)


def _trees(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.dictionaries(KEYS, inner, max_size=4), st.lists(inner, max_size=4))


TREES = st.dictionaries(KEYS, st.recursive(SCALARS, _trees, max_leaves=12), min_size=1, max_size=5)


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without its end."""

    text: str
    place: KeyPath
    is_comment: bool = False


@dataclass(slots=True)
class CommentedFile:
    """A text, what it says, and its lines, each with the place that it writes; a line of comment with the place that it stands in."""

    tree: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    newline: str = "\n"
    bom: bool = False
    ends: bool = True

    @property
    def text(self) -> str:
        """The file's text."""
        body = self.newline.join(line.text for line in self.lines) + (self.newline if self.ends else "")
        return f"{BOM}{body}" if self.bom else body


class _Writer:
    def __init__(self, draw: Any, step: int) -> None:
        self._draw = draw
        self._step = step
        self.lines: list[Line] = []

    def mapping(self, tree: dict[str, Any], where: KeyPath, indent: int, lead: str | None = None) -> None:
        for key, value in tree.items():
            place = (*where, key)
            if lead is None:
                self._aside(indent, where)
            head = f"{' ' * indent if lead is None else lead}{self._key(key)}:"
            lead = None
            self._value(head, value, place, indent)

    def sequence(self, items: list[Any], where: KeyPath, indent: int) -> None:
        for index, value in enumerate(items):
            self._aside(indent, where)
            head = f"{' ' * indent}-"
            if isinstance(value, dict) and value and self._draw(st.booleans()):
                self.mapping(value, (*where, index), indent + 2, lead=f"{head} ")
            else:
                self._value(head, value, (*where, index), indent)

    def _value(self, head: str, value: Any, place: KeyPath, indent: int) -> None:
        is_block = isinstance(value, dict | list) and bool(value) and self._draw(st.booleans())
        if not is_block:
            self._line(f"{head}{self._flow(value)}", place)
            return
        self._line(head, place)
        inner = indent + self._step
        if isinstance(value, dict):
            self.mapping(value, place, inner)
        else:
            self.sequence(value, place, inner if head.endswith("-") or self._draw(st.booleans()) else indent)

    def _flow(self, value: Any) -> str:
        if value is None and self._draw(st.booleans()):
            return ""
        if isinstance(value, str) and value.isprintable() and self._draw(st.booleans()):
            return " '" + value.replace("'", "''") + "'"
        if value == "plain":
            return " plain"
        return f" {_flow(value)}"

    def _key(self, key: str) -> str:
        plain = key in {"port", "mode", "botToken", "entries", "main", "x-y", "a.b", "with space", "dmScope", "7"}
        return key if plain and self._draw(st.booleans()) else _quoted(key)

    def _line(self, text: str, place: KeyPath) -> None:
        comment = self._draw(st.sampled_from(["", " # said", " # with\ttabs", "   #", ' # {a: 1}, it\'s: "odd"']))
        self.lines.append(Line(f"{text}{comment}", place))

    def _aside(self, indent: int, where: KeyPath) -> None:
        for text in self._draw(st.lists(st.sampled_from(["", "# aside", "#  key: value", "  # indented"]), max_size=2)):
            line = f"{' ' * indent}{text} {len(self.lines)}" if text else ""
            self.lines.append(Line(line, where, is_comment=True))


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _quoted(value) if isinstance(value, str) else repr(value) if isinstance(value, float) else json.dumps(value)


def _quoted(text: str) -> str:
    return '"' + "".join(letter if letter.isprintable() and letter not in '"\\' else f"\\U{ord(letter):08x}" for letter in text) + '"'


@st.composite
def commented_files(draw: Any) -> CommentedFile:
    """Files in every style, with comments, of either kind of line end, with and without a byte order mark and a last line end."""
    tree = draw(TREES)
    writer = _Writer(draw, draw(st.sampled_from([2, 4, 3])))
    writer.lines.append(Line("# The file of the test.", (), is_comment=True))
    writer.mapping(tree, (), 0)
    if draw(st.booleans()):
        writer.lines.append(Line("# the end", (), is_comment=True))
    return CommentedFile(tree, writer.lines, draw(st.sampled_from(["\n", "\r\n"])), draw(st.booleans()), draw(st.booleans()))


@st.composite
def changes_of(draw: Any, tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with one to three places changed, added or taken out."""
    wanted = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        holder: Any = wanted
        while True:
            inner = [item for item in (holder.values() if isinstance(holder, dict) else holder) if isinstance(item, dict | list) and item]
            if not inner or draw(st.booleans()):
                break
            holder = draw(st.sampled_from(inner))
        _change(draw, holder)
    return wanted


def _change(draw: Any, holder: Any) -> None:
    new = draw(st.recursive(SCALARS, _trees, max_leaves=4))
    action = draw(st.sampled_from(["set", "delete", "add"]))
    if isinstance(holder, list):
        if action == "add" or not holder:
            holder.insert(draw(st.integers(0, len(holder))), new)
        elif action == "set":
            holder[draw(st.integers(0, len(holder) - 1))] = new
        else:
            holder.pop(draw(st.integers(0, len(holder) - 1)))
    elif action == "add" or not holder:
        holder[draw(KEYS)] = new
    elif action == "set":
        holder[draw(st.sampled_from(sorted(holder)))] = new
    else:
        holder.pop(draw(st.sampled_from(sorted(holder))))
