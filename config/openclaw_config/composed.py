"""The whole config as one strict JSON Schema (draft 2020-12): the kernel's models, and the sections of the plugins, handed in.

Two forms of it. `compose` describes what counts, all layers merged and references resolved: what clients are shown. `for_files` describes
what may stand in a file, for editors: `${...}` in the place of any value, `$include`, and sections that are still empty.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from openclaw_config.describe import schema_of
from openclaw_config.models import Config
from openclaw_config.names import INCLUDE, SCHEMA
from openclaw_config.redaction import KINDS, is_secret_place
from openclaw_config.schema_paths import leaves_of

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
SECRET: Final = "x-openclaw-secret"  # noqa: S105 - the name of a mark
OPEN: Final[Mapping[str, Any]] = {"type": "object"}
"""The schema of settings that nobody knows: a plugin's that is not imported."""
_BY_API: Final = "provider-by-api"
_SECTIONS: Final = ("channel.", "provider.", "plugin.")
_ENTRIES: Final = ("entry.", "PluginEntry")
_ANNOTATIONS: Final = frozenset({"default", "description", "deprecated", "examples", SECRET})
_VARIABLE: Final = rf"\$\{{([A-Z_][A-Z0-9_]*|({'|'.join(KINDS)}):[^{{}}]+)\}}"

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The settings of one plugin. `schema` is the JSON Schema of its model by alias; None where it takes no settings."""

    id: str
    kind: Literal["channel", "provider", "plugin"]
    schema: Mapping[str, Any] | None
    apis: Sequence[str] = field(default=())
    """Of a provider: values of `api` that name it, beside its id."""
    ids: Sequence[str] = field(default=())
    """Of a provider: ids of `models.providers` that are its own, beside its id."""


def compose(sections: Sequence[Section]) -> Schema:
    """The config with every value in its place; keys that no model knows are refused."""
    schema = copy.deepcopy(schema_of(Config))
    definitions: Schema = schema.setdefault("$defs", {})
    for section in sections:
        definitions.update(_definitions(section))
    schema["properties"]["channels"] |= _members({each.id: _ref(_name(each)) for each in sections if each.kind == "channel"})
    providers = [each for each in sections if each.kind == "provider"]
    definitions["Providers"]["properties"]["providers"] |= _providers(providers)
    definitions[_BY_API] = _by_api(providers)
    entry = definitions["PluginEntry"]
    entries = {}
    for section in sections:
        entries[section.id] = _ref("PluginEntry")
        if section.kind == "plugin":
            about = {key: value for key, value in entry["properties"]["config"].items() if key in _ANNOTATIONS}
            own = {**entry["properties"], "config": {**about, **_ref(_name(section))}}
            definitions[f"entry.{section.id}"] = {**entry, "properties": own}
            entries[section.id] = _ref(f"entry.{section.id}")
    definitions["Plugins"]["properties"]["entries"] |= _members(entries)
    schema = _tidy(schema, ())
    return {"$schema": DRAFT, "title": "openclaw.yaml", **schema, "$defs": dict(sorted(schema["$defs"].items()))}


def for_files(schema: Mapping[str, Any], *, comment: str = "") -> Schema:
    """The schema of a file, from that of the whole. What it says is wrong in a file the gateway refuses as well.

    The other way round there is more that the gateway refuses: what a model checks by code, and what an include brings.
    """
    definitions: Mapping[str, Any] = schema["$defs"]
    # A section that is still empty is YAML's null; an item of a list or an entry of a mapping cannot be.
    members = set(_members_in(schema))
    kernel = {name for name in definitions if not name.startswith(_SECTIONS)}
    empty = {name for name in definitions if _is_whole_section(name) or (name in kernel and name not in members)} - {_BY_API}
    found: Schema = _of_file({key: value for key, value in schema.items() if key != "$defs"}, empty, is_kernel=True)
    of_files = {name: _of_file(node, empty, is_kernel=name in kernel) for name, node in definitions.items()}
    for name in empty:
        of_files[name] = _or_empty(of_files[name], empty)
    found["properties"] = {SCHEMA: {"type": "string", "description": "This schema, for editors."}, **found["properties"]}
    include = {
        "description": "Files, relative to this one, whose content stands here; keys beside it win.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    }
    head = {"$schema": found.pop("$schema"), **({"$comment": comment} if comment else {})}
    return {**head, **found, "$defs": {**of_files, "include": include, "reference": {"type": "string", "pattern": _VARIABLE}}}


def hints_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What clients that draw a form want to know by path, `*` standing for a key of the file's own choosing: which values to hide."""
    return {".".join(where): {"sensitive": True} for where, node in leaves_of(schema) if isinstance(node, Mapping) and node.get(SECRET)}


def _definitions(section: Section) -> Schema:
    """The section's schema and those that it is made of, by names that are its own."""
    schema: Schema = {"type": "object", "additionalProperties": False}
    if section.schema is not None:
        schema = copy.deepcopy(dict(section.schema))
    inner: Schema = schema.pop("$defs", {})
    moved: Schema = _moved({**{f"{_name(section)}.{name}": node for name, node in inner.items()}, _name(section): schema}, _name(section))
    whole = moved[_name(section)]
    # These speak to the host, which takes them out before the plugin sees its section.
    spoken: Schema = (
        {} if section.kind == "plugin" else {"enabled": {"type": "boolean", "default": True, "description": "Whether it runs."}}
    )
    if section.kind == "provider":
        spoken["api"] = {"enum": sorted({section.id, *section.apis}), "description": "Which provider plugin this entry is for."}
    whole["properties"] = {**spoken, **whole.get("properties", {})}
    return moved


def _moved(node: Any, prefix: str) -> Any:
    if isinstance(node, dict):
        return {
            key: f"#/$defs/{prefix}.{value.rpartition('/')[2]}" if key == "$ref" and isinstance(value, str) else _moved(value, prefix)
            for key, value in node.items()
        }
    return [_moved(item, prefix) for item in node] if isinstance(node, list) else node


def _providers(providers: Sequence[Section]) -> Schema:
    by_api = _ref(_BY_API)
    own = {name: each for each in reversed(providers) for name in (each.id, *each.ids)}
    members = {name: {"if": {"required": ["api"]}, "then": by_api, "else": _ref(_name(each))} for name, each in sorted(own.items())}
    return {"type": "object", "properties": members, "additionalProperties": by_api}


def _by_api(providers: Sequence[Section]) -> Schema:
    """An entry whose `api` says whose it is."""
    owners = {api: each for each in reversed(providers) for api in (each.id, *each.apis)}
    cases = [{"if": {"properties": {"api": {"const": api}}}, "then": _ref(_name(each))} for api, each in sorted(owners.items())]
    return {"type": "object", "required": ["api"], "properties": {"api": {"enum": sorted(owners)}}, "allOf": cases}


def _members(members: Schema) -> Schema:
    return {"type": "object", "properties": dict(sorted(members.items())), "additionalProperties": False}


def _name(section: Section) -> str:
    return f"{section.kind}.{section.id}"


def _is_whole_section(name: str) -> bool:
    return name.startswith(_SECTIONS) and name.count(".") == 1


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _tidy(node: Any, where: tuple[str, ...]) -> Any:
    """Without the titles that repeat the keys; with a mark on what is secret."""
    if not isinstance(node, Mapping):
        return node
    tidied: Schema = {}
    for key, value in node.items():
        if key in {"properties", "$defs", "patternProperties"}:
            below = where if key == "properties" else ()
            tidied[key] = {name: _tidy(item, (*below, name) if key == "properties" else ()) for name, item in value.items()}
        elif key in {"anyOf", "oneOf", "allOf"}:
            tidied[key] = [_tidy(item, where) for item in value]
        elif key in {"items", "additionalProperties", "if", "then", "else"}:
            tidied[key] = _tidy(value, where)
        elif key != "title" and not (key == "default" and isinstance(value, dict)):
            # The defaults of a model stand with its keys.
            tidied[key] = value
    texts = [tidied, *(item for item in tidied.get("anyOf", ()) if isinstance(item, Mapping))]
    is_text = any(item.get("type") == "string" for item in texts)
    if any(item.get("format") == "password" for item in texts) or (is_text and is_secret_place(where)):
        tidied[SECRET] = True
    return tidied


def _members_in(node: Any) -> Iterator[str]:
    """The definitions of what stands in lists and in mappings with keys of the file's own choosing."""
    if isinstance(node, Mapping):
        for key in ("items", "additionalProperties"):
            yield from _named(node.get(key))
        for item in node.values():
            yield from _members_in(item)
    elif isinstance(node, list):
        for item in node:
            yield from _members_in(item)


def _named(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "$ref" in node:
            yield str(node["$ref"]).rpartition("/")[2]
        for item in node.get("anyOf", ()):
            yield from _named(item)


def _of_file(node: Any, empty: Collection[str], *, is_kernel: bool) -> Any:
    if not isinstance(node, Mapping):
        return node
    found: Schema = dict(node)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in found:
            found[key] = [_of_file(item, empty, is_kernel=is_kernel) for item in found[key]]
    for key in ("items", "additionalProperties", "then", "else"):
        if key in found:
            found[key] = _of_file(found[key], empty, is_kernel=is_kernel)
    if "properties" in found:
        filled = {name: _of_file(item, empty, is_kernel=is_kernel) for name, item in found["properties"].items()}
        may_be_empty = filled.keys() - set(found.get("required", ())) if is_kernel else set()
        found["properties"] = {name: _or_empty(item, empty) if name in may_be_empty else item for name, item in filled.items()}
    kind = found.get("type")
    if kind == "object":
        return _including(found)
    if kind == "array":
        included = {"properties": {INCLUDE: _ref("include")}, "required": [INCLUDE], "additionalProperties": False}
        return {**found, "type": [kind, "object"], **included}
    if found.keys() & {"enum", "const"} or (kind == "string" and found.keys() & {"pattern", "maxLength"}):
        return _either(found, _ref("reference"))
    return {**found, "type": [kind, "string"], "pattern": _VARIABLE} if kind in {"integer", "number", "boolean"} else found


def _including(node: Schema) -> Schema:
    node["properties"] = {**node.get("properties", {}), INCLUDE: _ref("include")}
    required = node.pop("required", None)
    if required:
        node |= {"if": {"required": [INCLUDE]}, "else": {"required": required}}
    return node


def _either(node: Schema, other: Schema) -> Schema:
    core = {key: value for key, value in node.items() if key not in _ANNOTATIONS}
    branches = core["anyOf"] if set(core) == {"anyOf"} else [core]
    kept = {key: value for key, value in node.items() if key in _ANNOTATIONS}
    return {**kept, "anyOf": [*branches, other]}


def _or_empty(node: Any, empty: Collection[str]) -> Any:
    if not isinstance(node, dict) or {"type": "null"} in node.get("anyOf", ()):
        return node
    named = str(node.get("$ref", "")).rpartition("/")[2]
    if named in empty or named.startswith(_ENTRIES):
        return node
    kind = node.get("type")
    if kind is not None and not node.keys() & {"enum", "const"}:
        return {**node, "type": [*([kind] if isinstance(kind, str) else kind), "null"]}
    return _either(node, {"type": "null"})
