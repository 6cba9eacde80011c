"""`openclaw-kernel audit list|verify|export`: what was done and refused, and whether that log is still what was written.

`verify` and `export` read the files themselves where no gateway runs on the state folder.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.cli.commands.why import clock
from openclaw_kernel.cli.errors import BadUsage, CommandFailed, Unreachable, unknown_shape
from openclaw_kernel.cli.exits import FAILED, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, harmless, note, one_line, table

if TYPE_CHECKING:
    from openclaw_kernel.cli.client import Client

MOST: Final = 500
DATABASE: Final = "state.sqlite3"
_VERIFY_SECONDS: Final = 3_600.0

Row = Mapping[str, Any]


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("audit", "see what was done and refused, by whom and from where", run=list_rows, asks_gateway=True)
    listing = group.add("list", "list it, the newest first", run=list_rows, asks_gateway=True)
    _add_filters(listing)
    listing.add_argument("-n", "--limit", metavar="N", type=_count, help=f"how many, at most {MOST} (default: 50)", default=50)
    details = "Exit code 1 where it is not what was written. It works on the files where no gateway runs."
    checking = group.add(
        "verify", "check that no row was changed, removed, reordered or cut off", run=verify, asks_gateway=True, details=details
    )
    anchor = "a row and its hash, as an earlier check printed them: is it still there?"
    checking.add_argument("--anchor", metavar="ROW:HASH", type=_anchor, help=anchor, default=None)
    details = "One JSON object a line, oldest first, as it was hashed. Nothing is ever deleted from the log."
    export = group.add("export", "write all of it as JSON lines", run=export_rows, asks_gateway=True, details=details)
    export.add_argument("-o", "--output", metavar="FILE", help="a file that is not there yet (default: stdout)", default=None)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--action", metavar="ACTION", help="one action (device.approved), or what stands before its dot", default=None)
    parser.add_argument("--outcome", choices=("done", "refused"), help="only what was done, or only what was refused", default=None)
    parser.add_argument("--actor", metavar="ACTOR", help="who did it, e.g. token or device:ID", default=None)
    parser.add_argument("--subject", metavar="SUBJECT", help="what it was done to, e.g. device:ID or plugin:ID", default=None)
    parser.add_argument("--trace", metavar="ID", help="the trace that it belongs to", default=None)


def list_rows(options: argparse.Namespace) -> int:
    """Show a table."""
    names = {"action": "action", "outcome": "outcome", "actor": "actor", "subject": "subject", "trace": "traceId"}
    params = {wire: value for name, wire in names.items() if (value := getattr(options, name, None)) is not None}
    limit = getattr(options, "limit", 50)
    rows: list[Row] = []
    with _connected(options) as client:
        cursor: dict[str, Any] = {}
        while len(rows) < limit:
            answer = client.request("audit.log.list", {**params, **cursor, "limit": limit - len(rows)})
            rows += _rows(answer)
            if "cursor" not in answer:
                break
            cursor = {"cursor": answer["cursor"]}
    if options.json:
        emit_json({"rows": rows})
        return OK
    if not rows:
        emit("nothing of that kind is recorded")
        return OK
    try:
        emit(table(map(_line, harmless(rows)), head=("ROW", "TIME", "ACTION", "OUTCOME", "BY", "FROM", "ON", "MORE")))
    except KeyError as missing:
        raise unknown_shape("audit.log.list", missing) from missing
    return OK


def verify(options: argparse.Namespace) -> int:
    """Check it; the exit code tells."""
    found = _verdict(options, getattr(options, "anchor", None))
    if options.json:
        emit_json(found)
        return OK if found["ok"] else FAILED
    try:
        if not found["ok"]:
            raise CommandFailed(f"audit verify: {found['fault']['message']}")
        for row in found["brokenRows"]:
            note(f"row {row} says that the log was not as it was left: what is before it may not be what was written")
        emit(f"sound: {found['rows']} rows, {found['checkpoints']} checkpoints, signed up to row {found['signedRow']}")
        emit(f"newest row  {found['rows']}:{found['head']}")
        emit(f"signed by   {found['key'] or 'nobody yet'}")
    except KeyError as missing:
        raise unknown_shape("audit.log.verify", missing) from missing
    return OK


def _verdict(options: argparse.Namespace, anchor: tuple[int, str] | None) -> dict[str, Any]:
    client = _client_or_none(options)
    rows: Iterable[Row] = ()
    if client is None:
        found = _verify_files(options)
        rows = (row for row in _rows_of_files(options) if anchor and row["sequence"] == anchor[0])
    else:
        with client:
            found = client.request("audit.log.verify", {}, seconds=_VERIFY_SECONDS)
            if anchor:
                rows = _rows(client.request("audit.log.list", {"cursor": anchor[0] - 1, "order": "oldest", "limit": 1}))
    if anchor and found["ok"] and [(row["sequence"], row["hash"]) for row in rows] != [anchor]:
        text = f"row {anchor[0]} is not the one of the anchor: this is another log, or one that was written anew"
        found |= {"ok": False, "fault": {"kind": "rewritten", "row": anchor[0], "message": text}}
    return found


def export_rows(options: argparse.Namespace) -> int:
    """Write every row."""
    client = _client_or_none(options)
    rows = _rows_of_files(options) if client is None else _ask_for_all(client)
    output = getattr(options, "output", None)
    if output is None:
        for row in rows:
            emit(_json_line(row))
        return OK
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            count = sum(1 for row in rows if file.write(f"{_json_line(row)}\n"))
    except FileExistsError:
        raise BadUsage(f"audit export: {output} is there already; name another file") from None
    except OSError as error:
        raise CommandFailed(f"audit export: {output} cannot be written ({(error.strerror or str(error)).lower()})") from error
    note(f"{count} rows are in {output}")
    return OK


def _ask_for_all(client: Client) -> Iterator[Row]:
    with client:
        cursor: dict[str, Any] = {"cursor": 0}
        while cursor:
            answer = client.request("audit.log.list", {**cursor, "order": "oldest", "limit": MOST})
            yield from _rows(answer)
            cursor = {"cursor": answer["cursor"]} if "cursor" in answer else {}


def _client_or_none(options: argparse.Namespace) -> Client | None:
    """A connection to the gateway; None where the state folder is meant and nobody runs there: then its files change no more."""
    from openclaw_config.home import find_home
    from openclaw_kernel.cli.target import running_at

    if options.url is None and running_at(find_home(options.home)) is None:
        return None
    try:
        return _connected(options)
    except Unreachable:
        if options.url is not None:
            raise
        return None


def _verify_files(options: argparse.Namespace) -> dict[str, Any]:
    from openclaw_kernel.audit.verifying import verify_files

    with _readable_files(options) as home:
        return verify_files(home / DATABASE, home)


def _rows_of_files(options: argparse.Namespace) -> Iterator[Row]:
    from openclaw_kernel.audit.verifying import rows_of

    with _readable_files(options) as home:
        for row in rows_of(home / DATABASE):
            yield row.to_json()


@contextmanager
def _readable_files(options: argparse.Namespace) -> Iterator[Path]:
    import sqlite3

    from openclaw_config.home import find_home

    home = find_home(options.home)
    try:
        yield home
    except FileNotFoundError as error:
        raise Unreachable(f"{home}: no gateway runs there, and it has no {DATABASE}; name the state folder with --home") from error
    except OSError as error:
        raise CommandFailed(f"{error.filename or home}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except (sqlite3.Error, ValueError) as error:
        raise CommandFailed(f"{home / DATABASE}: the audit log cannot be read: {error}") from error


def _connected(options: argparse.Namespace) -> Client:
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    return Client(find_target(options))


def _rows(answer: Mapping[str, Any]) -> list[Row]:
    try:
        rows: list[Row] = answer["rows"]
    except KeyError as missing:
        raise unknown_shape("audit.log.list", missing) from missing
    return rows


def _line(row: Row) -> tuple[object, ...]:
    details = ", ".join(f"{name} {value if isinstance(value, str | int) else json.dumps(value)}" for name, value in row["details"].items())
    more = "; ".join(text for text in (row["reason"], details) if text)
    place = f"{row['surface']} {row['address'] or ''}".strip()
    return (
        *(row["sequence"], clock(row["timeMs"])[:19], row["action"], row["outcome"]),
        *(one_line(row["actor"], 32), place, one_line(row["subject"] or "", 48), one_line(more, 100)),
    )


def _json_line(row: Row) -> str:
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    return json.dumps(row, ensure_ascii=ascii_only, separators=(",", ":"), sort_keys=True)


def _anchor(text: str) -> tuple[int, str]:
    row, _, digest = text.partition(":")
    if not row.isdigit() or int(row) < 1 or re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        raise argparse.ArgumentTypeError(f"found {text[:80]!r}; give a row's number and its hash, e.g. 12:9f86d0...")
    return int(row), digest


def _count(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"found {text!r}; give a number from 1 to {MOST}")
    return number
