"""`openclaw-kernel dead list|show|retry|forget`: what could not be answered or delivered."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Mapping
from typing import Any, Final

from openclaw_kernel.cli.commands.why import clock, show
from openclaw_kernel.cli.errors import unknown_shape
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, harmless, note, one_line, table

MOST: Final = 500


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("dead", "look after what could not be answered or delivered", run=list_all, asks_gateway=True)
    listing = group.add("list", "list it, the newest first", run=list_all, asks_gateway=True)
    listing.add_argument(
        "--kind", choices=("message", "delivery"), help="only messages without an answer, or only deliveries", default=None
    )
    limit = f"how many, at most {MOST} (default: 100)"
    listing.add_argument("-n", "--limit", metavar="N", type=_count, help=limit, default=100)
    _add_one(group, "show", "tell all about one", show_one)
    details = "A delivery goes out behind what waits in its conversation; what may have arrived the first time may come twice."
    _add_one(group, "retry", "send a delivery again, or give a message one new turn", retry_one, details)
    details = "It leaves the list and cannot be retried; openclaw-kernel why still tells its way."
    _add_one(group, "forget", "take one off the list for good", forget_one, details)


def _add_one(group: Commands, name: str, summary: str, run: Any, details: str = "") -> None:
    parser = group.add(name, summary, run=run, asks_gateway=True, details=details)
    parser.add_argument("id", metavar="ID", help="its id, as dead list shows it, or any other that why takes")


def list_all(options: argparse.Namespace) -> int:
    """Show a table."""
    params = {"limit": getattr(options, "limit", 100)}
    kind = getattr(options, "kind", None)
    answer = _ask(options, "messages.dead.list", params if kind is None else {**params, "kind": kind})
    if options.json:
        emit_json(answer)
        return OK
    try:
        items = harmless(answer["items"])
        if not items:
            emit("nothing is dead")
            return OK
        rows = [
            (
                item["id"],
                item["kind"],
                clock(item["endedMs"])[:19],
                item["channel"],
                item["peer"],
                item["state"],
                one_line(item["reason"] or "", 80),
            )
            for item in items
        ]
        emit(table(rows, head=("ID", "KIND", "ENDED", "CHANNEL", "WITH", "STATE", "REASON")))
        if answer["total"] > len(items):
            note(f"{answer['total'] - len(items)} more; --limit shows them")
    except KeyError as missing:
        raise unknown_shape("messages.dead.list", missing) from missing
    return OK


def show_one(options: argparse.Namespace) -> int:
    """Show the way of one."""
    answer = _ask(options, "messages.dead.show", {"id": options.id})
    if options.json:
        emit_json(answer)
        return OK
    try:
        show(harmless(answer))
    except KeyError as missing:
        raise unknown_shape("messages.dead.show", missing) from missing
    return OK


def retry_one(options: argparse.Namespace) -> int:
    """Give one a second chance."""
    answer = _ask(options, "messages.dead.retry", {"id": options.id, "idempotencyKey": str(uuid.uuid4())})
    if options.json:
        emit_json(answer)
        return OK
    try:
        if not answer["changed"]:
            emit(f"{answer['kind']} {answer['id']} was retried before and is {answer['state']} now")
        elif answer["kind"] == "delivery":
            emit(f"delivery {answer['id']} goes out again; openclaw-kernel why {answer['id']} shows how")
        else:
            emit(f"message {answer['id']} gets a new turn, run {answer['runId']}; openclaw-kernel why {answer['id']} shows how it goes")
    except KeyError as missing:
        raise unknown_shape("messages.dead.retry", missing) from missing
    return OK


def forget_one(options: argparse.Namespace) -> int:
    """Take one off the list."""
    answer = _ask(options, "messages.dead.forget", {"id": options.id})
    if options.json:
        emit_json(answer)
        return OK
    try:
        emit(f"{answer['kind']} {answer['id']} {'is' if answer['changed'] else 'was already'} forgotten")
    except KeyError as missing:
        raise unknown_shape("messages.dead.forget", missing) from missing
    return OK


def _ask(options: argparse.Namespace, method: str, params: Mapping[str, Any]) -> Any:
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        return client.request(method, params)


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"found {text!r}; give a number from 1 to {MOST}")
    return number
