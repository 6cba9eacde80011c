"""`openclaw-kernel backup`: the state folder in one file, checked, and put back."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from openclaw_kernel.cli.errors import CommandFailed
from openclaw_kernel.cli.exits import FAILED, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import YELLOW, emit, emit_json, note, printable


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("backup", "keep the state folder in one file, check it, put it back")
    details = """\
Holds all that the gateway keeps: configuration, secrets, conversations, devices, workspaces in the state folder. Whoever has the
file has the secrets: it is readable by you alone, keep it so. The gateway goes on meanwhile."""
    create_parser = group.add("create", "make a backup, also while the gateway runs", run=create, details=details)
    create_parser.add_argument("file", metavar="FILE", nargs="?", help="where (default: openclaw-backup-TIME.tar.gz in this folder)")
    verify_parser = group.add("verify", "read all of a backup and say whether it is whole", run=verify)
    verify_parser.add_argument("file", metavar="FILE", help="the backup")
    restore_details = """\
Into the state folder of --home, which has to be empty or not there yet. With --replace what is there is moved aside first, never
deleted; no gateway may run on it. What was taken away from devices since the backup stays taken away where both folders are at hand."""
    restore_parser = group.add("restore", "put a backup back", run=restore, details=restore_details)
    restore_parser.add_argument("file", metavar="FILE", help="the backup")
    restore_parser.add_argument("--replace", action="store_true", help="move aside what is there", default=False)


def create(options: argparse.Namespace) -> int:
    """Make one."""
    from openclaw_config.home import find_home
    from openclaw_kernel.backup.creating import create as make

    name = getattr(options, "file", None) or f"openclaw-backup-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    with _named_failures():
        made = make(find_home(options.home), Path(name).expanduser().absolute())
    if options.json:
        emit_json({"file": str(made.path), "files": made.files, "bytes": made.size, "leftOut": dict(made.left_out)})
        return OK
    emit(f"wrote {made.path}: {made.files} files, {made.size / 1e6:.1f} MB")
    _show_left_out(made.left_out)
    return OK


def verify(options: argparse.Namespace) -> int:
    """Check one; 1 where what was backed up has faults."""
    from openclaw_kernel.backup.checking import verify as check

    with _named_failures():
        checked = check(Path(options.file).expanduser().absolute())
    if options.json:
        emit_json(
            {
                "file": options.file,
                "version": checked.version,
                "madeAtMs": checked.made_ms,
                "files": checked.files,
                "leftOut": dict(checked.left_out),
                "problems": list(checked.problems),
            }
        )
    else:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checked.made_ms / 1000))
        emit(f"whole: {checked.files} files, made {made} by openclaw-kernel {printable(checked.version)}")
        _show_left_out(checked.left_out)
        _show_problems(checked.problems)
    return FAILED if checked.problems else OK


def restore(options: argparse.Namespace) -> int:
    """Put one back."""
    from openclaw_config.home import find_home
    from openclaw_kernel.backup.restoring import restore as put_back

    home = find_home(options.home)
    with _named_failures():
        restored = put_back(Path(options.file).expanduser().absolute(), home, replace=options.replace)
    if options.json:
        emit_json(
            {
                "home": str(restored.home),
                "files": restored.files,
                "aside": None if restored.aside is None else str(restored.aside),
                "keptWithdrawals": restored.kept_withdrawals,
                "problems": list(restored.problems),
            }
        )
        return OK
    emit(f"restored {restored.files} files into {restored.home}")
    if restored.aside is not None:
        emit(f"what was there is now {restored.aside}")
    if restored.kept_withdrawals:
        emit("devices that were removed or revoked since the backup stay so")
    _show_problems(restored.problems)
    return OK


def _show_left_out(left_out: Mapping[str, str]) -> None:
    for name, reason in left_out.items():
        if not reason.startswith(("it is of the process", "the copy of the database", "the log is")):
            note(f"left out: {printable(name)}: {printable(reason)}", YELLOW)


def _show_problems(problems: Sequence[str]) -> None:
    for problem in problems:
        note(f"problem: {printable(problem)}", YELLOW)


@contextmanager
def _named_failures() -> Iterator[None]:
    from openclaw_kernel.backup.contents import BackupError

    try:
        yield
    except BackupError as error:
        raise CommandFailed(f"backup: {error}") from error
