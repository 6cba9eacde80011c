"""`openclaw-kernel config schema [PATH] [--write]`: the JSON Schema of the config, for editors and for people."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.cli.errors import BadConfig, CommandFailed
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json

_BELOW: Final = frozenset(
    {"$ref", "properties", "items", "additionalProperties", "anyOf", "if", "then", "else", "allOf", "$defs", "$schema"}
)

DETAILS: Final = """\
It covers the gateway's own keys and the sections of all installed plugins, of which the code that declares their settings
is imported. With --write it goes to openclaw.schema.json beside openclaw.yaml, where editors find it that know the line
# yaml-language-server: $schema=./openclaw.schema.json"""


def add(group: Commands) -> None:
    """Add the command."""
    parser = group.add("schema", "print the JSON Schema of openclaw.yaml, or of one key of it", run=show, details=DETAILS)
    parser.add_argument("path", metavar="PATH", nargs="?", help="dotted key, e.g. channels.telegram; * stands for any", default=None)
    parser.add_argument("--write", action="store_true", help="write it beside openclaw.yaml", default=False)


def show(options: argparse.Namespace) -> int:
    """Print or write it."""
    from openclaw_config.composed import compose
    from openclaw_config.home import config_path, find_home
    from openclaw_kernel.cli.validation import composed_sections
    from openclaw_kernel.configuration.schema_file import file_text, refresh_file, schema_path, stamp_of

    path = config_path(find_home(options.home))
    document = _document(path)
    sections, discovery = composed_sections(document, path.parent)
    schema = compose(sections)
    if options.path is not None:
        emit_json(_part(schema, options.path))
        return OK
    text = file_text(schema, stamp_of(discovery, document))
    if not options.write:
        emit(text.rstrip("\n"))
        return OK
    target = schema_path(path)
    try:
        changed = refresh_file(target, text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{target}: cannot be written ({reason}); make it writable, or use --home") from error
    if options.json:
        emit_json({"path": str(target), "changed": changed})
    else:
        emit(f"{target} {'written' if changed else 'is as it should be'}")
    return OK


def _document(path: Path) -> Mapping[str, Any]:
    """The merged document of a config that need not be valid; empty where there is none."""
    import os

    from openclaw_config.issues import ConfigError
    from openclaw_config.layers import read_layers

    if not path.exists():
        return {}
    try:
        return read_layers(path, os.environ).document
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error


def _part(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    from openclaw_config.schema_paths import children_of, node_at, parts_of, variants

    node = node_at(schema, parts_of(path))
    if node is None:
        known = ", ".join(children_of(schema, schema))
        raise CommandFailed(f"config schema: {path}: no schema knows this key; at the top there are: {known}")
    shapes = [{key: value for key, value in one.items() if key not in _BELOW} for one in variants(schema, node)]
    about = {key: value for key, value in node.items() if key in {"description", "default"}}
    return {"path": path, **about, "anyOf": shapes, "keys": list(children_of(schema, node))}
