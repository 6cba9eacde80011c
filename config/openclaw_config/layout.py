"""Where every value of a YAML text stands, by offsets into the text. No pydantic."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.events import AliasEvent, MappingStartEvent, ScalarEvent, SequenceStartEvent

from openclaw_config.issues import KeyPath

BLOCK_STYLES: Final = ("|", ">")
"""The signs of a text that is written over lines."""
_DASH: Final = re.compile(r"^[ ]*(-)(?=[ \t\r\n]|$)", re.MULTILINE)


class Kind(Enum):
    """What a node is."""

    SCALAR = "scalar"
    MAPPING = "mapping"
    SEQUENCE = "sequence"
    ALIAS = "alias"


@dataclass(slots=True)
class Node:
    """One value. It stands in `text[start:end]`; of a block collection `end` is the end of its last value."""

    kind: Kind
    start: int
    end: int
    column: int = 0
    flow: bool = False
    style: str | None = None
    """Of a scalar: None or "" where it is plain, else the sign that begins it."""
    value: str = ""
    """Of a scalar its text; of an alias the name of the anchor."""
    anchor: str | None = None
    is_tagged: bool = False
    items: list[tuple[Node | None, Node]] = field(default_factory=list)
    """Key and value of each entry; a sequence's have no key."""

    @property
    def is_empty(self) -> bool:
        """Whether it is a value that nothing was written for."""
        return self.kind is Kind.SCALAR and self.start == self.end

    @property
    def is_block(self) -> bool:
        """Whether it is a collection written over lines."""
        return self.kind in {Kind.MAPPING, Kind.SEQUENCE} and not self.flow

    def entry(self, part: str | int) -> int | None:
        """The position of the entry of this key or index, None where there is none."""
        if self.kind is Kind.SEQUENCE:
            return part if isinstance(part, int) and part < len(self.items) else None
        return next((index for index, (key, _) in enumerate(self.items) if key is not None and key.value == str(part)), None)


def layout_of(text: str) -> Node | None:
    """The nodes of a text that `source.parse` could read; None where it says nothing."""
    events = iter(YAML(typ="rt").parse(text))
    for event in events:
        if isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent | AliasEvent):
            node = _node(text, event, events)
            return None if node.is_empty else node
    return None


def _node(text: str, event: Any, events: Iterator[Any]) -> Node:
    start, end = event.start_mark.index, event.end_mark.index
    column = event.start_mark.column
    if isinstance(event, AliasEvent):
        return Node(Kind.ALIAS, start, end, column, value=str(event.anchor))
    anchor = None if event.anchor is None else str(event.anchor)
    is_tagged = getattr(event, "tag", None) is not None
    if isinstance(event, ScalarEvent):
        end = _end_of_block(text, start, end) if event.style in BLOCK_STYLES else end
        return Node(Kind.SCALAR, start, end, column, style=event.style, value=event.value, anchor=anchor, is_tagged=is_tagged)
    is_mapping = isinstance(event, MappingStartEvent)
    node = Node(
        Kind.MAPPING if is_mapping else Kind.SEQUENCE,
        start,
        end,
        column,
        flow=bool(event.flow_style),
        anchor=anchor,
        is_tagged=is_tagged,
    )
    for inner in events:
        if not isinstance(inner, ScalarEvent | MappingStartEvent | SequenceStartEvent | AliasEvent):
            node.end = inner.end_mark.index if node.flow or not node.items else node.items[-1][1].end
            return node
        key = _node(text, inner, events) if is_mapping else None
        value = _node(text, next(events), events) if is_mapping else _node(text, inner, events)
        node.items.append((key, value))
        if value.is_empty:
            # The parser's mark is where the next token begins, past all comments.
            value.start = value.end = _empty_place(text, node, key, value.start)
    return node  # pragma: no cover - the parser ends every collection that it began


def _empty_place(text: str, holder: Node, key: Node | None, mark: int) -> int:
    if key is not None:
        colon = text.find(":", key.end, mark)
        return key.end if colon < 0 else colon + 1
    begins = holder.items[-2][1].end if len(holder.items) > 1 else holder.start
    if holder.flow:
        return mark
    if text.startswith("-", begins):
        return begins + 1
    dash = _DASH.search(text, text.find("\n", begins) + 1, mark)
    return mark if dash is None else dash.end()


def _end_of_block(text: str, start: int, end: int) -> int:
    # Its mark is the next line's beginning, past the empty lines before it; they are its own only where it keeps them.
    header = text[start:end].split("\n", 1)[0].split("#", 1)[0]
    return end if "+" in header else start + len(text[start:end].rstrip())


def dash_of(text: str, sequence: Node, index: int) -> int:
    """Where the dash of an item of a block sequence stands."""
    begins = sequence.items[index - 1][1].end if index else sequence.start
    start = sequence.items[index][1].start
    before = text[:start].rstrip(" \t")
    if before.endswith("-") and len(before) > begins:
        return len(before) - 1
    found = [match.start(1) for match in _DASH.finditer(text, begins, start)] or [begins]
    return found[-1]


def line_start(text: str, position: int) -> int:
    """Where the line begins in which a position is; a byte order mark belongs to no line."""
    begins = text.rfind("\n", 0, position) + 1
    return begins + 1 if text.startswith("\ufeff", begins) and begins == 0 else begins


def line_end(text: str, position: int) -> int:
    """Where the line after that of a position begins; a position at the beginning of a line is in the line before."""
    if position and text[position - 1] == "\n":
        return position
    found = text.find("\n", position)
    return len(text) if found < 0 else found + 1


def nodes_to(root: Node, where: KeyPath) -> list[Node]:
    """The nodes on the way to a place, as far as they are written out; the root is the first."""
    found = [root]
    for part in where:
        node = found[-1]
        index = node.entry(part) if node.kind in {Kind.MAPPING, Kind.SEQUENCE} else None
        if index is None:
            break
        found.append(node.items[index][1])
    return found
