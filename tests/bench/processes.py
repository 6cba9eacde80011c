"""The processes that are measured, each started by its own command and stopped by its own pid."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "bench-token-0123456789"
READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A process that said it is ready."""

    pid: int
    ready: dict[str, Any]
    """What it printed when it was ready."""
    seconds_to_ready: float

    @property
    def resident_mb(self) -> float:
        """Resident memory now, in MB of 1024 KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise LookupError(f"process {self.pid} has no VmRSS")


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[Measured]:
    """Start a Python module and wait for its ready line."""
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            line = await process.stdout.readline()
        yield Measured(process.pid, json.loads(line), time.perf_counter() - begun)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def gateway(home: Path, config: dict[str, Any], profile: Sequence[str] = ()) -> AsyncIterator[Measured]:
    """Start a gateway with a config; `profile` are further options of the interpreter."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "openclaw.yaml").write_text(json.dumps(config), encoding="utf-8")
    async with running(*profile, "-m", "openclaw_kernel", "run", "--home", str(home), "--json") as measured:
        yield measured


def config(**sections: Any) -> dict[str, Any]:
    """A gateway on a free port with the echo model."""
    base: dict[str, Any] = {
        "gateway": {"port": 0, "auth": {"mode": "token", "token": TOKEN}},
        "models": {"providers": {"echo": {}}},
        "logging": {"level": "warning"},
    }
    return base | sections
