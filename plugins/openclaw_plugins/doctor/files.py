"""The files of the state folder: whether the gateway can use them, and what lies there that nobody needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from openclaw_kernel.api import CheckContext, FileEntry, Finding, Fix, RemoveFile, SetMode, Severity
from openclaw_plugins.doctor.table import Table, size

TABLE: Final = Table()

_OWN: Final = ("openclaw.yaml", "gateway.token", "audit.key", "audit-checkpoints.jsonl", "state.sqlite3", "state.sqlite3-wal")
_LEFT: Final = re.compile(r"\.[A-Za-z0-9._-]+\.[0-9a-f]{16}")
_OLD_MS: Final = 3_600_000
_LOG_BYTES: Final = 200_000_000
_NETWORKED: Final = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p afs ceph fuse.sshfs fuse.glusterfs fuse.s3fs fuse.rclone vboxsf virtiofs gfs2 ocfs2 lustre".split()
)


@TABLE.add("home.missing", "there is no state folder", Severity.WARN)
def missing(context: CheckContext) -> Iterator[Finding]:
    if context.home not in context.files:
        yield Finding(
            severity=Severity.WARN,
            where=str(context.home),
            evidence="it is not there: the first start makes it",
            cure="start the gateway, or name another folder with --home",
        )


@TABLE.add("home.mode", "the gateway may not write in its own state folder", Severity.CRITICAL, fixes=True)
def mode(context: CheckContext) -> Iterator[Finding]:
    home = context.files.get(context.home)
    if home is not None and home.kind == "folder" and home.mode & 0o700 != 0o700:  # noqa: PLR2004 - all rights of the owner
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(context.home),
            evidence=f"it has the mode {home.mode:04o}: its owner cannot make files in it",
            cure=f"chmod u+rwx {context.home}",
            fix=_mode_fix(home, home.mode | 0o700),
        )


@TABLE.add("home.read-only", "the state folder is on a file system that cannot be written", Severity.CRITICAL)
def read_only(context: CheckContext) -> Iterator[Finding]:
    space = context.instruments.space(context.home)
    if space is not None and space.read_only:
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(context.home),
            evidence="its file system is mounted read-only, which a system also does after a fault of the disk",
            cure="look into the system's log for faults of the disk, and mount it writable",
        )


@TABLE.add("home.network", "the state folder is on a network or shared file system", Severity.CRITICAL)
def network(context: CheckContext) -> Iterator[Finding]:
    kind = context.machine.file_system
    if kind in _NETWORKED:
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(context.home),
            evidence=f"it is on {kind}, where the database's write-ahead log and the lock may not hold: the database can break",
            cure="move it to a disk of this machine, and name it with --home",
        )


@TABLE.add("files.foreign", "files of the state folder belong to another user than the gateway's", Severity.CRITICAL)
def owner(context: CheckContext) -> Iterator[Finding]:
    user = context.process.user_id
    if user in {None, 0}:
        return
    foreign = [entry for entry in context.files.values() if entry.user_id != user]
    if foreign:
        names = ", ".join(str(entry.path.relative_to(context.home)) for entry in foreign[:5])
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(foreign[0].path),
            evidence=f"{len(foreign)} of them, perhaps of a start with sudo: the gateway may not write them: {names}",
            cure=f"chown -R {user} {context.home}",
        )


@TABLE.add("files.mode", "the gateway may not read or write a file of its own", Severity.CRITICAL, fixes=True)
def file_mode(context: CheckContext) -> Iterator[Finding]:
    for name in _OWN:
        entry = context.files.get(context.home / name)
        if entry is not None and entry.kind == "file" and entry.mode & 0o600 != 0o600:  # noqa: PLR2004 - to read and write
            yield Finding(
                severity=Severity.CRITICAL,
                where=str(entry.path),
                evidence=f"it has the mode {entry.mode:04o}: its owner may not read and write it",
                cure=f"chmod u+rw {entry.path}",
                fix=_mode_fix(entry, entry.mode | 0o600),
            )


@TABLE.add("files.kind", "something else stands where a file of the gateway belongs", Severity.CRITICAL)
def kind(context: CheckContext) -> Iterator[Finding]:
    for name in _OWN:
        entry = context.files.get(context.home / name)
        if entry is not None and entry.kind in {"folder", "other"}:
            yield Finding(
                severity=Severity.CRITICAL,
                where=str(entry.path),
                evidence="it is a folder; a container makes one where a file that it is to mount is missing"
                if entry.kind == "folder"
                else "it is neither a file nor a folder",
                cure="move it away, and put the file there",
            )


@TABLE.add("files.left", "writes that were cut off left files", Severity.INFO, fixes=True)
def left(context: CheckContext) -> Iterator[Finding]:
    for entry in context.files.values():
        of_ours = entry.path.parent in {context.home, context.home / "secrets", context.home / "secrets" / "oauth"}
        if of_ours and entry.kind == "file" and _LEFT.fullmatch(entry.path.name) and entry.modified_ms < context.machine.now_ms - _OLD_MS:
            yield Finding(
                severity=Severity.INFO,
                where=str(entry.path),
                evidence=f"{size(entry.size)} that were to become another file, and may hold a secret",
                cure=f"rm {entry.path}",
                fix=Fix(summary=f"remove {entry.path.name}", changes=(RemoveFile(path=entry.path),)),
            )


@TABLE.add("logs.size", "the folder of logs grows", Severity.WARN)
def logs(context: CheckContext) -> Iterator[Finding]:
    folder = context.home / "logs"
    entries = [entry for entry in context.files.values() if entry.kind == "file" and entry.path.is_relative_to(folder)]
    total = sum(entry.size for entry in entries)
    if total > _LOG_BYTES:
        largest = max(entries, key=lambda entry: entry.size)
        yield Finding(
            severity=Severity.WARN,
            where=str(folder),
            evidence=f"it holds {size(total)}, where the gateway keeps some 40 MB; {largest.path.name} alone has {size(largest.size)}",
            cure="see who else writes there, and remove what is old",
        )


def _mode_fix(entry: FileEntry, mode: int) -> Fix:
    return Fix(summary=f"set the mode of {entry.path.name} to {mode:04o}", changes=(SetMode(path=entry.path, mode=mode),))
