"""pip in a process of its own: what it may touch, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from openclaw_kernel.api.children import Leash
from openclaw_kernel.api.errors import InvalidRequest, Unavailable

LONGEST_SECONDS: Final = 600.0
_KEPT_LINES: Final = 12
_LONGEST_LINE: Final = 500
_OPTIONS: Final = ("--no-input", "--disable-pip-version-check", "--no-color", "--quiet", "--progress-bar", "off")

_VERSION: Final = re.compile(r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9]+([._-][a-z0-9]+)*)?", re.ASCII)

Say = Callable[[str], None]


def key_of(name: str) -> str:
    """The name of a distribution as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions() -> dict[str, str]:
    """Every installed distribution with its version, by comparable name; of several copies the first on the path counts."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(OSError, TypeError, KeyError):
            name, version = distribution.metadata["Name"], distribution.version
            if name and version:
                found.setdefault(key_of(name), version)
    return found


def as_path(requirement: str) -> Path | None:
    """The file or folder that a requirement names on this machine, None where it names something to look for elsewhere."""
    path = Path(requirement).expanduser()
    if path.exists() and (path.is_absolute() or os.sep in requirement or path.suffix in {".whl", ".gz", ".zip"}):
        return path.resolve()
    return None


def checked(requirement: str, *, index: bool) -> str:
    """Return what pip is to be given; raise `InvalidRequest` for an option, and for what is no path where only a path may be."""
    if requirement.startswith("-") or any(ord(character) < ord(" ") for character in requirement):
        raise InvalidRequest(f"requirement: found {requirement[:80]!r}; give a wheel, a folder, or what pip takes without options")
    path = as_path(requirement)
    if path is not None:
        return str(path)
    if not index:
        raise InvalidRequest(
            f"requirement: there is no file or folder {requirement[:200]!r}; to have pip look for it elsewhere, say --index"
        )
    return requirement


class Pip:
    """Runs pip of this Python. All else that is installed stays as it is: pip fails rather than touch it."""

    def __init__(self, home: Path) -> None:
        self._home = home

    async def install(self, requirement: str, say: Say, *, index: bool, report: Path, upgrades: str | None = None) -> None:
        """Install a requirement, over the distribution `upgrades`; raise `InvalidRequest` with pip's own words.

        What it is going to install is in the file `report` before it touches anything.
        """
        local = as_path(requirement) is not None
        # Without the index nothing is fetched, also not what builds a folder.
        options = [] if index else ["--no-index", "--no-build-isolation"]
        if upgrades is not None:
            options.append("--upgrade")
            if local:
                # A version that is built again has the same number.
                options += ["--force-reinstall", "--no-deps"]
        with _constraints(versions(), but=upgrades) as constraints:
            await self._run(["install", *_OPTIONS, "--report", str(report), "--constraint", constraints, *options, requirement], say)

    async def uninstall(self, distributions: Sequence[str], say: Say) -> None:
        """Remove distributions; raise `InvalidRequest` with pip's own words."""
        if distributions:
            await self._run(["uninstall", "--yes", *_OPTIONS[:4], *distributions], say)

    async def _run(self, arguments: Sequence[str], say: Say) -> None:
        if importlib.util.find_spec("pip") is None:
            raise InvalidRequest(f"pip is not installed beside {sys.executable}; run {sys.executable} -m ensurepip")
        leash = Leash(self._home)
        last: deque[str] = deque(maxlen=_KEPT_LINES)
        try:
            process = await leash.start(
                asyncio.create_subprocess_exec,
                [sys.executable, "-m", "pip", *arguments],
                environment=_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(LONGEST_SECONDS):
                await _follow(process, last, say)
                status = await process.wait()
        except TimeoutError:
            raise Unavailable(f"pip did not end in {LONGEST_SECONDS:g} s and was ended; see whether its index can be reached") from None
        except OSError as error:
            raise Unavailable(f"pip cannot be started: {error}") from error
        finally:
            leash.release()
        if status != 0:
            raise InvalidRequest(f"pip {arguments[0]} failed: {' / '.join(last) or f'exit code {status}'}")


async def _follow(process: asyncio.subprocess.Process, last: deque[str], say: Say) -> None:
    stream = process.stdout
    if stream is None:
        return
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            # Longer than the stream's bound; what follows is the rest of it.
            continue
        if not line:
            return
        text = line.decode("utf-8", "replace").strip()[:_LONGEST_LINE]
        if text:
            last.append(text)
            say(text)


def _environment() -> Mapping[str, str]:
    # What tells pip where to look is the owner's; the gateway's own secrets are none of its business.
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    given = {name: value for name, value in os.environ.items() if name in names or name.startswith("PIP_") or name.lower() in _PROXIES}
    return {**given, "PYTHONSAFEPATH": "1", "PYTHONIOENCODING": "utf-8"}


_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "no_proxy"})


@contextlib.contextmanager
def _constraints(installed: Mapping[str, str], *, but: str | None) -> Iterator[str]:
    # One that no rule of versions knows would make pip refuse all of them.
    left = {name: version for name, version in installed.items() if _VERSION.fullmatch(version) and (but is None or name != key_of(but))}
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in left.items()))
        file.flush()
        yield file.name
