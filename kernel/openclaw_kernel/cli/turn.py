"""One turn of a conversation: a message sent, its answer followed to the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, Final, Self

from openclaw_kernel.cli.client import Client
from openclaw_kernel.cli.terminal import DIM, RED, one_line, paint, printable

_SILENT_TICKS: Final = 2.5
_ENDS: Final = frozenset({"final", "aborted", "error"})


class Interrupts:
    """While entered, the first Ctrl+C is noted instead of raised, and makes the descriptor `wake` readable."""

    def __init__(self) -> None:
        self.count = 0
        self.wake = -1
        self._write = -1
        self._before: Any = None

    def __enter__(self) -> Self:
        self.wake, self._write = os.pipe()
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        os.close(self.wake)
        os.close(self._write)

    def take(self) -> None:
        """It was seen: `wake` is no longer readable."""
        os.read(self.wake, 1)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            # Whoever presses it again does not want to wait for the gateway.
            raise KeyboardInterrupt
        os.write(self._write, b"!")


class Screen:
    """Shows an answer as it grows: its text on stdout, what tools do on stderr."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._shown = ""
        self._open_line = False
        self._cleaned = printable if sys.stdout.isatty() else str

    def text(self, whole: str) -> None:
        """Show the answer so far: what is new of it, or all where it began anew."""
        if self._silent or whole == self._shown:
            return
        if whole.startswith(self._shown):
            fresh = whole[len(self._shown) :]
        elif self._shown.strip() == whole.strip():
            return
        else:
            self.end_line()
            fresh = whole
        self._shown = whole
        self._write(fresh)

    def tool(self, data: Mapping[str, Any]) -> None:
        """Show a step of a tool."""
        name = one_line(str(data.get("name", "tool")), 40)
        if data.get("phase") == "start":
            arguments = data.get("args") or {}
            shown = " ".join(f"{key}={value!r}" for key, value in arguments.items()) if isinstance(arguments, dict) else ""
            self.aside(f"> {name} {one_line(shown, 120)}".rstrip())
        elif data.get("phase") == "result" and data.get("isError"):
            self.aside(f"! {name}: {one_line(str(data.get('result', 'failed')), 120)}", RED)

    def aside(self, text: str, colour: str = DIM) -> None:
        """Show a line beside the answer."""
        if sys.stdout.isatty():
            self.end_line()
        sys.stderr.write(f"{paint(text, colour, sys.stderr)}\n")
        sys.stderr.flush()

    def end_line(self) -> None:
        """Begin a new line where text stands on this one."""
        if self._open_line:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(self._cleaned(text))
            sys.stdout.flush()
            self._open_line = not text.endswith("\n")


class Turn:
    """What became of a message. `state` is final, aborted or error; `error` says why in the last case."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.state = ""
        self.text = ""
        self.error = ""
        self.event: Mapping[str, Any] = {}

    def to_json(self) -> dict[str, Any]:
        """What programs get."""
        kept = {key: self.event[key] for key in ("sessionKey", "agentId", "message", "stopReason", "errorKind") if key in self.event}
        return {"runId": self.run_id, "state": self.state, "text": self.text, **kept}


def take_turn(client: Client, message: str, *, session: str, agent: str | None, screen: Screen, interrupts: Interrupts) -> Turn:
    """Send a message and follow its answer; the first Ctrl+C stops it, the second one stops waiting for it.

    Raises:
        Refused: the gateway did not take the message.
        NotNow: the connection ended meanwhile.
        KeyboardInterrupt: Ctrl+C came twice.
    """
    turn = Turn(f"cli-{os.urandom(12).hex()}")
    params = {"sessionKey": session, "message": message, "idempotencyKey": turn.run_id}
    taken = client.request("chat.send", params if agent is None else {**params, "agentId": agent})
    if "aborted" in taken:
        # A stop word: it is answered at once, and is no turn.
        turn.state, turn.text = "final", "Stopped." if taken["aborted"] else "Nothing is running."
        screen.text(turn.text)
        screen.end_line()
        return turn
    silence = client.hello.get("policy", {}).get("tickIntervalMs", 30_000) / 1000 * _SILENT_TICKS
    while not turn.state:
        event = client.next_event(silence, wake=interrupts.wake)
        if event is not None:
            _follow(turn, event, screen)
            continue
        interrupts.take()
        client.request("chat.abort", {"sessionKey": session, "runId": turn.run_id})
    screen.end_line()
    return turn


def _follow(turn: Turn, event: Mapping[str, Any], screen: Screen) -> None:
    payload = event.get("payload")
    if not isinstance(payload, dict) or payload.get("runId") != turn.run_id:
        return
    if event.get("event") == "agent" and payload.get("stream") == "tool":
        screen.tool(payload.get("data") or {})
    if event.get("event") != "chat":
        return
    text = text_of(payload.get("message"))
    if text:
        turn.text = text
        screen.text(text)
    state = str(payload.get("state"))
    if state in _ENDS:
        turn.event = payload
        turn.error = one_line(str(payload.get("errorMessage") or ""), 2_000)
        turn.state = state


def text_of(message: Any) -> str:
    """The text of a message of the wire."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict) and part.get("type") == "text")
