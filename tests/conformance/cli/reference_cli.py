"""The reference's command line on the pinned Node, in a home of its own, pointed at one of our gateways."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.requirements import find_node, find_reference_cli

SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one command printed and how it ended."""

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed for programs.

        Raises:
            AssertionError: it failed, or printed something else.
        """
        assert self.status == 0, self
        try:
            return json.loads(self.out)
        except ValueError:
            raise AssertionError(f"no JSON: {self}") from None

    def lines(self) -> list[Any]:
        """The lines it printed for programs, each of them JSON."""
        assert self.status == 0, self
        return [json.loads(line) for line in self.out.splitlines()]

    def text(self) -> str:
        """What it printed for people; it has to have succeeded."""
        assert self.status == 0, self
        return self.out


class ReferenceCli:
    """Runs commands; any number at the same time."""

    def __init__(self, home: Path, url: str, token: str) -> None:
        self._home = home
        settings = home / ".openclaw" / "openclaw.json"
        settings.parent.mkdir(parents=True)
        remote = {"url": url, "token": token}
        settings.write_text(json.dumps({"gateway": {"mode": "remote", "remote": remote}}), encoding="utf-8")
        settings.chmod(0o600)

    async def run(self, *arguments: str, seconds: float = SECONDS) -> Outcome:
        """Run one command to its end.

        Raises:
            AssertionError: it did not end in time.
        """
        process = await asyncio.create_subprocess_exec(
            str(find_node()),
            str(find_reference_cli()),
            *arguments,
            env=self._environment(),
            cwd=self._home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate()
        except TimeoutError:
            raise AssertionError(f"openclaw {' '.join(arguments)} did not end in {seconds} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        assert process.returncode is not None
        return Outcome(arguments, process.returncode, out.decode(), err.decode())

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """Call a method as `gateway call` does."""
        return (await self.run("gateway", "call", method, "--params", json.dumps(params), "--json")).json()

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(find_node().parent), os.environ.get("PATH", os.defpath)])
        # Its own log and caches lie below TMPDIR.
        return {"HOME": str(self._home), "PATH": path, "TMPDIR": str(self._home), "NO_COLOR": "1", "LANG": "C.UTF-8"}
