"""Bringing the text of `openclaw.yaml` to say something else by the smallest edits: every other byte stays. No pydantic.

Each edit replaces a part of the text; comments, order, anchors, quoting, references, ends of lines and a byte order mark around
it are not touched. The result is read again, and is given back only if it says exactly what is wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from openclaw_config.edit import CannotEdit
from openclaw_config.issues import ConfigError, KeyPath, dotted
from openclaw_config.layout import BLOCK_STYLES, Kind, Node, dash_of, layout_of, line_end, line_start
from openclaw_config.merging import CannotMerge, differences, merged, same
from openclaw_config.redaction import plain
from openclaw_config.rendering import CannotRender, below, entry_lines, flow, item_lines, key_text, scalar
from openclaw_config.source import parse

_BY_HAND: Final = "edit it by hand"
_STEP: Final = 2

__all__ = ["CannotEdit", "CannotMerge", "patched", "rewritten", "tree_of"]


def tree_of(name: str, text: str) -> dict[str, Any]:
    """What a file says, references unresolved, without the library's formatting; raise `ConfigError`."""
    tree: dict[str, Any] = _plain(parse(name, text))
    return tree


def patched(name: str, text: str, patch: Mapping[str, Any], replace_paths: Collection[str] = ()) -> str:
    """The file's text with a merge patch in it; raise `CannotMerge`, `CannotEdit`, or `ConfigError` where the text is no YAML."""
    return rewritten(name, text, merged(tree_of(name, text), patch, replace_paths))


def rewritten(name: str, text: str, wanted: Mapping[str, Any]) -> str:
    """The file's text, edited to say what is wanted; raise `CannotEdit` where only a rewrite of more than that would do it."""
    before = tree_of(name, text)
    if same(before, wanted):
        return text
    edits = _Edits(text)
    try:
        edits.document(before, wanted)
        edited = edits.result()
        after = tree_of(name, edited)
    except CannotRender as error:
        raise CannotEdit(f"{name}: {error}") from None
    except ConfigError:
        raise _cannot(differences(before, wanted)[0][0], "cannot be written with all else left as it is") from None
    if not same(after, wanted):
        raise _cannot(differences(after, wanted)[0][0], "cannot be written with all else left as it is")
    return edited


def _cannot(where: KeyPath, found: str) -> CannotEdit:
    return CannotEdit(f"{dotted(where) or 'the file'}: {found}; {_BY_HAND}")


class _Edits:
    """Collects the edits that lead from one tree to another. Those of a value are collected before those around it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._newline = "\r\n" if "\r\n" in text[: text.find("\n") + 1] else "\n"
        self._splices: list[tuple[int, int, str]] = []
        self._root = layout_of(text)
        self._step = _step_of(self._root)

    def result(self) -> str:
        """The edited text."""
        parts: list[str] = []
        done = 0
        for start, end, new in sorted(self._splices, key=lambda splice: splice[:2]):
            parts += (self._text[done:start], new)
            done = max(done, end)
        return "".join((*parts, self._text[done:]))

    def document(self, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """Collect the edits of the whole file."""
        if self._root is None:
            self._lines(len(self._text), below(wanted, 0, self._step))
        else:
            self._change(self._root, before, wanted, (), None)

    # One value.

    def _change(self, node: Node, before: Any, wanted: Any, where: KeyPath, holder: tuple[Node, int] | None) -> None:
        if same(before, wanted):
            return
        if node.kind is Kind.ALIAS:
            self._change_alias(node, before, wanted, where)
        elif node.kind is Kind.MAPPING and isinstance(before, Mapping) and isinstance(wanted, Mapping) and (wanted or holder is None):
            self._mapping(node, before, wanted, where)
        elif node.kind is Kind.SEQUENCE and isinstance(before, list) and isinstance(wanted, list) and wanted:
            self._sequence(node, before, wanted, where)
        elif node.is_block and holder is not None:
            self._replace_block(node, wanted, where, *holder)
        elif holder is not None:
            self._replace(node, wanted, where, *holder)

    def _change_alias(self, node: Node, before: Any, wanted: Any, where: KeyPath) -> None:
        if isinstance(before, Mapping | list) and isinstance(wanted, type(before)):
            raise CannotEdit(f"{dotted(where)}: is what the anchor &{node.value} says; change it there, or write it out here by hand")
        self._put(node.start, node.end, flow(wanted))

    def _replace(self, node: Node, wanted: Any, where: KeyPath, holder: Node, index: int) -> None:
        if node.anchor is not None or node.is_tagged:
            raise _cannot(where, "has an anchor or a tag")
        key = holder.items[index][0]
        if key is not None and not holder.flow and _is_null(node) and isinstance(wanted, Mapping | list) and wanted:
            self._put(len(self._text[: node.start].rstrip(" ")) if node.value else node.start, node.end, "")
            self._lines(line_end(self._text, node.end), below(wanted, key.column + self._step, self._step))
        elif node.is_empty:
            colon = "" if self._text[node.start - 1] in ":-" else ":"
            self._put(node.start, node.end, f"{colon} {flow(wanted, _key_style(holder))}")
        elif _holds_comment(self._text, node):
            raise _cannot(where, "a comment stands within it")
        else:
            style = node.style if node.kind is Kind.SCALAR else None
            key_style = _key_style(holder) if holder.flow else None
            new = flow(wanted, key_style) if isinstance(wanted, Mapping | list) or key_style else scalar(wanted, style)
            # Empty lines after a text that is written over lines stay where they are.
            end = node.start + len(self._text[node.start : node.end].rstrip()) if style in BLOCK_STYLES else node.end
            self._put(node.start, end, new)

    def _replace_block(self, node: Node, wanted: Any, where: KeyPath, holder: Node, index: int) -> None:
        if node.anchor is not None or node.is_tagged:
            raise _cannot(where, "has an anchor or a tag")
        key = holder.items[index][0]
        beside = self._text.index(":", key.end) + 1 if key is not None else dash_of(self._text, holder, index) + 1
        if line_start(self._text, node.start) == line_start(self._text, beside):
            self._put(node.start, node.end, flow(wanted))
            return
        self._put(beside, beside, f" {flow(wanted)}")
        for entry, (inner_key, value) in enumerate(node.items):
            begins = dash_of(self._text, node, entry) if inner_key is None else inner_key.start
            self._drop(line_start(self._text, begins), line_end(self._text, value.end))

    # Mappings.

    def _mapping(self, node: Node, before: Mapping[str, Any], wanted: Mapping[str, Any], where: KeyPath) -> None:
        written = {key.value: index for index, (key, _) in enumerate(node.items) if key is not None}
        names = {written[name]: name for name in before if name in written}
        for name in before:
            if name not in wanted and name not in names.values():
                raise _cannot((*where, name), "comes from an alias and cannot be taken out here")
        gone = [index for index, name in names.items() if name not in wanted]
        added = {name: value for name, value in wanted.items() if name not in names.values() and not _inherited(before, name, value)}
        for index, name in names.items():
            if name in wanted:
                self._change(node.items[index][1], before[name], wanted[name], (*where, name), (node, index))
        if node.flow:
            style = _key_style(node)
            texts = [f"{key_text(name, style)}: {flow(value, style)}" for name, value in added.items()]
            self._flow_entries(node, set(gone), {len(node.items): texts} if texts else {}, where)
            return
        begins = _start(node, 0)
        if added and len(gone) == len(node.items) and self._text[line_start(self._text, begins) : begins].strip(" "):
            lines = [line for name, value in added.items() for line in entry_lines(name, value, node.column, self._step)]
            self._put(begins, node.end, self._newline.join(lines).lstrip(" "))
            return
        self._remove_lines(node, gone, where)
        lines = [line for name, value in added.items() for line in entry_lines(name, value, _start_column(node), self._step)]
        self._lines(line_end(self._text, node.end), lines)

    def _remove_lines(self, node: Node, gone: list[int], where: KeyPath) -> None:
        for index in gone:
            start = _start(node, index) if node.kind is Kind.MAPPING else dash_of(self._text, node, index)
            begins = line_start(self._text, start)
            if not self._text[begins:start].strip(" "):
                self._drop(begins, line_end(self._text, node.items[index][1].end))
                continue
            # It begins on the line of what it is an item of: the next one takes its place, or its own line below.
            if index + 1 >= len(node.items) or index + 1 in gone:
                raise _cannot((*where, self._name(node, index)), "stands on the line of what holds it and cannot be taken out")
            following = _start(node, index + 1) if node.kind is Kind.MAPPING else dash_of(self._text, node, index + 1)
            ends = line_end(self._text, node.items[index][1].end)
            if "#" in self._text[ends:following]:
                self._put(len(self._text[:start].rstrip(" ")), len(self._text[:ends].rstrip("\r\n")), "")
            else:
                self._put(start, following, "")

    # Lists.

    def _sequence(self, node: Node, before: list[Any], wanted: list[Any], where: KeyPath) -> None:
        gone, new = set[int](), dict[int, list[Any]]()
        for _, old_from, old_to, new_from, new_to in _opcodes(before, wanted):
            both = min(old_to - old_from, new_to - new_from)
            for offset in range(both):
                index = old_from + offset
                self._change(node.items[index][1], before[index], wanted[new_from + offset], (*where, index), (node, index))
            gone.update(range(old_from + both, old_to))
            if new_from + both < new_to:
                new[old_to] = wanted[new_from + both : new_to]
        if node.flow:
            style = '"' if self._root is not None and self._root.flow else None
            self._flow_entries(node, gone, {at: [flow(value, style) for value in values] for at, values in new.items()}, where)
            return
        self._remove_lines(node, sorted(gone), where)
        for at, values in new.items():
            self._insert_items(node, at, values)

    def _insert_items(self, node: Node, at: int, values: list[Any]) -> None:
        first = dash_of(self._text, node, 0)
        indent = first - (self._text.rfind("\n", 0, first) + 1)
        lines = [line for value in values for line in item_lines(value, indent, self._step)]
        if at:
            self._lines(line_end(self._text, node.items[at - 1][1].end), lines)
        else:
            text = self._newline.join(lines).lstrip(" ")
            self._put(first, first, f"{text}{self._newline}{' ' * indent}")

    # Flow collections.

    def _flow_entries(self, node: Node, gone: set[int], new: Mapping[int, list[str]], where: KeyPath) -> None:
        count = len(node.items)
        kept = [index for index in range(count) if index not in gone]
        self._remove_flow(node, gone, kept[-1] if kept else -1, where)
        for at, texts in new.items():
            if not kept:
                place = node.items[-1][1].end if count else node.start + 1
                self._put(place, place, ", ".join(texts))
            elif at == 0:
                self._put(_start(node, 0), _start(node, 0), "".join(f"{text}, " for text in texts))
            else:
                end, between = node.items[at - 1][1].end, self._between(node, at - 1)
                self._put(end, end, "".join(f",{between}{text}" for text in texts))

    def _between(self, node: Node, index: int) -> str:
        start = _start(node, index)
        begins = line_start(self._text, start)
        # Where each entry has a line of its own, a new one gets one too.
        return f"{self._newline}{self._text[begins:start]}" if begins > node.start and not self._text[begins:start].strip() else " "

    def _remove_flow(self, node: Node, gone: set[int], last_kept: int, where: KeyPath) -> None:
        for index in sorted(gone):
            start, end = _start(node, index), node.items[index][1].end
            if index < last_kept:
                following = _start(node, index + 1)
                self._refuse_comments(line_end(self._text, end), following, (*where, self._name(node, index)))
                self._put(start, following, "")
        if not gone or last_kept == len(node.items) - 1:
            return
        start, end = _start(node, last_kept + 1), node.items[-1][1].end
        before = node.items[last_kept][1].end if last_kept >= 0 else start
        comma = self._text.find(",", end, node.end)
        if last_kept < 0 and comma >= 0 and not self._text[end:comma].strip():
            end = comma + 1
        # A comma may stay behind the last entry; a comment about that has to.
        self._put(start if "#" in self._text[before:start] else before, end, "")

    # The text.

    def _put(self, start: int, end: int, new: str) -> None:
        self._splices.append((start, end, new))

    def _lines(self, position: int, lines: list[str]) -> None:
        if not lines:
            return
        text = self._newline.join(lines)
        at_end_of_open_line = position == len(self._text) and self._text.strip("\ufeff") and not self._text.endswith("\n")
        self._put(position, position, f"{self._newline}{text}" if at_end_of_open_line else f"{text}{self._newline}")

    def _drop(self, start: int, end: int) -> None:
        if end == len(self._text) and not self._text.endswith("\n"):
            # The line before becomes the last, and its end goes, for the file has none.
            start = len(self._text[:start].removesuffix("\n").removesuffix("\r")) if start else start
        self._put(start, end, "")

    def _refuse_comments(self, start: int, end: int, where: KeyPath) -> None:
        if start < end and "#" in self._text[start:end]:
            raise _cannot(where, "a comment about what follows would be lost with it")

    @staticmethod
    def _name(node: Node, index: int) -> str | int:
        key = node.items[index][0]
        return index if key is None else key.value


def _inherited(before: Mapping[str, Any], name: str, value: Any) -> bool:
    # By a merge key: it says what is wanted already.
    return name in before and same(before[name], value)


def _start(node: Node, index: int) -> int:
    key, value = node.items[index]
    return value.start if key is None else key.start


def _start_column(node: Node) -> int:
    key = node.items[0][0]
    return node.column if key is None else key.column


def _key_style(node: Node) -> str | None:
    return '"' if node.items and all(key is not None and key.style == '"' for key, _ in node.items) else None


def _is_null(node: Node) -> bool:
    return node.kind is Kind.SCALAR and not node.style and node.value in {"", "null", "~"}


def _step_of(root: Node | None) -> int:
    waiting = [] if root is None else [root]
    while waiting:
        node = waiting.pop(0)
        for key, value in node.items:
            if key is not None and value.kind is Kind.MAPPING and value.is_block and value.items[0][0] is not None:
                return max(1, value.items[0][0].column - key.column)
            waiting.append(value)
    return _STEP


def _holds_comment(text: str, node: Node) -> bool:
    if node.kind is Kind.SCALAR:
        return node.style in BLOCK_STYLES and "#" in text[node.start : node.end].splitlines()[0]
    gaps: list[str] = []
    done = node.start
    for key, value in node.items:
        gaps.append(text[done : value.start if key is None else key.start])
        if value.kind in {Kind.MAPPING, Kind.SEQUENCE} and _holds_comment(text, value):
            return True
        done = value.end
    return any("#" in gap for gap in (*gaps, text[done : node.end]))


def _opcodes(before: list[Any], wanted: list[Any]) -> list[tuple[str, int, int, int, int]]:
    import difflib

    kinds: list[Any] = []

    def number(value: Any) -> int:
        found = next((index for index, kind in enumerate(kinds) if same(kind, value)), None)
        if found is None:
            kinds.append(value)
        return len(kinds) - 1 if found is None else found

    # What has an id is the same entry whatever else it says.
    both = ([item.get("id") if isinstance(item, Mapping) else None for item in items] for items in (before, wanted))
    ids, wanted_ids = ([number(one) for one in some] if all(isinstance(one, str) for one in some) else [] for some in both)
    unique = len(set(ids)) == len(before) and len(set(wanted_ids)) == len(wanted)
    old, new = (ids, wanted_ids) if unique else ([number(value) for value in before], [number(value) for value in wanted])
    return list(difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return plain(value)
