"""One short program, run to its end: what it says has a bound, and nothing of it outlives the call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openclaw_kernel.api.children import Leash

KEPT_BYTES: Final = 1_048_576
"""So much of the end of what it writes is kept, of either stream."""
_CHUNK_BYTES: Final = 65_536
_GONE_SECONDS: Final = 5.0
"""How long one that was killed may take to be gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended, and the end of what it wrote."""

    status: int
    out: bytes
    err: bytes


async def run_to_end(command: Sequence[str], *, home: Path, environment: Mapping[str, str], seconds: float) -> Ended:
    """Run a program of the gateway with this state folder, and read all that it writes.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it had not ended by then; it is killed, with all that came of it.
    """
    leash = Leash(home)
    process: asyncio.subprocess.Process | None = None
    try:
        async with asyncio.timeout(seconds):
            process = await leash.start(
                asyncio.create_subprocess_exec,
                command,
                environment=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await _ends_of(process)
            return Ended(status=await process.wait(), out=out, err=err)
    finally:
        leash.kill()
        try:
            if process is not None:
                # Only what is read to its end is closed.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GONE_SECONDS):
                        await _ends_of(process)
                        await process.wait()
        finally:
            leash.release()


async def _ends_of(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    async with asyncio.TaskGroup() as group:
        out = group.create_task(_end_of(process.stdout), name="program/stdout")
        err = group.create_task(_end_of(process.stderr), name="program/stderr")
    return out.result(), err.result()


async def _end_of(stream: asyncio.StreamReader | None) -> bytes:
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(_CHUNK_BYTES)):
        kept += chunk
        del kept[:-KEPT_BYTES]
    return bytes(kept)
