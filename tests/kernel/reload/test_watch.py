"""Saves of the configuration's files are told once each, however they are made."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from openclaw_kernel.files.mounts import far_type
from openclaw_kernel.reload.watch import ConfigWatch
from openclaw_kernel.tasks import TaskOwner

DEADLINE = 20.0
DEBOUNCE_MS = 50


class Reader:
    """What reads the files when it is told to."""

    def __init__(self, *files: Path) -> None:
        self.files = list(files)
        self.seen: asyncio.Queue[tuple[str | None, bool]] = asyncio.Queue()

    async def edited(self, *, at_rest: bool) -> None:
        self.seen.put_nowait((self.text(), at_rest))

    def text(self) -> str | None:
        texts = [path.read_text() if path.exists() else None for path in self.files]
        return texts[0] if len(texts) == 1 else "+".join(str(text) for text in texts)

    async def next(self) -> str | None:
        async with asyncio.timeout(DEADLINE):
            text, at_rest = await self.seen.get()
        assert at_rest
        return text


@contextlib.asynccontextmanager
async def watching(*files: Path, debounce_ms: int = DEBOUNCE_MS) -> AsyncIterator[Reader]:
    reader = Reader(*files)
    watch = ConfigWatch(files=lambda: reader.files, debounce_ms=lambda: debounce_ms, edited=reader.edited)
    failures: list[BaseException] = []
    owner = TaskOwner("test", lambda _name, error: failures.append(error))
    owner.spawn("watch", watch.follow())
    try:
        async with asyncio.timeout(DEADLINE):
            await watch.ready.wait()
        yield reader
    finally:
        assert await owner.close(DEADLINE) == []
    assert failures == []


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def atomically(path: Path, text: str) -> None:
    new = path.with_name(".new")
    new.write_text(text)
    new.replace(path)


def as_vim_does(path: Path, text: str) -> None:
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def from_elsewhere(path: Path, text: str) -> None:
    other = path.parent.parent / "elsewhere"
    other.write_text(text)
    os.replace(other, path)  # noqa: PTH105 - as a program does


def gone_and_back(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def of_the_same_size_and_time(path: Path, text: str) -> None:
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    path = folder / "openclaw.yaml"
    path.write_text("0")
    return path


@pytest.mark.parametrize("save", [in_place, atomically, as_vim_does, from_elsewhere, gone_and_back, of_the_same_size_and_time])
async def test_a_save_is_told_however_it_is_made(file: Path, save: Callable[[Path, str], None]) -> None:
    async with watching(file) as reader:
        for text in "12":
            save(file, text)
            assert await reader.next() == text
        assert reader.seen.empty()


async def test_a_file_that_is_gone_is_told_and_so_is_its_return(file: Path) -> None:
    async with watching(file) as reader:
        file.unlink()
        assert await reader.next() is None
        file.write_text("1")
        assert await reader.next() == "1"


async def test_a_folder_that_is_gone_and_back_is_watched_again(file: Path) -> None:
    async with watching(file) as reader:
        file.parent.rename(file.parent.with_name("away"))
        assert await reader.next() is None
        file.parent.mkdir()
        file.write_text("1")
        assert await reader.next() == "1"


async def test_a_folder_in_the_place_of_another_is_followed(file: Path) -> None:
    async with watching(file) as reader:
        other = file.parent.with_name("other")
        other.mkdir()
        (other / file.name).write_text("1")
        file.parent.rename(file.parent.with_name("away"))
        other.rename(file.parent)
        assert await reader.next() == "1"
        file.write_text("2")
        assert await reader.next() == "2"


async def test_links_are_followed_to_where_the_file_is(tmp_path: Path, file: Path) -> None:
    # As Kubernetes does: the file is a link into a folder that is a link, and that one is swapped.
    for version in "ab":
        (tmp_path / version).mkdir()
        (tmp_path / version / "openclaw.yaml").write_text(version)
    (tmp_path / "data").symlink_to("a")
    file.unlink()
    file.symlink_to(tmp_path / "data" / "openclaw.yaml")
    async with watching(file) as reader:
        (tmp_path / "next").symlink_to("b")
        (tmp_path / "next").replace(tmp_path / "data")
        assert await reader.next() == "b"
        atomically(tmp_path / "b" / "openclaw.yaml", "c")
        assert await reader.next() == "c"


async def test_many_writes_are_one_save(file: Path) -> None:
    async with watching(file, debounce_ms=200) as reader:
        for number in range(20):
            file.write_text(str(number))
            await asyncio.sleep(0.005)
        assert await reader.next() == "19"
        assert reader.seen.empty()


async def test_a_file_that_never_comes_to_rest_is_told_now_and_then(file: Path) -> None:
    async with watching(file, debounce_ms=DEBOUNCE_MS) as reader:
        told: list[bool] = []
        async with asyncio.timeout(DEADLINE):
            number = 0
            while len(told) < 2:
                number += 1
                file.write_text(str(number))
                await asyncio.sleep(0.005)
                while not reader.seen.empty():
                    told.append(reader.seen.get_nowait()[1])
    # A loaded machine may pause us for longer than the debounce.
    assert told
    assert number > len(told) * 2


async def test_what_was_told_before_it_came_to_rest_is_told_again_when_it_has(file: Path) -> None:
    async with watching(file, debounce_ms=DEBOUNCE_MS) as reader:
        at_rest = True
        async with asyncio.timeout(DEADLINE):
            # The last write is the one that was read.
            while at_rest:
                file.write_text(str(time.monotonic_ns()))
                await asyncio.sleep(DEBOUNCE_MS / 3000)
                while at_rest and not reader.seen.empty():
                    _, at_rest = reader.seen.get_nowait()
        assert await reader.next() == file.read_text()


async def test_every_file_that_takes_part_is_watched_and_others_are_not(tmp_path: Path, file: Path) -> None:
    part = tmp_path / "parts" / "part.yaml"
    part.parent.mkdir()
    part.write_text("p")
    async with watching(file, part) as reader:
        (file.parent / "notes.txt").write_text("x")
        part.write_text("q")
        assert await reader.next() == "0+q"
        reader.files.remove(part)
        file.write_text("1")
        assert await reader.next() == "1"
        part.write_text("r")
        file.write_text("2")
        assert await reader.next() == "2"
        assert reader.seen.empty()


async def test_what_changed_before_it_began_is_told_first(file: Path) -> None:
    reader = Reader(file)
    watch = ConfigWatch(files=lambda: [file], debounce_ms=lambda: DEBOUNCE_MS, edited=reader.edited)
    owner = TaskOwner("test", lambda _name, _error: None)
    owner.spawn("watch", watch.follow(((1, 2, 3, 4, 5),)))
    assert await reader.next() == "0"
    assert await owner.close(DEADLINE) == []


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / {0}/far rw - nfs4 host:/x rw
31 30 0:41 / {0}/far/near rw - tmpfs tmpfs rw
32 22 0:42 / {0}/with\\040space rw - fuse.sshfs host: rw
33 22 0:43 / {0}/both rw - cifs //host/x rw
34 22 0:44 / {0}/both rw - ext4 /dev/x rw
nonsense
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [(".", None), ("far/a", "nfs4"), ("far/near/a", None), ("with space", "fuse.sshfs"), ("both", None), ("farther", None)],
)
def test_a_network_s_file_system_is_told_from_our_own(tmp_path: Path, folder: str, kind: str | None) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(tmp_path))
    assert far_type(tmp_path / folder, mounts) == kind


def test_where_the_system_does_not_say_it_is_our_own(tmp_path: Path) -> None:
    assert far_type(tmp_path, tmp_path / "none") is None
