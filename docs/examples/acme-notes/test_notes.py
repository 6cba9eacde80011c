"""Runs the command on a state folder with notes that everybody may read, and lets it mend that."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from openclaw_kernel.testing import StartGateway


async def audit(home: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "openclaw_kernel", "security", "audit", "--home", str(home), "--json", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    return json.loads(told)


async def test_notes_that_others_may_read_are_found_and_closed(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({"models": {"providers": {"echo": {}}}}) as gateway:
        notes = gateway.home / "notes.txt"
        notes.write_text("milk, bread")
        notes.chmod(0o644)
        (finding,) = [each for each in (await audit(gateway.home))["findings"] if each["id"] == "acme.notes.public"]
        assert finding["fix"]["changes"] == [f"{notes}: mode 0644 -> 0600"]
        fixed = (await audit(gateway.home, "--fix"))["fixed"]
        assert ("acme.notes.public", True) in [(each["id"], each["recorded"]) for each in fixed]
        assert not notes.stat().st_mode & 0o077
