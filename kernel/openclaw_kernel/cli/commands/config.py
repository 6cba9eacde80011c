"""`openclaw-kernel config get|file`: the config file, without a gateway; the group's other commands are modules of their own."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from openclaw_kernel.cli.commands import config_explain, config_generations, config_live, config_schema, config_validate, config_write
from openclaw_kernel.cli.errors import BadConfig, CommandFailed
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("config", "read, check and change openclaw.yaml, with or without a gateway")
    get = group.add("get", "print the file or one key of it, secrets replaced", run=get_value)
    get.add_argument("path", metavar="PATH", nargs="?", help="dotted key, e.g. gateway.port", default=None)
    group.add("file", "print where the file is", run=print_file)
    for further in (config_explain, config_generations, config_live, config_schema, config_validate, config_write):
        further.add(group)


def get_value(options: argparse.Namespace) -> int:
    """Print the source as it stands in the file, with references unresolved."""
    from openclaw_config.home import config_path, find_home
    from openclaw_config.issues import ConfigError
    from openclaw_config.redaction import redact, redact_source, secrets_in
    from openclaw_config.source import parse, read_text

    path = config_path(find_home(options.home))
    try:
        text = read_text(path)
        source = parse(path.name, text)
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error
    secrets = secrets_in(source)
    if options.path is None and not options.json:
        shown = redact_source(text, source, secrets, lambda cleaned: _read_again(path.name, cleaned))
        if shown is not None:
            emit(shown.rstrip("\n"))
            return OK
    value: Any = {str(key): redact(key, item, secrets) for key, item in source.items()}
    for depth, key in enumerate(options.path.split(".") if options.path else ()):
        value = _step(path.name, value, options.path, depth, key)
    if options.json:
        emit_json(value)
    elif isinstance(value, Mapping | list):
        emit(_as_yaml(value))
    else:
        emit(str(value).lower() if value is None or isinstance(value, bool) else str(value))
    return OK


def _read_again(name: str, text: str) -> Any:
    from openclaw_config.issues import ConfigError
    from openclaw_config.source import parse

    try:
        return parse(name, text)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def print_file(options: argparse.Namespace) -> int:
    """Print the path, whether the file is there or not."""
    from openclaw_config.home import config_path, find_home

    path = config_path(find_home(options.home))
    if options.json:
        emit_json({"path": str(path), "exists": path.exists()})
    else:
        emit(str(path))
    return OK


def _step(name: str, node: Any, path: str, depth: int, key: str) -> Any:
    if isinstance(node, Mapping) and key in node:
        return node[key]
    if isinstance(node, list) and key in map(str, range(len(node))):
        return node[int(key)]
    where = ".".join(path.split(".")[: depth + 1])
    known = ", ".join(map(str, node)) if isinstance(node, Mapping) else ""
    cure = f"here are: {known}" if known else f"nothing is below {where.rpartition('.')[0] or 'it'}"
    raise CommandFailed(f"{name}: {where}: is not in the file; {cure}")


def _as_yaml(value: Any) -> str:
    import io

    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    text = io.StringIO()
    writer.dump(value, text)
    return text.getvalue().rstrip("\n")
