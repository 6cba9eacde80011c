"""`openclaw-kernel devices`: which devices may connect."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openclaw_kernel.cli.errors import BadUsage, CommandFailed, unknown_shape
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import duration, emit, emit_json, note, one_line, table

if TYPE_CHECKING:
    from openclaw_kernel.cli.client import Client

_SHORT_ID = 12
_DEVICE_HELP = "the device's id, or as much of it as is unique"
_ROLE_HELP = "which of its roles; needed where it has several"

Row = Mapping[str, Any]


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("devices", "decide which devices may connect", run=list_all, asks_gateway=True)
    group.add("list", "list the devices that wait for approval and those that are approved", run=list_all, asks_gateway=True)
    approve = group.add("approve", "let a device in as it asked", run=approve_one, asks_gateway=True)
    approve.add_argument("request", metavar="REQUEST", nargs="?", help="the request's id, or as much of it as is unique")
    approve.add_argument("--latest", action="store_true", help="the newest request", default=False)
    reject = group.add("reject", "forget a request; the device may ask again", run=reject_one, asks_gateway=True)
    reject.add_argument("request", metavar="REQUEST", help="the request's id, or as much of it as is unique")
    details = "The device is disconnected at once, and comes back only when its next request is approved."
    remove = group.add("remove", "take a device's approval away", run=remove_one, asks_gateway=True, details=details)
    remove.add_argument("device", metavar="DEVICE", help=_DEVICE_HELP)
    rename = group.add("rename", "call a device by a name of your own", run=rename_one, asks_gateway=True)
    rename.add_argument("device", metavar="DEVICE", help=_DEVICE_HELP)
    rename.add_argument("label", metavar="NAME", help="the name, 64 characters at most")
    details = "The device is disconnected at once, is told its new token when it comes back, and loses the old one when it shows the new."
    rotate = group.add("rotate", "give a device a new token", run=rotate_one, asks_gateway=True, details=details)
    rotate.add_argument("device", metavar="DEVICE", help=_DEVICE_HELP)
    rotate.add_argument("--role", help=_ROLE_HELP, default=None)
    rotate.add_argument(
        "--scope", action="append", dest="scopes", metavar="SCOPE", default=None, help="what the token is good for; may be given again"
    )
    details = "The device is disconnected at once; it gets the role back only when a request of it is approved."
    revoke = group.add("revoke", "take a role and its token away from a device", run=revoke_one, asks_gateway=True, details=details)
    revoke.add_argument("device", metavar="DEVICE", help=_DEVICE_HELP)
    revoke.add_argument("--role", help=_ROLE_HELP, default=None)


def list_all(options: argparse.Namespace) -> int:
    """Show both lists."""
    with _connected(options) as client:
        found = client.request("device.pair.list", {})
    if options.json:
        emit_json(found)
        return OK
    try:
        _show(found["pending"], found["paired"])
    except KeyError as missing:
        raise unknown_shape("device.pair.list", missing) from missing
    return OK


def approve_one(options: argparse.Namespace) -> int:
    """Approve."""
    wanted: str | None = getattr(options, "request", None)
    if (wanted is None) is not options.latest:
        raise BadUsage("devices approve: give the id of a request, or --latest; devices list shows them")
    with _connected(options) as client:
        waiting = _rows(client, "pending")
        if wanted is None:
            if not waiting:
                raise CommandFailed("devices approve: no device waits for approval; let it connect, then try again")
            row = max(waiting, key=lambda row: (row.get("ts", 0), str(row.get("requestId"))))
        else:
            row = _one(waiting, "requestId", wanted, "devices approve", "request")
        result = client.request("device.pair.approve", {"requestId": row["requestId"]})
    if options.json:
        emit_json(result)
        return OK
    emit(f"approved: {_name(row)} as {row.get('role', 'operator')}, with {_words(row.get('scopes')) or 'no scopes'}")
    return OK


def reject_one(options: argparse.Namespace) -> int:
    """Reject."""
    with _connected(options) as client:
        row = _one(_rows(client, "pending"), "requestId", options.request, "devices reject", "request")
        result = client.request("device.pair.reject", {"requestId": row["requestId"]})
    if options.json:
        emit_json(result)
        return OK
    emit(f"rejected: {_name(row)}")
    return OK


def remove_one(options: argparse.Namespace) -> int:
    """Remove."""
    with _connected(options) as client:
        row = _one(_rows(client, "paired"), "deviceId", options.device, "devices remove", "device")
        result = client.request("device.pair.remove", {"deviceId": row["deviceId"]})
    if options.json:
        emit_json(result)
        return OK
    emit(f"removed: {_name(row)}")
    return OK


def rename_one(options: argparse.Namespace) -> int:
    """Rename."""
    with _connected(options) as client:
        row = _one(_rows(client, "paired"), "deviceId", options.device, "devices rename", "device")
        result = client.request("device.pair.rename", {"deviceId": row["deviceId"], "label": options.label})
    if options.json:
        emit_json(result)
        return OK
    emit(f"renamed: {_name(row)} is now {one_line(str(result.get('label', options.label)))}")
    return OK


def rotate_one(options: argparse.Namespace) -> int:
    """Rotate."""
    with _connected(options) as client:
        row = _one(_rows(client, "paired"), "deviceId", options.device, "devices rotate", "device")
        params = {"deviceId": row["deviceId"], "role": _role(row, options.role, "devices rotate")}
        if options.scopes:
            params["scopes"] = [scope if scope.startswith("operator.") else f"operator.{scope}" for scope in options.scopes]
        result = client.request("device.token.rotate", params)
    if options.json:
        emit_json(result)
        return OK
    emit(f"rotated: {_name(row)} as {params['role']}, with {_words(result.get('scopes')) or 'no scopes'}")
    note("it is told the new token when it connects again; the old one opens until then")
    return OK


def revoke_one(options: argparse.Namespace) -> int:
    """Revoke."""
    with _connected(options) as client:
        row = _one(_rows(client, "paired"), "deviceId", options.device, "devices revoke", "device")
        role = _role(row, options.role, "devices revoke")
        result = client.request("device.token.revoke", {"deviceId": row["deviceId"], "role": role})
    if options.json:
        emit_json(result)
        return OK
    emit(f"revoked: {_name(row)} as {role}")
    return OK


def _role(row: Row, wanted: str | None, command: str) -> str:
    roles = [str(role) for role in row.get("roles") or ()]
    if wanted is not None:
        return wanted
    if len(roles) != 1:
        found = ", ".join(roles) or "none"
        raise BadUsage(f"{command}: the device has these roles: {found}; say which with --role")
    return roles[0]


def _connected(options: argparse.Namespace) -> Client:
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    return Client(find_target(options))


def _rows(client: Client, name: str) -> Sequence[Row]:
    try:
        rows: Sequence[Row] = client.request("device.pair.list", {})[name]
    except KeyError as missing:
        raise unknown_shape("device.pair.list", missing) from missing
    return rows


def _one(rows: Sequence[Row], key: str, wanted: str, command: str, what: str) -> Row:
    found = [row for row in rows if str(row.get(key, "")).startswith(wanted)] if wanted else []
    exact = [row for row in found if row[key] == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        ids = ", ".join(str(row[key])[: len(wanted) + _SHORT_ID] for row in found[:5])
        raise CommandFailed(f"{command}: {wanted!r} fits {len(found)} {what}s ({ids}); give more of the id")
    raise CommandFailed(f"{command}: there is no {what} {wanted!r}; devices list shows them")


def _show(pending: Sequence[Row], paired: Sequence[Row]) -> None:
    now_ms = time.time() * 1000
    if pending:
        emit(table([_pending(row, now_ms) for row in pending], head=("WAITING", "DEVICE", "FROM", "ROLE", "SCOPES", "WHY", "AGE")))
        note("approve one with: openclaw-kernel devices approve REQUEST")
    if paired:
        emit(table([_paired(row, now_ms) for row in paired], head=("APPROVED", "DEVICE", "ROLES", "SCOPES", "SINCE", "")))
    if not pending and not paired:
        emit("no device waits, and none is approved")


def _pending(row: Row, now_ms: float) -> tuple[object, ...]:
    told = (row.get("remoteIp", ""), row.get("role", ""), _words(row.get("scopes")), row.get("reason", ""))
    return (row["requestId"], _name(row), *told, duration(now_ms - row["ts"]))


def _paired(row: Row, now_ms: float) -> tuple[object, ...]:
    short = str(row["deviceId"])[:_SHORT_ID]
    connected = "connected" if row.get("connected") else ""
    return (short, _name(row), _words(row.get("roles")), _words(row.get("scopes")), duration(now_ms - row["approvedAtMs"]), connected)


def _name(row: Row) -> str:
    parts = (row.get("label") or row.get("displayName"), row.get("clientId"), row.get("platform"))
    return one_line(f"{' '.join(str(part) for part in parts if part)} ({str(row['deviceId'])[:_SHORT_ID]})")


def _words(names: Any) -> str:
    return ", ".join(str(name).removeprefix("operator.") for name in names or ())
