"""A systemd of the test's own: the user's manager, in a mount namespace in which the machine looks booted with systemd."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.requirements import find_systemd

_START = "mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && exec {systemd} --user --log-target=console"
_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class UserSystemd:
    """A running manager. `home` is the user's."""

    pid: int
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to reach it, and nothing of ours."""
        path = os.environ.get("PATH", os.defpath)
        return {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run"), "PATH": path, "LANG": "C.UTF-8"}

    async def run(self, *command: str) -> Outcome:
        """Run a command where the manager is."""
        process = await asyncio.create_subprocess_exec(
            str(shutil.which("nsenter")), f"--target={self.pid}", "--mount", "--", *command,
            env=self.environment, cwd=self.home,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(_SECONDS):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def user_systemd(home: Path) -> AsyncIterator[UserSystemd]:
    """Run a manager for a user whose home this folder is; at the end all that it started is gone."""
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    with (home / "systemd.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "unshare", "--mount", "--propagation=private", "sh", "-c", _START.format(systemd=find_systemd()),
            env={"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PATH": os.defpath},
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(_SECONDS):
            while not (runtime / "systemd" / "private").exists():
                assert process.returncode is None, (home / "systemd.log").read_text()
                await asyncio.sleep(0.05)
        yield UserSystemd(process.pid, home)
    finally:
        if process.returncode is None:
            # What it stops in order on SIGTERM are its units.
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
