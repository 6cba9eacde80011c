"""A first answer, through the same doors as any: a gateway in a process of its own, and the command line's chat."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

_READY_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 110.0
_STOP_SECONDS: Final = 30.0
_SHOWN: Final = 600


class NoReply(Exception):
    """Nobody answered; the message says who did not, and why."""


def first_reply(home: Path, message: str) -> str:
    """Ask the default agent; raise `NoReply`."""
    with _gateway(home):
        session = "agent:main:onboarding"
        command = _command(home, "chat", f"--message={message}", "--session", session, "--json")
        try:
            outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            raise NoReply(f"the model has not answered within {_ANSWER_SECONDS:.0f} s; see openclaw-kernel logs") from None
    if outcome.returncode != 0:
        raise NoReply(_told(outcome.stderr) or f"chat ended with {outcome.returncode}")
    try:
        text = str(json.loads(outcome.stdout)["text"]).strip()
    except (ValueError, KeyError, TypeError):
        raise NoReply(f"chat printed what cannot be read: {outcome.stdout[:_SHOWN]!r}") from None
    if not text:
        raise NoReply("the model's answer is empty; choose another model")
    return text


def _command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "openclaw_kernel", "--home", str(home), *words]


@contextmanager
def _gateway(home: Path) -> Iterator[None]:
    """A gateway on this folder: the one that runs already, or one that ends with this."""
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            _command(home, "--json", "run"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )
        try:
            _wait_until_ready(process, stderr)
            yield
        finally:
            process.terminate()
            try:
                process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _wait_until_ready(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    descriptor = -1 if process.stdout is None else process.stdout.fileno()
    said, deadline = b"", time.monotonic() + _READY_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while b"\n" not in said:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise NoReply(f"the gateway was not ready within {_READY_SECONDS:.0f} s; see openclaw-kernel logs")
            chunk = os.read(descriptor, 65_536)
            if not chunk:
                process.wait(_STOP_SECONDS)
                stderr.seek(0)
                raise NoReply(_told(stderr.read().decode(errors="replace")) or f"the gateway ended with {process.returncode}")
            said += chunk


def _told(stderr: str) -> str:
    """What a command said of its failure, for people."""
    line = stderr.strip().splitlines()[-1] if stderr.strip() else ""
    try:
        return str(json.loads(line)["error"]["message"])[:_SHOWN]
    except (ValueError, KeyError, TypeError):
        return line[:_SHOWN]
