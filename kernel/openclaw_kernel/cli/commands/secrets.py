"""`openclaw-kernel secrets list|set|check`: which secrets the config has, without a gateway and without showing one."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.cli.errors import BadConfig, BadUsage, CommandFailed
from openclaw_kernel.cli.exits import FAILED, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import GREEN, RED, emit, emit_json, note, paint_out, table

if TYPE_CHECKING:
    from openclaw_config.inventory import Slot
    from openclaw_config.layers import Layered

_KINDS: Final = {"variable": "variable", "literal": "this file"}


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("secrets", "show, store and check secrets; needs no gateway and prints no value", run=list_all)
    group.add("list", "list the secrets of openclaw.yaml, where each comes from and who uses it", run=list_all)
    details = """\
The value comes from stdin, or is asked for on a terminal without being shown. What is printed is the
reference that stands for it in openclaw.yaml, e.g. secrets: {entries: {github: "${file:secrets/github}"}}."""
    store = group.add("set", "store a secret and print the reference to it", run=set_one, details=details)
    store.add_argument("name", metavar="NAME", help="its name: lower-case letters, digits, - and _")
    store.add_argument("--keyring", action="store_true", help="in the system's keyring, not in a file of the state folder", default=False)
    details = "Reads every file, variable, keyring entry and program that openclaw.yaml refers to. Ends with 1 where one fails."
    group.add("check", "follow every reference and say which fail", run=check_all, details=details)


def list_all(options: argparse.Namespace) -> int:
    """Show a table."""
    path, layers, slots = _read(options)
    if options.json:
        emit_json({"secrets": [_row(slot, layers) for slot in slots]})
        return OK
    if not slots:
        emit(f"{path.name} has no secrets")
        return OK
    rows = [(slot.key, _KINDS.get(slot.kind, slot.kind), ", ".join(slot.used_by) or "nobody") for slot in slots]
    emit(table(rows, head=("SECRET", "FROM", "USED BY")))
    return OK


def set_one(options: argparse.Namespace) -> int:
    """Store one."""
    from openclaw_config.home import find_home
    from openclaw_config.secret_files import FOLDER, LOGINS, NAME, store_private

    name = options.name
    if NAME.fullmatch(name) is None:
        raise BadUsage(f"secrets set: {name[:80]!r} is no name; use 1 to 64 lower-case letters, digits, - and _, no - or _ in front")
    if name == LOGINS and not options.keyring:
        raise BadUsage(f"secrets set: {name!r} is the folder of what auth login keeps; use another name, or --keyring")
    value = _value(name)
    if options.keyring:
        reference = _into_keyring(name, value)
    else:
        path = find_home(options.home) / FOLDER / name
        try:
            store_private(path, f"{value}\n")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CommandFailed(f"secrets set: {path} cannot be written ({reason}); make it writable, or use --home") from error
        reference = f"${{file:{FOLDER}/{name}}}"
    if options.json:
        emit_json({"name": name, "reference": reference})
        return OK
    emit(reference)
    note(f'stored; openclaw.yaml takes it as the reference above, e.g. secrets: {{entries: {{{name}: "{reference}"}}}}')
    return OK


def check_all(options: argparse.Namespace) -> int:
    """Follow all."""
    from openclaw_config.issues import placed
    from openclaw_config.source import Resolver

    path, layers, slots = _read(options)
    rows: list[dict[str, Any]] = []
    for slot in slots:
        # One each: what one names must not stand in the way of another.
        resolver = Resolver(path.name, path.parent, os.environ, layers.document)
        resolver.stands = layers.stands
        resolver.resolve(slot.value, slot.where)
        problem = next((f"{issue.found}; {issue.cure}" for issue in resolver.issues), None)
        rows.append({**_row(slot, layers), "ok": problem is None, "problem": problem})
    failed = [row for row in rows if not row["ok"]]
    if options.json:
        emit_json({"ok": not failed, "secrets": rows})
    else:
        for row in rows:
            word = paint_out("ok", GREEN) if row["ok"] else paint_out("fails", RED)
            place = "" if row["ok"] else f": {placed(row['file'], row['line'], 0)}: {row['problem']}"
            emit(f"{word}  {row['key']}{place}")
        emit(f"{len(rows)} secrets, {len(failed)} fail" if rows else f"{path.name} has no secrets")
    return FAILED if failed else OK


def _read(options: argparse.Namespace) -> tuple[Path, Layered, list[Slot]]:
    from openclaw_config.home import config_path, find_home
    from openclaw_config.inventory import inventory
    from openclaw_config.issues import ConfigError
    from openclaw_config.layers import read_layers

    path = config_path(find_home(options.home))
    try:
        layers = read_layers(path, os.environ)
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error
    return path, layers, inventory(layers.document)


def _row(slot: Slot, layers: Layered) -> dict[str, Any]:
    file, line, _ = layers.stands(slot.where)
    row = {"key": slot.key, "kind": slot.kind, "file": file, "line": line, "usedBy": list(slot.used_by)}
    return row if slot.name is None else {**row, "name": slot.name}


def _value(name: str) -> str:
    from openclaw_config.references import LONGEST_SECRET

    if sys.stdin.isatty():
        value = getpass.getpass(f"{name} (not shown): ")
    else:
        try:
            value = sys.stdin.read(LONGEST_SECRET + 1)
            # Where the locale is C, what is no text comes in as surrogates.
            value.encode()
        except UnicodeError:
            raise CommandFailed("secrets set: what came on stdin is not UTF-8 text; encode it, e.g. with base64") from None
    if len(value.encode("utf-8", "surrogatepass")) > LONGEST_SECRET:
        raise CommandFailed(f"secrets set: the value is longer than {LONGEST_SECRET} bytes; store it as a file of its own")
    value = value.strip()
    if not value:
        raise CommandFailed("secrets set: there is no value; give it on stdin, or type it")
    if "\0" in value:
        raise CommandFailed("secrets set: it holds a NUL character; encode it, e.g. with base64")
    return value


def _into_keyring(name: str, value: str) -> str:
    from openclaw_config.keyrings import SERVICE, KeyringFailed, write_keyring

    try:
        write_keyring(SERVICE, name, value)
    except KeyringFailed as error:
        raise CommandFailed(f"secrets set: {error.found}; {error.cure}") from error
    return f"${{keyring:{SERVICE}/{name}}}"
