"""`openclaw-kernel logs`: the gateway's log, from the gateway, or from its file where none runs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from openclaw_kernel.cli.errors import Unreachable
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import DIM, RED, YELLOW, emit, note, paint_out, printable

POLL_SECONDS: Final = 0.5
MOST_LINES: Final = 5_000
MOST_BYTES: Final = 1_000_000
_COLOURS: Final = {"debug": DIM, "warning": YELLOW, "error": RED, "critical": RED}

Tail = Callable[[int | None, int], Mapping[str, Any]]
"""Reads lines: after a cursor, or the last so many. The result is that of `logs.tail`."""


def add(commands: Commands) -> None:
    """Add the command."""
    details = "Where no gateway answers, the log file in the state folder is read."
    parser = commands.add("logs", "show the gateway's log", run=run, asks_gateway=True, details=details)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines until Ctrl+C", default=False)
    parser.add_argument(
        "-n", "--lines", metavar="N", type=_count, help=f"how many lines to begin with, at most {MOST_LINES} (default: 100)", default=100
    )


def run(options: argparse.Namespace) -> int:
    """Show lines, and go on where asked."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    try:
        client = Client(find_target(options))
    except Unreachable as error:
        if options.url is not None:
            raise
        note(str(error))
        return _show(_file_tail(options.home), options)

    def ask(cursor: int | None, limit: int) -> Mapping[str, Any]:
        params = {"limit": limit, "maxBytes": MOST_BYTES}
        answer: Mapping[str, Any] = client.request("logs.tail", params if cursor is None else {**params, "cursor": cursor})
        return answer

    with client:
        return _show(ask, options)


def _show(tail: Tail, options: argparse.Namespace) -> int:
    page = tail(None, max(1, options.lines))
    _print(page["lines"][len(page["lines"]) - min(options.lines, len(page["lines"])) :], as_json=options.json)
    while options.follow:
        time.sleep(POLL_SECONDS)
        page = tail(page["cursor"], MOST_LINES)
        if page.get("reset"):
            note("the log file was rotated")
        _print(page["lines"], as_json=options.json)
    return OK


def _print(lines: list[str], *, as_json: bool) -> None:
    for line in lines:
        emit(line if as_json else _lay_out(line))
    sys.stdout.flush()


def _lay_out(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return printable(line)
    if not isinstance(record, dict):
        return printable(line)
    level = str(record.get("level", "info"))
    clock = str(record.get("time", ""))[:19].replace("T", " ")
    shown = "" if level == "info" else f"{level} "
    text = f"{clock} {shown}{record.get('subsystem', 'gateway')}: {record.get('message', '')}"
    if record.get("error"):
        text = f"{text}\n{record['error']}"
    return paint_out(printable(text), _COLOURS.get(level, ""))


def _file_tail(home: str | None) -> Tail:
    from openclaw_config.home import find_home
    from openclaw_kernel.logs import log_path, tail

    path = log_path(find_home(home))
    if not path.exists():
        raise Unreachable(f"{path}: there is no log yet; start the gateway with openclaw-kernel run")
    return lambda cursor, limit: tail(path, cursor=cursor, limit=limit, max_bytes=MOST_BYTES)


def _count(text: str) -> int:
    number = int(text) if text.isdigit() else -1
    if not 0 <= number <= MOST_LINES:
        raise argparse.ArgumentTypeError(f"found {text!r}; give a number from 0 to {MOST_LINES}")
    return number
