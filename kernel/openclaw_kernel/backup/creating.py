"""Making a backup. The database is copied by SQLite's own online backup, so that the gateway goes on meanwhile."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from openclaw_kernel import __version__
from openclaw_kernel.backup.contents import DATABASE, FORMAT, MANIFEST, BackupError, Member, members

_PAGES: Final = 1000
_CHUNK: Final = 1 << 20
_BUSY_SECONDS: Final = 10.0
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
"""What a hard link fails with where the file system has none: FAT and exFAT, many network and FUSE file systems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A backup that is on disk. `left_out` gives for each name the reason."""

    path: Path
    files: int
    size: int
    left_out: Mapping[str, str]


@dataclass(slots=True)
class _Written:
    files: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def create(home: Path, target: Path, *, now_ms: int | None = None) -> Made:
    """Write the backup; nothing is at `target` before it is whole. Raise `BackupError`."""
    if target.exists():
        raise BackupError(f"{target}: is there already; name another file, or remove it")
    if not home.is_dir():
        raise BackupError(f"{home}: there is no state folder; name another with --home")
    if target.resolve().is_relative_to(home.resolve()):
        raise BackupError(f"{target}: lies in the state folder itself; name a file outside of it")
    made_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    # A name that nobody knows before, and a file that is new: whoever made it could else read what is written into it.
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    written = _Written()
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as archive:
                _add_all(archive, home, written)
                _add_manifest(archive, written, made_ms)
            file.flush()
            os.fsync(file.fileno())
        _give_name(partial, target)
    except FileExistsError:
        raise BackupError(f"{target}: is there already; name another file, or remove it") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BackupError(f"{error.filename or target}: the backup cannot be made ({reason}); see to room and rights") from error
    finally:
        partial.unlink(missing_ok=True)
    return Made(path=target, files=len(written.files), size=target.stat().st_size, left_out=written.left_out)


def _give_name(partial: Path, target: Path) -> None:
    """Have the file at `target`, and none that was made there meanwhile taken away; raise `FileExistsError`, `OSError`."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: an empty file of ours holds the name, and only that one is replaced.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not os.path.samestat(os.fstat(descriptor), target.lstat()):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
            try:
                partial.replace(target)
            except OSError:
                target.unlink(missing_ok=True)
                raise
        finally:
            os.close(descriptor)


def _add_all(archive: tarfile.TarFile, home: Path, written: _Written) -> None:
    # The database first: what files hold beside it (withdrawals, secrets) may then be newer than it, never older.
    if (home / DATABASE).exists():
        _add_database(archive, home / DATABASE, written)
    for member in members(home, written.left_out):
        _add(archive, member, written)


def _add_database(archive: tarfile.TarFile, path: Path, written: _Written) -> None:
    with tempfile.TemporaryDirectory(prefix="openclaw-backup-") as folder:
        copy = Path(folder) / DATABASE
        copy_database(path, copy)
        _add(archive, Member(name=DATABASE, path=copy, mode=0o600), written)


def copy_database(path: Path, copy: Path) -> None:
    """Copy a database that others write meanwhile; raise `BackupError`."""
    try:
        source = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        try:
            target = sqlite3.connect(copy)
            try:
                # One read of the whole: of a write that comes meanwhile the copy holds nothing.
                source.execute("BEGIN")
                source.execute("SELECT count(*) FROM sqlite_master").fetchone()
                source.backup(target, pages=_PAGES)
                target.execute("PRAGMA journal_mode=DELETE")
            finally:
                target.close()
        finally:
            source.close()
    except sqlite3.Error as error:
        raise BackupError(f"{path}: cannot be copied ({error}); run openclaw-kernel doctor") from error


def _add(archive: tarfile.TarFile, member: Member, written: _Written) -> None:
    entry = tarfile.TarInfo(member.name)
    entry.mode = member.mode
    if member.link is not None:
        entry.type, entry.linkname = tarfile.SYMTYPE, member.link
        archive.addfile(entry)
        written.files[member.name] = {"link": member.link}
        return
    if member.is_folder:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
        written.files[member.name] = {"folder": True}
        return
    try:
        # Read once, so that what is hashed is what is kept, also of a file that changes.
        content = _Spooled.of(member.path)
    except FileNotFoundError:
        written.left_out[member.name] = "gone while the backup was made"
        return
    with content.file:
        entry.size = content.size
        entry.mtime = int(content.mtime)
        archive.addfile(entry, content.file)
    written.files[member.name] = {"sha256": content.digest, "size": content.size}


@dataclass(frozen=True, slots=True)
class _Spooled:
    file: Any
    size: int
    digest: str
    mtime: float

    @classmethod
    def of(cls, path: Path) -> _Spooled:
        digest, size = hashlib.sha256(), 0
        spool = tempfile.SpooledTemporaryFile(max_size=_CHUNK * 8)  # noqa: SIM115 - the caller closes it
        try:
            with path.open("rb") as source:
                mtime = os.fstat(source.fileno()).st_mtime
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    spool.write(chunk)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return cls(spool, size, digest.hexdigest(), mtime)


def _add_manifest(archive: tarfile.TarFile, written: _Written, made_ms: int) -> None:
    manifest = {
        "format": FORMAT,
        "program": "openclaw-kernel",
        "version": __version__,
        "madeAtMs": made_ms,
        "files": written.files,
        "leftOut": written.left_out,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
    entry = tarfile.TarInfo(MANIFEST)
    entry.mode, entry.size = 0o600, len(text)
    archive.addfile(entry, io.BytesIO(text))
