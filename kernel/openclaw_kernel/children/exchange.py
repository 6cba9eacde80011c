"""Messages with their files on the way between gateway and child: short files in the line, long ones in a folder of both."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import shutil
import stat
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api.messages import Attachment, InboundMessage, OutboundMessage
from openclaw_kernel.children.wire import Misshapen, read, read_target, to_wire

INLINE_BYTES: Final = 24_576
INLINE_TOTAL: Final = 262_144
FILE_BYTES: Final = 64 * 1024 * 1024
ATTACHMENTS: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class Exchange:
    """The folder. Whoever wrote a file there removes it once the request that named it was answered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        """Make the folder, and forget what a process before left in it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in self.folder.iterdir():
            if not each.is_dir() or each.is_symlink():
                each.unlink(missing_ok=True)

    async def pack(self, message: InboundMessage | OutboundMessage) -> dict[str, Any]:
        """Return a message as an object of the contract, with its long files written."""
        wire = to_wire(message, leave_out=("attachments",))
        if message.attachments:
            wire["attachments"] = await asyncio.to_thread(self._pack, message.attachments)
        return wire

    def remove(self, wire: Mapping[str, Any]) -> None:
        """Remove the files that `pack` wrote for this message."""
        for each in wire.get("attachments", ()):
            if "file" in each:
                with suppress(OSError):
                    (self.folder / each["file"]).unlink()

    async def unpack_inbound(self, value: object) -> InboundMessage:
        """Return the message with its files; raise `Misshapen`."""
        value = _object(value)
        target = read_target(value.get("target"), "message.target")
        return read(InboundMessage, value, "message", target=target, attachments=await self._files_of(value))

    async def unpack_outbound(self, value: object) -> OutboundMessage:
        """Return the message with its files; raise `Misshapen`."""
        value = _object(value)
        target = read_target(value.get("target"), "message.target")
        return read(OutboundMessage, value, "message", target=target, attachments=await self._files_of(value))

    async def _files_of(self, value: Mapping[str, Any]) -> tuple[Attachment, ...]:
        listed = value.get("attachments") or ()
        if not isinstance(listed, list | tuple) or len(listed) > ATTACHMENTS:
            raise Misshapen(f"message.attachments: give a list of at most {ATTACHMENTS}")
        return await asyncio.to_thread(self._unpack, listed) if listed else ()

    def _pack(self, attachments: Sequence[Attachment]) -> list[dict[str, Any]]:
        packed: list[dict[str, Any]] = []
        try:
            self._pack_into(packed, attachments)
        except OSError:
            # The disk is full, say: nothing of it is to stay there.
            self.remove({"attachments": packed})
            raise
        return packed

    def _pack_into(self, packed: list[dict[str, Any]], attachments: Sequence[Attachment]) -> None:
        room = INLINE_TOTAL
        for attachment in attachments:
            wire = to_wire(attachment, leave_out=("content",))
            packed.append(wire)
            size = len(attachment.content)
            if size <= min(INLINE_BYTES, room):
                room -= size
                wire["content"] = base64.b64encode(attachment.content).decode()
            else:
                wire["file"] = uuid.uuid4().hex
                descriptor = os.open(self.folder / wire["file"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(attachment.content)

    def _unpack(self, listed: Sequence[Any]) -> tuple[Attachment, ...]:
        found = []
        left = FILE_BYTES
        for number, each in enumerate(listed):
            what = f"message.attachments[{number}]"
            content = self._content(_object(each, what), what, left)
            left -= len(content)
            found.append(read(Attachment, each, what, content=content))
        return tuple(found)

    def _content(self, value: Mapping[str, Any], what: str, most: int) -> bytes:
        name, inline = value.get("file"), value.get("content")
        if isinstance(inline, str):
            try:
                return base64.b64decode(inline, validate=True)
            except (binascii.Error, ValueError) as error:
                raise Misshapen(f"{what}.content: is no base64 ({error})") from error
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise Misshapen(f"{what}: has neither content nor the name of a file in the exchange folder; give one")
        try:
            return self._read(name, most)
        except OSError as error:
            raise Misshapen(f"{what}.file: {name!r} cannot be read ({error.strerror or error})") from error

    def _read(self, name: str, most: int) -> bytes:
        # Never a link out of the folder, nor a pipe that nobody ever writes to.
        descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError("it is no regular file")
            if found.st_size > most:
                raise OSError(f"the files of a message are more than {FILE_BYTES} bytes")
            return file.read(most)


def _object(value: object, what: str = "message") -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Misshapen(f"{what}: found {type(value).__name__}; give an object")
    return value


def remove_leftovers(folder: Path, used: Collection[Path]) -> None:
    """Remove the exchange folders of processes that are gone, `PID-...`, and of this one but for those that are used."""
    if not folder.is_dir():
        return
    for each in folder.iterdir():
        pid = each.name.partition("-")[0]
        if each not in used and not (pid.isdigit() and int(pid) != os.getpid() and _is_alive(int(pid))):
            shutil.rmtree(each, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # Somebody else's, so no gateway of this folder: but what it is nobody knows.
        return True
    return True
