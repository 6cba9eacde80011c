"""Talking to an agent from a terminal, or from a script."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Final

from openclaw_kernel.cli.client import Client
from openclaw_kernel.cli.errors import CommandFailed, NotNow, Refused
from openclaw_kernel.cli.exits import FAILED, INTERRUPTED, OK
from openclaw_kernel.cli.target import Target
from openclaw_kernel.cli.terminal import DIM, RED, emit_json, note
from openclaw_kernel.cli.turn import Interrupts, Screen, Turn, take_turn

PROMPT: Final = "> "


def ask(target: Target, message: str, *, session: str | None, agent: str | None, as_json: bool) -> int:
    """Send one message and print its answer; return the exit code."""
    with Client(target) as client, Interrupts() as interrupts:
        key = _session_key(client, session, agent)
        turn = take_turn(client, message, session=key, agent=agent, screen=Screen(silent=as_json), interrupts=interrupts)
        stopped_here = interrupts.count > 0
    if turn.state == "error":
        raise _failed(turn)
    if as_json:
        emit_json(turn.to_json())
    elif turn.state == "aborted":
        note("stopped")
    if turn.state == "aborted":
        return INTERRUPTED if stopped_here else FAILED
    return OK


def converse(target: Target, *, session: str | None, agent: str | None) -> int:
    """Read messages line by line until the end of the input; return the exit code: that of the last turn that failed."""
    client = Client(target)
    key = _session_key(client, session, agent)
    if sys.stdin.isatty():
        # Only imported for its effect: input() then edits and remembers lines.
        import readline  # noqa: F401 - see above

        note(f"{key} on {target.url}; Ctrl+C stops an answer, Ctrl+D ends, /help lists the commands")
    status = OK
    try:
        while (line := _read_line(client)) is not None:
            if not line.strip():
                continue
            client = _still_open(client, target)
            status = _converse_once(client, line, key, agent) or status
    finally:
        client.close()
    return status


def _converse_once(client: Client, line: str, session: str, agent: str | None) -> int:
    try:
        with Interrupts() as interrupts:
            turn = take_turn(client, line, session=session, agent=agent, screen=Screen(), interrupts=interrupts)
    except (Refused, NotNow) as error:
        note(str(error), RED)
        client.lost = isinstance(error, NotNow)
        return error.status
    if turn.state == "error":
        note(str(_failed(turn)), RED)
        return FAILED
    if turn.state == "aborted":
        note("stopped", DIM)
    return OK


def _session_key(client: Client, session: str | None, agent: str | None) -> str:
    if session is not None:
        return session
    defaults = client.hello.get("snapshot", {}).get("sessionDefaults", {})
    if agent is not None:
        return f"agent:{agent}:{defaults.get('mainKey', 'main')}"
    return str(defaults.get("mainSessionKey", "main"))


def _failed(turn: Turn) -> CommandFailed:
    return CommandFailed(f"the turn failed: {turn.error}" if turn.error else "the turn failed; openclaw-kernel logs tells more")


def _read_line(client: Client) -> str | None:
    """The next line; None at the end of the input. Meanwhile the gateway's pings are answered."""
    read, write = os.pipe()
    keeper = threading.Thread(target=_keep, args=(client, read), name="keep alive", daemon=True)
    keeper.start()
    try:
        while True:
            try:
                return input(PROMPT if sys.stdin.isatty() else "")
            except KeyboardInterrupt:
                sys.stderr.write("\n")
    except EOFError:
        if sys.stdin.isatty():
            sys.stderr.write("\n")
        return None
    finally:
        os.close(write)
        keeper.join()
        os.close(read)


def _keep(client: Client, wake: int) -> None:
    # Ctrl+C has to interrupt the thread that reads the line.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        client.keep_alive(wake)
    except NotNow:
        # Noticed with the next message, which connects anew.
        client.lost = True


def _still_open(client: Client, target: Target) -> Client:
    if not client.lost:
        return client
    client.close()
    note("the connection was lost meanwhile; connecting again")
    return Client(target)
