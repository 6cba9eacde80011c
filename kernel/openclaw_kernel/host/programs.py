"""Whether a program may be run as a plugin: only what nobody but the gateway's user and root could have put there."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from openclaw_kernel.host.manifest import ManifestError

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def checked_folder(folder: Path) -> None:
    """Raise `ManifestError` where somebody else could change the folder or the manifest in it."""
    for path in (folder.parent, folder, folder / "plugin.toml"):
        _refuse_foreign(path)


def checked_command(command: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Return the command line with `./` as the folder; raise `ManifestError` where its program or a file of it cannot be trusted."""
    resolved = tuple(str(folder / word[2:]) if word.startswith("./") else word for word in command)
    program = Path(resolved[0])
    if not program.is_absolute():
        raise ManifestError(f"{folder / 'plugin.toml'}: child.command begins with {command[0]!r}; give the program's absolute path")
    _refuse_foreign(program)
    if not os.access(program, os.X_OK) or not program.is_file():
        raise ManifestError(f"{program}: is no program that can be run; correct child.command")
    for word, given in zip(resolved[1:], command[1:], strict=True):
        if given.startswith("./"):
            _refuse_foreign(Path(word))
    return resolved


def _refuse_foreign(path: Path) -> None:
    try:
        # Of a link it is the end that counts: interpreters are often linked.
        found = path.stat()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error}); put it there") from error
    if found.st_uid not in {0, os.geteuid()}:
        raise ManifestError(f"{path}: belongs to another user ({found.st_uid}); make it belong to the gateway's user")
    if found.st_mode & _OTHERS_MAY_WRITE:
        raise ManifestError(f"{path}: can be changed by others; run chmod go-w on it")
