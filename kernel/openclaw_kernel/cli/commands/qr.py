"""`openclaw-kernel qr`: a setup code for a new device, to scan or to paste."""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import Any

from openclaw_kernel.cli.errors import unknown_shape
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, note


def add(commands: Commands) -> None:
    """Add the command."""
    details = (
        "The code pairs one device, once, within ten minutes: who has it is let in, so show it to nobody else. With full access the"
        " device may do everything; over an address that is not encrypted it gets limited access instead."
    )
    qr = commands.add("qr", "show a code that pairs a new device", run=run, asks_gateway=True, details=details)
    qr.add_argument("--access", choices=("full", "limited", "node"), default="full", help="what the device may do (default: full)")
    qr.add_argument("--public-url", metavar="URL", default=None, help="the address under which the device reaches the gateway")
    qr.add_argument("--code-only", action="store_true", default=False, help="print the code alone, without the picture")


def run(options: argparse.Namespace) -> int:
    """Ask for a code and show it."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    params: dict[str, Any] = {} if options.access == "full" else {"bootstrapProfile": options.access}
    if options.public_url is not None:
        params["publicUrl"] = options.public_url
    # Only a program has use for the picture as data.
    params["includeQr"] = bool(options.json)
    with Client(find_target(options)) as client:
        setup = client.request("device.pair.setupCode", params)
    if options.json:
        emit_json(setup)
        return OK
    try:
        _show(setup, code_only=options.code_only)
    except KeyError as missing:
        raise unknown_shape("device.pair.setupCode", missing) from missing
    return OK


def _show(setup: dict[str, Any], *, code_only: bool) -> None:
    code, left = setup["setupCode"], setup["expiresAtMs"] - time.time() * 1000
    if code_only:
        emit(code)
        return
    _draw(code)
    emit(code)
    note(f"for {setup['gatewayUrl']}, with {setup['access']} access; one device, once, within {math.ceil(left / 60_000)} min")
    if setup.get("accessDowngraded"):
        note("limited, for whoever is on the way there could read along; give an https address with --public-url")
    if setup["urlSource"] == "gateway.bind=loopback":
        note("only programs on this machine reach that address; give the one of your proxy with --public-url, or set gateway.bind to lan")


def _draw(code: str) -> None:
    # Imported here: the other commands do without.
    import segno

    segno.make(code, error="m").terminal(sys.stdout, compact=True)
