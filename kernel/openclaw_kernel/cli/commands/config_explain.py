"""`openclaw-kernel config explain PATH`: what counts for a key, who said so, and who said otherwise."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.cli.errors import BadConfig, CommandFailed
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, table

if TYPE_CHECKING:
    from openclaw_config.issues import KeyPath
    from openclaw_config.layers import Layered

_WIDEST: Final = 100

DETAILS: Final = """\
Layers, the strongest first: environment (OPENCLAW_CONFIG__GATEWAY__PORT), profile (openclaw.<profile>.yaml), the file, what it
includes, and the default. Secrets are not shown; references are not followed. The file need not be valid."""


def add(group: Commands) -> None:
    """Add the command."""
    parser = group.add("explain", "tell what a key's value is, and which layer and line say so", run=explain, details=DETAILS)
    parser.add_argument("path", metavar="PATH", help="dotted key, e.g. gateway.port or channels.telegram.dmPolicy")


def explain(options: argparse.Namespace) -> int:
    """Tell."""
    import os

    from openclaw_config.composed import compose
    from openclaw_config.home import config_path, find_home
    from openclaw_config.issues import ConfigError
    from openclaw_config.layers import read_layers
    from openclaw_config.schema_paths import node_at
    from openclaw_kernel.cli.validation import composed_sections

    try:
        layers = read_layers(config_path(find_home(options.home)), os.environ)
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error
    where = layers.path_of(options.path.strip("."))
    schema = compose(composed_sections(layers.document, layers.path.parent)[0])
    node = node_at(schema, [str(part) for part in where])
    if node is None and where not in layers.origins:
        raise CommandFailed(f"config explain: {options.path}: {_unknown(schema, where)}")
    told = _told(layers, where, schema, node)
    if options.json:
        emit_json(told)
    else:
        _show(options.path, told)
    return OK


def _told(layers: Layered, where: KeyPath, schema: Mapping[str, Any], node: Any) -> dict[str, Any]:
    from openclaw_config.schema_paths import variants

    rows: list[dict[str, Any]] = [
        {
            "layer": origin.layer.value,
            "file": origin.file,
            "line": origin.line,
            "column": origin.column,
            "value": _shown(layers, where, origin.value),
        }
        for origin in layers.origins.get(where, ())
    ]
    known: Mapping[str, Any] = node if isinstance(node, Mapping) else {}
    default = known.get("default")
    rows.append({"layer": "default", "file": "", "line": 0, "column": 0, "value": default})
    if "default" not in known and len(rows) > 1:
        rows.pop()
    description = next((one["description"] for one in (known, *variants(schema, node)) if one.get("description")), None)
    return {
        "path": ".".join(map(str, where)),
        "value": _shown(layers, where, _value_at(layers.document, where)) if where in layers.origins else default,
        **{key: rows[0][key] for key in ("layer", "file", "line", "column")},
        "layers": rows,
        "description": description,
    }


def _show(path: str, told: Mapping[str, Any]) -> None:
    from openclaw_config.issues import placed

    emit(f"{path}: {_written(told['value'])}")
    if told["description"]:
        emit("\n".join(f"  {line}" for line in str(told["description"]).splitlines()))
    rows = []
    for number, row in enumerate(told["layers"]):
        place = placed(row["file"], row["line"], row["column"]) if row["file"] else "-"
        rows.append(("wins" if number == 0 else "", row["layer"], place, _written(row["value"])))
    emit(table(rows, head=("", "LAYER", "PLACE", "VALUE")))


def _written(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _value_at(document: Any, where: KeyPath) -> Any:
    for part in where:
        document = document[part]
    return document


def _shown(layers: Layered, where: KeyPath, value: Any) -> Any:
    """A value as it may be shown at its place; secrets of all layers count wherever they stand."""
    from openclaw_config.load import written_out
    from openclaw_config.redaction import redact

    names = [part for part in where if isinstance(part, str)]
    held = value
    for name in reversed(names):
        held = {name: held}
    shown = redact("", held, written_out(layers))
    for name in names:
        shown = shown[name]
    return shown


def _unknown(schema: Mapping[str, Any], where: Sequence[str | int]) -> str:
    import difflib

    from openclaw_config.schema_paths import children_of, node_at

    for length in range(len(where) - 1, -1, -1):
        node = node_at(schema, [str(part) for part in where[:length]])
        if node is not None:
            known = list(children_of(schema, node))
            near = difflib.get_close_matches(str(where[length]), known, n=1)
            cure = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
            return f"there is no key {str(where[length])!r}; {cure}"
    return "there is no such key"
