"""Edits that mend a file which is not valid: a key gets another name, or becomes a comment. Every other byte stays. No pydantic."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from openclaw_config.edit import CannotEdit
from openclaw_config.redaction import plain
from openclaw_config.source import ConfigError, KeyPath, dotted, parse

_BY_HAND: Final = "edit it by hand"
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WORDS: Final = frozenset("true false null yes no on off y n".split())


def with_key_renamed(name: str, text: str, where: KeyPath, new: str) -> str:
    """Return the file's text with a key under another name, its value as it is; raise `CannotEdit`."""
    holder, key, _ = _pair(text, where)
    if any(str(other.value) == new for other, _ in holder.value):
        raise CannotEdit(f"{dotted((*where[:-1], new))}: is there too; {_BY_HAND}")
    start, end = key.start_mark.index, key.end_mark.index
    is_plain = text[start] not in "\"'" and _PLAIN_KEY.fullmatch(new) is not None and new.lower() not in _WORDS
    edited = f"{text[:start]}{new if is_plain else json.dumps(new, ensure_ascii=False)}{text[end:]}"
    return _checked(name, text, edited, where, lambda items, old: {new if str(k) == old else k: v for k, v in items.items()})


def with_key_disabled(name: str, text: str, where: KeyPath) -> str:
    """Return the file's text with a key and all below it as a comment, or without them where they stand in brackets.

    Raise `CannotEdit`.
    """
    holder, key, value = _pair(text, where)
    edited = _without(text, holder, key, value) if holder.flow_style else _commented(text, where, key, value)
    return _checked(name, text, edited, where, lambda items, old: {k: v for k, v in items.items() if str(k) != old})


def _pair(text: str, where: KeyPath) -> tuple[MappingNode, ScalarNode, Node]:
    node: Any = YAML(typ="rt").compose(text)
    found: tuple[MappingNode, ScalarNode, Node] | None = None
    for part in where:
        if isinstance(node, MappingNode):
            pair = next(((key, item) for key, item in node.value if str(key.value) == str(part)), None)
            if pair is None:
                break
            found, node = (node, *pair), pair[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            found, node = None, node.value[part]
        else:
            break
    else:
        if found is not None:
            return found
    raise CannotEdit(f"{dotted(where)}: is no key in the file; {_BY_HAND}")


def _commented(text: str, where: KeyPath, key: ScalarNode, value: Node) -> str:
    lines = text.splitlines(keepends=True)
    first, indent = key.start_mark.line, key.start_mark.column
    if lines[first][:indent].strip():
        # The first key of a list's item: its dash stands on the same line.
        raise CannotEdit(f"{dotted(where)}: other things stand on its line; {_BY_HAND}")
    for number in range(first, _last_line(value, text) + 1):
        line = lines[number]
        if line.strip():
            lines[number] = f"{line[:indent]}# {line[indent:]}" if not line[:indent].strip() else f"# {line}"
    return "".join(lines)


def _last_line(node: Node, text: str) -> int:
    """The last line that a value's content is on; the end of a block is where the next thing begins."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last, text)
    end, start = node.end_mark, node.start_mark
    first, last = int(start.line), int(end.line)
    if isinstance(node, ScalarNode) and node.style in ("|", ">"):
        return first + len(text[start.index : end.index].rstrip().splitlines()) - 1
    return max(first, last)


def _without(text: str, holder: MappingNode, key: ScalarNode, value: Node) -> str:
    position = next(number for number, (other, _) in enumerate(holder.value) if other is key)
    start, end = key.start_mark.index, value.end_mark.index
    if position + 1 < len(holder.value):
        end = holder.value[position + 1][0].start_mark.index
    elif position:
        start = holder.value[position - 1][1].end_mark.index
    if "#" in text[start:end]:
        raise CannotEdit(f"{dotted((str(key.value),))}: a comment may stand beside it; {_BY_HAND}")
    return text[:start] + text[end:]


def _checked(name: str, before: str, after: str, where: KeyPath, change: Callable[[dict[Any, Any], str], dict[Any, Any]]) -> str:
    """Read the result again: it says what the text said before, but for this key."""
    wanted = _changed(_tree(parse(name, before)), where, change)
    try:
        if _tree(parse(name, after)) == wanted:
            return after
    except ConfigError:
        pass
    raise CannotEdit(f"{dotted(where)}: cannot be changed with all else left as it is; {_BY_HAND}")


def _changed(tree: Any, where: KeyPath, change: Callable[[dict[Any, Any], str], dict[Any, Any]]) -> Any:
    if isinstance(tree, list):
        return [_changed(item, where[1:], change) if index == where[0] else item for index, item in enumerate(tree)]
    if len(where) == 1:
        # A mapping whose last key became a comment is nothing, which the models take for unset.
        return change(tree, str(where[0])) or None
    return {key: _changed(item, where[1:], change) if str(key) == str(where[0]) else item for key, item in tree.items()}


def _tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain(key): _tree(item) for key, item in value.items()} or None
    return [_tree(item) for item in value] if isinstance(value, list) else plain(value)
