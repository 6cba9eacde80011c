"""Watching folders ends without a word, however much happens in them meanwhile."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_kernel.files.watching import FolderWatch

DEADLINE = 20.0
UNUSED = """
import sys
import openclaw_kernel.app, openclaw_kernel.cli.commands.run
found = sorted(name for name in sys.modules if name.startswith(("watchdog", "openclaw_kernel.tls", "cryptography.x509")))
sys.exit(f"imported without need: {found}" if found else 0)
"""


def _no_complaint(folder: Path, error: OSError) -> None:
    raise AssertionError(f"{folder} cannot be watched: {error}")


def test_who_does_not_encrypt_imports_nothing_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", UNUSED], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


async def test_news_of_a_folder_reaches_the_loop_and_those_of_another_do_not(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    watch = FolderWatch(_no_complaint)
    try:
        await asyncio.to_thread(watch.watch, [ours])
        (other / "file").write_bytes(b"x")
        (ours / "file").write_bytes(b"x")
        async with asyncio.timeout(DEADLINE):
            await watch.changed.wait()
        await asyncio.to_thread(watch.watch, [other])
        watch.changed.clear()
        (other / "file").unlink()
        async with asyncio.timeout(DEADLINE):
            await watch.changed.wait()
    finally:
        await asyncio.to_thread(watch.close)


async def test_a_folder_that_cannot_be_watched_is_named_once(tmp_path: Path) -> None:
    told: list[tuple[Path, str | None]] = []
    watch = FolderWatch(lambda folder, error: told.append((folder, error.strerror)))
    try:
        await asyncio.to_thread(watch.watch, [tmp_path / "gone", tmp_path / "gone too"])
    finally:
        await asyncio.to_thread(watch.close)
    assert told == [(tmp_path / "gone", "No such file or directory")]


async def test_ending_while_files_come_and_go_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(30):
        watch = FolderWatch(_no_complaint)
        await asyncio.to_thread(watch.watch, [tmp_path])
        for name in range(20):
            (tmp_path / f"{number}-{name}").write_bytes(b"")
        await asyncio.to_thread(watch.close)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
