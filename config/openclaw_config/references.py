"""What the references of a config name, read when the config is loaded. No pydantic; what only some kinds need is imported for them.

`${env:NAME}`, `${file:PATH}` (relative to the state folder), `${keyring:SERVICE/NAME}`, `${exec:/PATH/OF/PROGRAM ARGUMENTS}`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_config.redaction import KINDS

LONGEST_SECRET: Final = 65_536
EXEC_SECONDS: Final = 10.0
_LONGEST_EXEC_SECONDS: Final = 60.0
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unresolved(Exception):
    """A reference names nothing; `found` says what is there instead, `cure` what to do."""

    def __init__(self, found: str, cure: str) -> None:
        super().__init__(f"{found}; {cure}")
        self.found = found
        self.cure = cure


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where references lead from. `passed` are the variables of `environment` that programs get to see."""

    folder: Path
    environment: Mapping[str, str]
    passed: tuple[str, ...] = ()
    exec_seconds: float = EXEC_SECONDS

    @classmethod
    def of(cls, folder: Path, environment: Mapping[str, str], source: Mapping[str, Any]) -> Places:
        """Take what a config file, not validated yet, says of programs in `secrets.exec`; what is odd there counts as not said."""
        section: Any = source
        for key in ("secrets", "exec"):
            section = section.get(key) if isinstance(section, Mapping) else None
        said: Mapping[str, Any] = section if isinstance(section, Mapping) else {}
        names, seconds = said.get("environment"), said.get("timeoutSeconds")
        is_usable = isinstance(seconds, int | float) and 0 < seconds <= _LONGEST_EXEC_SECONDS
        return cls(
            folder=folder,
            environment=environment,
            passed=tuple(str(name) for name in names if _VARIABLE_NAME.fullmatch(str(name))) if isinstance(names, list) else (),
            exec_seconds=float(seconds) if is_usable and seconds is not None else EXEC_SECONDS,
        )

    def read(self, kind: str, target: str) -> str:
        """Return the secret that a reference of this kind names; raise `Unresolved`."""
        return _READERS[kind](self, target)


def _variable(places: Places, name: str) -> str:
    value = places.environment.get(name)
    if not value:
        raise Unresolved(f"the environment variable {name} is not set", f"set {name}, or write the value")
    return value


def _file(places: Places, target: str) -> str:
    cure = "put the secret into that file, alone"
    try:
        path = places.folder / Path(target).expanduser()
        content = read_regular(path, LONGEST_SECRET)
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else "not UTF-8 text, or no path"
        raise Unresolved(f"the file {target!r} cannot be read ({reason})", cure) from None
    if content is None:
        raise Unresolved(f"the file {path} is longer than {LONGEST_SECRET} bytes", cure)
    if not content.strip():
        raise Unresolved(f"the file {path} is empty", cure)
    return content.strip()


def _keyring(_places: Places, target: str) -> str:
    from openclaw_config.keyrings import KeyringFailed, read_keyring

    service, slash, name = target.rpartition("/")
    if not (slash and service and name):
        raise Unresolved(f"the keyring entry {target!r} is no SERVICE/NAME", "write ${keyring:SERVICE/NAME}")
    try:
        value = read_keyring(service, name)
    except KeyringFailed as error:
        raise Unresolved(error.found, error.cure) from None
    if not value:
        raise Unresolved(
            f"the keyring has no entry {name!r} of the service {service!r}", f"add it, e.g. with: keyring set {service} {name}"
        )
    return value


def _exec(places: Places, line: str) -> str:
    from openclaw_config.programs import ProgramFailed, run_program

    environment = {name: places.environment[name] for name in places.passed if name in places.environment}
    try:
        return run_program(line, folder=places.folder, environment=environment, seconds=places.exec_seconds, limit=LONGEST_SECRET)
    except ProgramFailed as error:
        raise Unresolved(error.found, error.cure) from None


_READERS: Final = dict(zip(KINDS, (_variable, _file, _keyring, _exec), strict=True))


def read_regular(path: Path, limit: int) -> str | None:
    """The text of a regular file, None where it is longer than `limit` bytes; raise `OSError`, or `ValueError` for what is no text."""
    # Opened without waiting: a pipe that nobody writes to would hold the start for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is no regular file")
        content = file.read(limit + 1)
    return None if len(content) > limit else content.decode("utf-8")
