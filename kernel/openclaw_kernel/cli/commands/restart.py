"""`openclaw-kernel restart`: ask the running gateway to begin anew, and wait until it has."""

from __future__ import annotations

import argparse
import time
import uuid
from typing import Any

from openclaw_kernel.cli.errors import BadUsage, NotNow, Refused, Unreachable
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json

_PAUSE_SECONDS = 0.1
_TIMEOUT_SECONDS = 60.0


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
Answers that are being written may end first; what waits is answered after the start. With --session that conversation is told
once it is done. Ends with 0 when another boot id answers, with 69 when none does in time, with 1 where the gateway refuses,
e.g. because openclaw.yaml has a fault."""
    parser = commands.add("restart", "restart the running gateway in place", run=run, asks_gateway=True, details=details)
    parser.add_argument("--reason", metavar="TEXT", help="why, for the log and for who is told", default="")
    parser.add_argument("--note", metavar="TEXT", help="what the conversation is told beside that", default="")
    parser.add_argument("--session", metavar="KEY", help="the conversation that is told", default=None)
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="how long to wait (default: 60)", default=_TIMEOUT_SECONDS)
    parser.add_argument("--no-wait", action="store_true", help="end as soon as the restart is accepted", default=False)


def run(options: argparse.Namespace) -> int:
    """Ask, then wait."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    if not options.timeout > 0:
        raise BadUsage(f"--timeout: found {options.timeout:g}; give a number of seconds over 0")
    asked = time.monotonic()
    with Client(find_target(options)) as client:
        before = _boot_id(client)
        wanted = {"reason": options.reason, "note": options.note, "sessionKey": options.session, "idempotencyKey": str(uuid.uuid4())}
        answer = client.request("gateway.restart.request", {name: value for name, value in wanted.items() if value})
    after = None if options.no_wait else _wait(options, before, asked + options.timeout)
    if options.json:
        emit_json({**answer, "bootId": after, "previousBootId": before, "seconds": round(time.monotonic() - asked, 3)})
    elif after is None:
        emit("the gateway restarts")
    else:
        emit(f"restarted in {time.monotonic() - asked:.1f} s")
    return OK


def _wait(options: argparse.Namespace, before: str, deadline: float) -> str:
    """Return the boot id of the next gateway; raise `Unreachable` at the deadline."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    last = "it still runs as before"
    while time.monotonic() < deadline:
        try:
            # Looked up each time: the next process may listen elsewhere.
            with Client(find_target(options)) as client:
                found = _boot_id(client)
            if found != before:
                return found
        except (NotNow, Unreachable) as error:
            last = str(error)
        except Refused as error:
            if not error.retryable:
                raise
            last = str(error)
        time.sleep(_PAUSE_SECONDS)
    raise Unreachable(f"the gateway did not come back within {options.timeout:g} s ({last}); see openclaw-kernel logs")


def _boot_id(client: Any) -> str:
    return str(client.hello.get("server", {}).get("bootId", ""))
