"""Watching folders ends without a word, however much happens in them meanwhile."""

from __future__ import annotations

import asyncio
import errno
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from openclaw_kernel.files import watching
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


@pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
async def test_one_that_is_closed_while_it_begins_complains_of_nothing_and_watches_nothing(tmp_path: Path) -> None:
    """A gateway that is stopped right after its start waits for no thread of its own."""
    told: list[OSError] = []
    watch = FolderWatch(lambda _, error: told.append(error))
    begun, goes_on = threading.Event(), threading.Event()

    def folders() -> Iterator[Path]:
        begun.set()
        goes_on.wait(DEADLINE)
        yield tmp_path

    before = instances()
    beginning = asyncio.create_task(asyncio.to_thread(watch.watch, folders()))
    await asyncio.to_thread(begun.wait, DEADLINE)
    closing = asyncio.create_task(asyncio.to_thread(watch.close))
    # Time for a close that waits for nobody.
    await asyncio.wait({closing}, timeout=0.3)
    goes_on.set()
    await asyncio.gather(beginning, closing)
    assert told == []
    await asyncio.to_thread(watch.watch, [tmp_path])
    assert instances() == before


@pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
async def test_what_never_watched_holds_nothing() -> None:
    before = instances()
    for _ in range(3):
        watch = FolderWatch(_no_complaint)
        await asyncio.to_thread(watch.close)
    assert instances() == before


async def test_where_the_machine_has_no_watcher_left_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr(watching, "Observer", none_left)
    told: list[tuple[Path, int | None]] = []
    watch = FolderWatch(lambda folder, error: told.append((folder, error.errno)))
    await asyncio.to_thread(watch.watch, [tmp_path])
    await asyncio.to_thread(watch.close)
    assert told == [(tmp_path, errno.EMFILE)]


def instances() -> int:
    """How many watchers of the system this process holds."""
    count = 0
    for found in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(found.readlink()) == "anon_inode:inotify"
    return count
