"""The folder in which gateway and child hand each other files: only what was meant is read, and what is left is cleared away."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_kernel.api import Attachment, InboundMessage, Target
from openclaw_kernel.children.exchange import FILE_BYTES, INLINE_BYTES, Exchange, remove_leftovers
from openclaw_kernel.children.wire import Misshapen

TARGET = Target(channel="x", account_id="default", peer_kind="direct", peer_id="ann")


def message_with(*sizes: int) -> InboundMessage:
    files = tuple(Attachment(kind="file", mime_type="x/y", file_name=str(size), content=bytes(size)) for size in sizes)
    return InboundMessage(target=TARGET, message_id="1", sender_id="ann", attachments=files)


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    made = Exchange(tmp_path / "exchange")
    made.clear()
    return made


async def test_short_files_are_in_the_line_until_there_are_many_and_long_ones_in_the_folder(exchange: Exchange) -> None:
    message = message_with(0, INLINE_BYTES, INLINE_BYTES + 1, *[INLINE_BYTES] * 20)
    wire = await exchange.pack(message)
    kinds = ["content" if "content" in each else "file" for each in wire["attachments"]]
    assert kinds[:3] == ["content", "content", "file"]
    assert kinds[-1] == "file"
    assert len(str(wire)) < 1_000_000
    assert await exchange.unpack_inbound(wire) == message
    exchange.remove(wire)
    assert list(exchange.folder.iterdir()) == []


async def test_what_is_no_regular_file_there_or_too_long_is_not_read(exchange: Exchange, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (exchange.folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(exchange.folder / "pipe")
    (exchange.folder / "folder").mkdir()
    with (exchange.folder / "long").open("wb") as file:
        file.truncate(FILE_BYTES + 1)
    wire = await exchange.pack(message_with(1))
    for name in ("link", "pipe", "folder", "long", "missing", "../secret", ".", "", "a/b", "\0"):
        wire["attachments"] = [{"kind": "file", "mimeType": "x", "fileName": "f", "file": name}]
        with pytest.raises(Misshapen):
            await exchange.unpack_inbound(wire)
    for bad in ({"content": "%%%"}, {}, {"content": 5}):
        wire["attachments"] = [{"kind": "file", "mimeType": "x", "fileName": "f", **bad}]
        with pytest.raises(Misshapen):
            await exchange.unpack_inbound(wire)


def test_what_a_gateway_that_is_gone_left_is_removed_and_what_another_uses_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "exchange"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        names = {"mine": f"{os.getpid()}-1", "old": f"{os.getpid()}-2", "theirs": f"{other.pid}-1", "stray": "stray"}
        paths = {key: folder / name for key, name in names.items()}
        for path in paths.values():
            path.mkdir(parents=True)
            (path / "file").touch()
        remove_leftovers(folder, {paths["mine"]})
        assert sorted(folder.iterdir()) == sorted([paths["mine"], paths["theirs"]])
        assert other.stdin is not None
        other.stdin.close()
    remove_leftovers(folder, {paths["mine"]})
    assert list(folder.iterdir()) == [paths["mine"]]
    remove_leftovers(tmp_path / "nowhere", ())


async def test_of_a_message_that_cannot_be_written_as_a_whole_nothing_stays(exchange: Exchange) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # As on a disk that is full: the second file does not fit any more.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OSError, match="too large"):
            await exchange.pack(message_with(50_000, 200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(exchange.folder.iterdir()) == []
