"""What must hold of a state folder right after its gateway was killed, whatever it was at."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from openclaw_config.load import load
from openclaw_config.source import ConfigError, read_text
from openclaw_kernel.audit.verifying import verify_files
from openclaw_kernel.generations import table
from openclaw_kernel.generations.attempts import Attempts
from openclaw_kernel.generations.files import GenerationFiles, NotKept
from openclaw_kernel.generations.table import Kept

PROCESS_SECONDS = 30.0
POLL_SECONDS = 0.05
MOST_TEMPORARY = 6
"""A kill leaves what was being written at that moment: the config, bytes of a generation, what last worked, the count of starts."""
DATABASE = "state.sqlite3"


def free(home: Path) -> Iterator[str]:
    """The lock is nobody's the moment the process is gone."""
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield f"the lock is still held: {processes(home)}"
    finally:
        os.close(descriptor)


async def alone(home: Path) -> list[str]:
    """No process of the gateway outlives it for long: no child, no keeper, no trial of a next start."""
    try:
        async with asyncio.timeout(PROCESS_SECONDS):
            while await asyncio.to_thread(processes, home):  # noqa: ASYNC110 - a process of somebody else's has no event to wait for
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        return [f"a process outlived the gateway: {line}" for line in processes(home)]
    return []


def processes(home: Path) -> list[str]:
    """Each process that was told of this state folder, by argument, environment or working folder."""
    wanted, found = os.fsencode(home), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments, told = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            if wanted in arguments or wanted in told or (entry / "cwd").readlink().is_relative_to(home):
                found.append(f"{entry.name} {arguments.replace(bytes(1), b' ').decode(errors='replace')}")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def generations(home: Path) -> Iterator[str]:
    """The newest generation can be read, is what its hash says, and so is what last worked."""
    files = GenerationFiles(home)
    newest = newest_generation(home)
    if newest is not None:
        try:
            found = load(home / "openclaw.yaml", read=_kept(files, newest.files)).hash
        except (NotKept, ConfigError, KeyError) as error:
            yield f"generation {newest.generation.number} cannot be read: {error}"
        else:
            if found != newest.generation.hash:
                yield f"generation {newest.generation.number} has the hash {newest.generation.hash}, its files have {found}"
    good = files.last_good()
    if good is None:
        if (files.folder / "last-good").exists():
            yield f"last-good cannot be read: {(files.folder / 'last-good').read_bytes()!r}"
        return
    try:
        load(home / "openclaw.yaml", read=_kept(files, good.files))
    except (NotKept, ConfigError, KeyError) as error:
        yield f"generation {good.number}, which last worked, cannot be read: {error}"


def newest_generation(home: Path) -> Kept | None:
    """The newest in the database, None where there is none."""
    with closing(sqlite3.connect(f"file:{home / DATABASE}?mode=ro", uri=True)) as connection:
        try:
            return table.newest(connection)
        except sqlite3.OperationalError:
            # Killed before the tables were made.
            return None


def _kept(files: GenerationFiles, digests: Any) -> Any:
    texts = {files.path_of(name): files.read(digest).decode() for name, digest in digests.items()}
    return lambda path: texts[path] if path in texts else read_text(path)


def chained(home: Path) -> Iterator[str]:
    """The audit log is what was written."""
    try:
        verdict = verify_files(home / DATABASE, home)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return
    if not verdict["ok"]:
        yield f"the audit log does not verify: {verdict['fault']}"


def temporary(home: Path) -> list[Path]:
    """Files that were to take the place of others and did not come to it."""
    return sorted(path for path in home.rglob("*.new") if path.is_file())


def bounded(home: Path) -> Iterator[str]:
    """One kill leaves few temporary files."""
    found = temporary(home)
    if len(found) > MOST_TEMPORARY:
        yield f"{len(found)} temporary files are left: {[str(path.relative_to(home)) for path in found]}"


def not_counted(home: Path) -> Iterator[str]:
    """P2: a kill after ready counts for nothing."""
    deaths = Attempts(home).deaths
    if deaths:
        yield f"P2: {deaths} starts count as died, and the gateway was ready when it was killed"


def executed(log: Path) -> tuple[int, list[str]]:
    """How often the program was about to be run anew, and a line for each descriptor that outlived that and was not handed over."""
    if not log.exists():
        return 0, []
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = [f"over a restart stayed open: {stray}" for line in lines for stray in line.get("strays", ())]
    return sum(line["exec"] == "begins" for line in lines), found
