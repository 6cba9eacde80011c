"""Who else may read or change what the gateway keeps on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from openclaw_kernel.api import CheckContext, FileEntry, Finding, Severity
from openclaw_plugins.security.table import WRITERS, Table, mode_fix, open_behind_links, open_to_others, writable_by_others

TABLE: Final = Table()

_DATABASE: Final = re.compile(r"state\.sqlite3(-wal|-shm|-journal)?")
_COPIES: Final = re.compile(
    r".*(~|\.bak|\.old|\.orig|\.save|\.swp|\.tar|\.tgz|\.zip|\.gz|\.xz|\.zst|\.sql|\.dump)|(openclaw\.yaml|state\.sqlite3)\..+"
)
_NETWORKED: Final = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p afs ceph fuse.sshfs fuse.glusterfs fuse.s3fs fuse.rclone vboxsf virtiofs gfs2 ocfs2 lustre".split()
)
_OWN: Final = ("openclaw.yaml", "gateway.token", "audit.key", "state.sqlite3")


@TABLE.add("files.home.open", "the state folder is open to others", Severity.CRITICAL, fixes=True)
def home_open(context: CheckContext) -> Iterator[Finding]:
    home = context.look(context.home.resolve())
    if home is not None:
        yield from open_to_others([home], "the state folder")


@TABLE.add("files.owner", "files of the state folder belong to somebody else", Severity.CRITICAL)
def owner(context: CheckContext) -> Iterator[Finding]:
    user = context.process.user_id
    if user is None:
        return
    foreign = [entry for entry in context.files.values() if entry.user_id not in {user, 0}]
    if foreign:
        names = ", ".join(str(entry.path.relative_to(context.home)) for entry in foreign[:5])
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(foreign[0].path),
            evidence=f"{len(foreign)} of them belong to another user than the gateway's ({user}), who can change them: {names}",
            cure=f"chown -R {user} {context.home}",
        )


@TABLE.add("files.config.open", "openclaw.yaml is open to others", Severity.CRITICAL, fixes=True)
def config_open(context: CheckContext) -> Iterator[Finding]:
    yield from open_to_others(_named(context, "openclaw.yaml"), "openclaw.yaml")
    yield from open_behind_links(context, [context.home / "openclaw.yaml"], "openclaw.yaml")


@TABLE.add("files.database.open", "the database is open to others", Severity.CRITICAL, fixes=True)
def database_open(context: CheckContext) -> Iterator[Finding]:
    entries = [entry for entry in _top(context) if _DATABASE.fullmatch(entry.path.name)]
    yield from open_to_others(entries, "the database, with every message and grant,")


@TABLE.add("files.token.open", "a file with a secret is open to others", Severity.CRITICAL, fixes=True)
def token_open(context: CheckContext) -> Iterator[Finding]:
    targets = [context.home / Path(slot.target).expanduser() for slot in context.secrets if slot.kind == "file" and slot.target]
    paths = dict.fromkeys([context.home / "gateway.token", *targets])
    entries = [entry for path in paths if (entry := context.look(path)) is not None and entry.path.parent != context.home / "secrets"]
    yield from open_to_others(entries, "a file with a secret")
    yield from open_behind_links(context, paths, "a file with a secret")


@TABLE.add("files.secrets.open", "the folder of secrets is open to others", Severity.CRITICAL, fixes=True)
def secrets_open(context: CheckContext) -> Iterator[Finding]:
    folder = context.home / "secrets"
    entries = [entry for entry in context.files.values() if entry.path.is_relative_to(folder)]
    yield from open_to_others(entries, "a secret, or its folder,")
    yield from open_behind_links(context, [entry.path for entry in entries], "a secret, or its folder,")


@TABLE.add("files.audit-key.open", "the audit log's key is open to others", Severity.CRITICAL, fixes=True)
def audit_key_open(context: CheckContext) -> Iterator[Finding]:
    yield from open_to_others(_named(context, "audit.key"), "the key that signs the audit log's checkpoints", readable=Severity.CRITICAL)
    yield from open_to_others(_named(context, "audit-checkpoints.jsonl"), "the audit log's checkpoints")


@TABLE.add("files.log.open", "the log is open to others", Severity.CRITICAL, fixes=True)
def log_open(context: CheckContext) -> Iterator[Finding]:
    folder = context.home / "logs"
    yield from open_to_others([entry for entry in context.files.values() if entry.path.is_relative_to(folder)], "the log, or its folder,")


@TABLE.add("files.workspace.writable", "others may change agents' files", Severity.WARN, fixes=True)
def workspace_writable(context: CheckContext) -> Iterator[Finding]:
    folder = context.home / "workspace"
    for entry in context.files.values():
        if entry.path.is_relative_to(folder) and writable_by_others(entry):
            yield Finding(
                severity=Severity.WARN,
                where=str(entry.path),
                evidence=f"it has the mode {entry.mode:04o}: whoever changes it tells the agent what to do",
                cure=f"chmod go-w {entry.path}",
                fix=mode_fix(entry, entry.mode & ~WRITERS),
            )


@TABLE.add("files.backups.open", "backups are open to others", Severity.CRITICAL, fixes=True)
def backups_open(context: CheckContext) -> Iterator[Finding]:
    folders = (context.home / "backups", context.home / "fixes")
    entries = [
        entry
        for entry in context.files.values()
        if (entry.path.parent == context.home and _COPIES.fullmatch(entry.path.name)) or any(map(entry.path.is_relative_to, folders))
    ]
    yield from open_to_others(entries, "a backup, with the secrets of its time,")


@TABLE.add("files.folders.writable", "others may replace the state folder", Severity.CRITICAL)
def folders_writable(context: CheckContext) -> Iterator[Finding]:
    for folder in context.home.resolve().parents:
        entry = context.look(folder)
        if entry is None or not writable_by_others(entry):
            continue
        everybody = bool(entry.mode & 0o002)
        who, bits = ("everybody", "o-w") if everybody else ("its group", "g-w")
        yield Finding(
            severity=Severity.CRITICAL if everybody else Severity.INFO,
            where=str(folder),
            evidence=f"it has the mode {entry.mode:04o}: {who} may put another folder in the place of {context.home}",
            cure=f"chmod {bits} {folder}, or move the state folder",
        )


@TABLE.add("files.link", "a file of the gateway is a link to where others may write", Severity.CRITICAL)
def link(context: CheckContext) -> Iterator[Finding]:
    for entry in _named(context, *_OWN):
        if entry.kind != "link":
            continue
        target = entry.path.resolve()
        exposed = [each for each in (context.look(target), context.look(target.parent)) if each is not None and writable_by_others(each)]
        yield Finding(
            severity=Severity.CRITICAL if exposed else Severity.INFO,
            where=str(entry.path),
            evidence=f"it is a link to {target}{', which others may change or replace' if exposed else ''}",
            cure=f"see that {target} and its folder are as closed as the state folder" if not exposed else f"chmod go-w {exposed[0].path}",
        )


@TABLE.add("files.network", "the state folder is on a network or shared file system", Severity.WARN)
def network(context: CheckContext) -> Iterator[Finding]:
    kind = context.machine.file_system
    if kind in _NETWORKED:
        yield Finding(
            severity=Severity.WARN,
            where=str(context.home),
            evidence=f"it is on {kind}: its server reads all of it, modes may mean nothing there, and SQLite's locks may not hold",
            cure="move it to a disk of this machine, and name it with --home",
        )


def _top(context: CheckContext) -> list[FileEntry]:
    return [entry for entry in context.files.values() if entry.path.parent == context.home]


def _named(context: CheckContext, *names: str) -> list[FileEntry]:
    return [entry for entry in _top(context) if entry.path.name in names]
