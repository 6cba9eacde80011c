"""Finding a key's place in the JSON Schema of the config, and what an agent may write there. Pure, no pydantic."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from openclaw_config.issues import KeyPath, dotted
from openclaw_config.merging import differences, same
from openclaw_config.names import INCLUDE

AGENT_WRITABLE: Final = "x-openclaw-agent-writable"
"""The mark of a leaf that an agent may write. What has none, an agent may not."""
_PART: Final = re.compile(r"[^./\[\]]+")

Schema = Mapping[str, Any]


def parts_of(path: str) -> tuple[str, ...]:
    """The keys of a path as clients write it: `gateway.port`, `bindings[0].agentId`, `/gateway/port`."""
    return tuple(_PART.findall(path))


def variants(schema: Schema, node: Any) -> list[Schema]:
    """What a node may be, references followed and alternatives apart; null is none of them."""
    if not isinstance(node, Mapping):
        return []
    if "$ref" in node:
        target: Any = schema
        for part in str(node["$ref"]).removeprefix("#/").split("/"):
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        return variants(schema, target)
    found = [one for key in ("anyOf", "oneOf", "allOf") for inner in node.get(key, ()) for one in variants(schema, inner)]
    # What holds where a condition does not is the ordinary case: an entry that names no `api`.
    found += [one for key in ("else", "then") if key in node for one in variants(schema, node[key])][: 1 if "else" in node else None]
    own = node.get("type") not in {None, "null"} or "properties" in node or "enum" in node or "const" in node
    return [node, *found] if own or not found else found


def below(schema: Schema, node: Any, key: str) -> tuple[Any, bool] | None:
    """The node of a key, and whether the key is one of the file's own choosing; None where no schema says what it is."""
    for one in variants(schema, node):
        if key in one.get("properties", {}):
            return one["properties"][key], False
        for inner in (*_patterns(one, key), one.get("additionalProperties"), one.get("items")):
            if isinstance(inner, Mapping):
                return inner, True
    return None


def node_at(schema: Schema, parts: Sequence[str]) -> Any:
    """The node of a path, None where no schema says what is there."""
    node: Any = schema
    for part in parts:
        found = below(schema, node, part)
        if found is None:
            return None
        node = found[0]
    return node


def children_of(schema: Schema, node: Any) -> dict[str, tuple[Any, bool]]:
    """The keys below a node with their nodes, and whether each has to be there; `*` for keys of the file's own choosing."""
    found: dict[str, tuple[Any, bool]] = {}
    for one in variants(schema, node):
        for key, inner in one.get("properties", {}).items():
            found.setdefault(key, (inner, key in one.get("required", ())))
        for inner in (*one.get("patternProperties", {}).values(), one.get("additionalProperties"), one.get("items")):
            if isinstance(inner, Mapping):
                found.setdefault("*", (inner, False))
    return found


def leaves_of(schema: Schema, node: Any = None, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf of a schema with its path, `*` for keys of the file's own choosing; a list is a leaf."""
    own = schema if node is None else node
    children = {key: value for key, value in children_of(schema, own).items() if "object" in _types(schema, own)}
    if not children or len(where) > len(children) + 64:
        yield where, own
        return
    for key, (inner, _) in children.items():
        yield from leaves_of(schema, inner, (*where, key))


def agent_refusals(schema: Schema, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys that a change touches and an agent may not write, dotted. What comes or goes by a key of its own choosing counts too.

    Of a leaf that it may write an agent gives the value itself: a reference or an include would read what it was not shown, or run it.
    """
    return [dotted(where) for where in _refused(schema, schema, before, after, ())]


def new_references(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys at which a change puts a reference or an include, dotted: loading it would read what they name, and run programs."""
    return [dotted(where) for where, _, value in differences(before, after) if INCLUDE in where or not _is_literal_below(value)]


def _is_literal_below(value: Any) -> bool:
    if isinstance(value, Mapping):
        return INCLUDE not in value and all(map(_is_literal_below, value.values()))
    return all(map(_is_literal_below, value)) if isinstance(value, list) else _is_literal(value)


def _refused(schema: Schema, node: Any, before: Any, after: Any, where: KeyPath) -> Iterator[KeyPath]:
    if same(before, after) or (is_marked(node) and _is_literal(after)):
        return
    if is_marked(node) or not isinstance(before, Mapping) or not isinstance(after, Mapping) or (not before and not after):
        yield where
        return
    for key in dict.fromkeys((*before, *after)):
        found = below(schema, node, str(key))
        is_on_both = key in before and key in after
        if found is None or (found[1] and not is_on_both):
            if not is_on_both or not same(before[key], after[key]):
                yield (*where, key)
            continue
        old, new = before.get(key), after.get(key)
        if not is_on_both and (isinstance(old, Mapping) or isinstance(new, Mapping)):
            # A mapping that comes or goes says what is in it, and nothing where it is empty.
            old, new = {} if old is None else old, {} if new is None else new
        yield from _refused(schema, found[0], old, new, (*where, key))


def is_marked(node: Any) -> bool:
    """Whether an agent may write what stands there."""
    return isinstance(node, Mapping) and node.get(AGENT_WRITABLE) is True


def _is_literal(value: Any) -> bool:
    return not isinstance(value, Mapping | list) and not (isinstance(value, str) and "${" in value)


def _patterns(node: Schema, key: str) -> list[Any]:
    # `*` stands for any key of the file's own choosing.
    return [inner for pattern, inner in node.get("patternProperties", {}).items() if key == "*" or re.search(pattern, key)]


def _types(schema: Schema, node: Any) -> set[str]:
    return {str(one.get("type")) for one in variants(schema, node)}
