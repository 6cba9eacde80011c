"""Programs whose output is a secret: `${exec:/PATH/OF/PROGRAM ARGUMENTS}`. No shell, no search path, no environment but what is named.

Who can replace the program would be handed to the gateway, so the program, its folder and all above it have to be ours or root's.
"""

from __future__ import annotations

import os
import shlex
import signal
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from subprocess import Popen

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_CHUNK: Final = 65_536
_BY_HAND: Final = "run it by hand in the state folder to see why; what it writes to stderr is not shown here"


class ProgramFailed(Exception):
    """The program gave no secret; `found` and `cure` say why and what to do, never what it wrote."""

    def __init__(self, found: str, cure: str) -> None:
        super().__init__(f"{found}; {cure}")
        self.found = found
        self.cure = cure


def run_program(line: str, *, folder: Path, environment: Mapping[str, str], seconds: float, limit: int) -> str:
    """Run the program of an exec reference in a folder and return what it wrote to stdout, stripped; raise `ProgramFailed`."""
    argv = _split(line)
    program = _trusted(argv[0])
    output = _run(program, argv, folder=folder, environment=environment, seconds=seconds, limit=limit)
    try:
        text = output.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ProgramFailed(f"what {argv[0]} wrote is not UTF-8 text", "let it write the secret, alone") from None
    if not text or "\0" in text:
        raise ProgramFailed(f"{argv[0]} wrote {'a NUL character' if text else 'nothing'}", "let it write the secret, alone")
    return text


def _split(line: str) -> list[str]:
    try:
        argv = shlex.split(line)
    except ValueError as error:
        found = f"the command cannot be split into arguments ({str(error).lower()})"
        raise ProgramFailed(found, "quote it as for a shell") from None
    if not argv:
        raise ProgramFailed("the reference names no program", "write ${exec:/PATH/OF/PROGRAM ARGUMENTS}")
    if not argv[0].startswith("/"):
        raise ProgramFailed(f"the program {argv[0]!r} is no absolute path", f"write where it lies, as `command -v {argv[0]}` prints it")
    if any("\0" in argument for argument in argv):
        raise ProgramFailed("the command holds a NUL character", "leave it out")
    return argv


def _trusted(name: str) -> Path:
    """Return the program with its links followed; raise `ProgramFailed` where others could have put another in its place."""
    try:
        program = Path(name).resolve(strict=True)
        # Who can write beside a link on the way chooses the program as well.
        links = _links(Path(name))
        own = {program, *(link.parent for link in links), program.parent}
        parts = dict.fromkeys([program, *(above for link in links for above in link.parents), *program.parents])
        modes = {part: part.stat() for part in parts}
    except (OSError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or "its links lead in a circle").lower()
        raise ProgramFailed(f"the program {name} cannot be found ({reason})", "write where it lies") from None
    if not stat.S_ISREG(modes[program].st_mode):
        raise ProgramFailed(f"{name} is no program", "name a file that can be run")
    for part, status in modes.items():
        what = f"the program {name}" if part == program else f"{part}, above the program {name},"
        if status.st_uid not in {0, os.geteuid()}:
            raise ProgramFailed(f"{what} belongs to another user (uid {status.st_uid})", "name a program of your own or of root's")
        # In a sticky folder nobody can replace what is another's; the program's own has to be closed all the same.
        is_sticky = part not in own and status.st_mode & stat.S_ISVTX
        if status.st_mode & _OTHERS_WRITE and not is_sticky:
            raise ProgramFailed(f"{what} can be written by others", f"chmod go-w {shlex.quote(str(part))}")
    return program


def _links(path: Path) -> list[Path]:
    """Return the path and what its links lead to, one after the other; they are known to end."""
    found = [path]
    while found[-1].is_symlink():
        # Not normalised: `..` behind a link to a folder leads elsewhere than it reads.
        found.append(found[-1].parent / found[-1].readlink())
    return found


def _run(program: Path, argv: list[str], *, folder: Path, environment: Mapping[str, str], seconds: float, limit: int) -> bytes:
    # Imported here: a config without such a reference does not pay for it.
    import subprocess

    try:
        process = subprocess.Popen(
            argv,
            executable=program,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramFailed(f"{argv[0]} cannot be run ({(error.strerror or str(error)).lower()})", "make it a program that runs") from None
    deadline = time.monotonic() + seconds
    with process:
        try:
            output = _read(process, deadline, limit)
            if len(output) > limit:
                raise ProgramFailed(f"{argv[0]} wrote more than {limit} bytes", "let it write the secret, alone")
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            found = f"{argv[0]} did not end within {seconds:g} s"
            raise ProgramFailed(found, "let it ask nobody, or raise secrets.exec.timeoutSeconds") from None
        finally:
            # Also what it started and left behind.
            _kill_group(process.pid)
    if status:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
        raise ProgramFailed(f"{argv[0]} {how}", _BY_HAND)
    return output


def _read(process: Popen[bytes], deadline: float, limit: int) -> bytes:
    """Return what it writes until it closes its output or has written more than the limit; raise `TimeoutError`."""
    import selectors

    output = bytearray()
    assert process.stdout is not None  # noqa: S101 - it was given a pipe
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(output) <= limit:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            chunk = os.read(process.stdout.fileno(), _CHUNK)
            if not chunk:
                break
            output += chunk
    return bytes(output)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
