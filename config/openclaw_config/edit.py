"""Giving one key of `openclaw.yaml` another value, with every other byte of the file left as it is. No pydantic."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from openclaw_config.issues import ConfigError, KeyPath, dotted
from openclaw_config.redaction import plain
from openclaw_config.source import parse

_BY_HAND: Final = "edit it by hand"
_BLOCK: Final = ("|", ">")


class CannotEdit(Exception):
    """The edit cannot be made so that nothing else changes; the message names the key and the cure."""


def with_value(name: str, text: str, where: KeyPath, value: Any) -> str:
    """Return the file's text with another value at a place that is there; raise `CannotEdit`.

    The result was read again: it says what the text said before, but for this place.
    """
    before = parse(name, text)
    key_node, node = _find(text, where)
    edited = _edited(text, key_node, node, value, where)
    wanted = _tree(before)
    holder: Any = wanted
    for part in where[:-1]:
        holder = holder[_key_in(holder, part)]
    holder[_key_in(holder, where[-1])] = value
    try:
        if _tree(parse(name, edited)) == wanted:
            return edited
    except ConfigError:
        pass
    raise CannotEdit(f"{dotted(where)}: cannot be changed with all else left as it is; {_BY_HAND}")


def _find(text: str, where: KeyPath) -> tuple[Node | None, Node]:
    node: Any = YAML(typ="rt").compose(text)
    key: Node | None = None
    for part in where:
        if isinstance(node, MappingNode):
            pair = next(((name, item) for name, item in node.value if str(name.value) == str(part)), None)
            if pair is None:
                raise CannotEdit(f"{dotted(where)}: is not in the file; {_BY_HAND}")
            key, node = pair
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            key, node = None, node.value[part]
        else:
            raise CannotEdit(f"{dotted(where)}: is not in the file; {_BY_HAND}")
    return key, node


def _edited(text: str, key: Node | None, node: Node, value: Any, where: KeyPath) -> str:
    if isinstance(node, ScalarNode) or (isinstance(node, CollectionNode) and node.flow_style):
        start, end = node.start_mark.index, node.end_mark.index
        if _holds_comment(text[start:end], node):
            raise CannotEdit(f"{dotted(where)}: a comment stands within it; {_BY_HAND}")
        # Of a block scalar the end is the next line's beginning, past the empty lines before it.
        is_block = isinstance(node, ScalarNode) and node.style in _BLOCK
        kept = text[start + len(text[start:end].rstrip()) : end] if is_block else ""
        return f"{text[:start]}{json.dumps(value, ensure_ascii=False)}{kept}{text[end:]}"
    if isinstance(node, SequenceNode) and isinstance(value, list):
        return _without_lines(text, key, node, value, where)
    raise CannotEdit(f"{dotted(where)}: is written over several lines; {_BY_HAND}")


def _holds_comment(span: str, node: Node) -> bool:
    if isinstance(node, ScalarNode):
        return node.style in _BLOCK and "#" in span.splitlines()[0]
    # Within brackets a comment is known by its line alone, and so is any text that looks like one.
    return re.search(r"(^|\s)#.*[\r\n]", span) is not None


def _without_lines(text: str, key: Node | None, node: SequenceNode, value: list[Any], where: KeyPath) -> str:
    items = node.value
    left = list(value)
    gone: set[int] = set()
    for item in items:
        is_line = isinstance(item, ScalarNode) and item.start_mark.line == item.end_mark.line
        if left and isinstance(item, ScalarNode) and str(left[0]) == str(item.value):
            left.pop(0)
        elif is_line:
            gone.add(item.start_mark.line)
        else:
            raise CannotEdit(f"{dotted(where)}: an item is written over several lines; {_BY_HAND}")
    if left:
        raise CannotEdit(f"{dotted(where)}: only items can be taken out of a list with a line for each; {_BY_HAND}")
    if not value and key is not None:
        colon = text.index(":", key.end_mark.index) + 1
        text = f"{text[:colon]} []{text[colon:]}"
    return "".join(line for number, line in enumerate(text.splitlines(keepends=True)) if number not in gone)


def _key_in(holder: Any, part: str | int) -> Any:
    return next(key for key in holder if str(key) == str(part)) if isinstance(holder, dict) else part


def _tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain(key): _tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tree(item) for item in value]
    return copy.copy(plain(value))


def changed_lines(before: str, after: str) -> Sequence[tuple[int, str, str]]:
    """The lines that differ: number, sign (`-`, `+`) and text."""
    import difflib

    found: list[tuple[int, str, str]] = []
    old, new = before.splitlines(), after.splitlines()
    for tag, old_from, old_to, new_from, new_to in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            found += [(number + 1, "-", old[number]) for number in range(old_from, old_to)]
            found += [(number + 1, "+", new[number]) for number in range(new_from, new_to)]
    return found
