"""What checks of kind `doctor` may ask the machine and the running gateway: `openclaw-kernel doctor` runs them.

Every call is bounded in time and size, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from openclaw_kernel.api.probe import ProbeAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What a file system has left for the gateway's user. Numbers of inodes are 0 where it has no fixed number of them."""

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int
    read_only: bool = False
    no_exec: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Who listens on a port of this machine; `pid` and `name` are None where the system does not tell."""

    address: str
    pid: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A process that a program of an earlier gateway of this state folder left behind."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the gateway's process, or one like it, has and may use. What could not be found out is None."""

    age_ms: int | None = None
    """How long it has run, by a clock that nobody sets."""
    open_files: int | None = None
    most_open_files: int | None = None
    memory_bytes: int | None = None
    """What it has in memory."""
    most_memory_bytes: int | None = None
    """The narrowest of its own limit and that of its control groups."""
    watches: int | None = None
    """Folders that this user may have watched for changes."""
    watchers: int | None = None
    """How many programs of this user may watch at once."""
    encoding: str | None = None
    """In which names of files and the terminal are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUnit:
    """A definition by which a supervisor starts the gateway; `states` are its words for it where it could be asked."""

    path: Path
    manager: str
    """`systemd --user`, `systemd` or `launchd`."""
    text: str
    states: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who holds the state folder, as the lock's file says; `alive` tells whether there is such a process."""

    pid: int | None = None
    alive: bool = False
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLogin:
    """A login of a provider in a file of the state folder. `expires_ms` is None where its server did not tell."""

    provider: str
    expires_ms: int | None
    renewable: bool
    readable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What runs, and what the database was written by."""

    package: str
    python: tuple[int, int, int]
    sqlite: tuple[int, int, int]
    known: Mapping[str, int]
    """By owner, how many migrations this version has; owners whose plugins were not asked are not in it."""
    applied: Mapping[str, int]
    """By owner, how many the database has."""
    written_by: str | None = None
    """The newest version that changed the database's tables, where it is known."""


class Instruments(Protocol):
    """What a check may ask. What cannot be found out is None, an empty list, or `OSError` where it says so."""

    def space(self, path: Path) -> Space | None:
        """Look at the file system of a path, or of the nearest folder above that is there."""
        ...

    def resolve(self, host: str) -> Sequence[str]:
        """Return the addresses of a name; raise `OSError`."""
        ...

    def ask(self, url: str) -> ProbeAnswer:
        """Ask an http or https address without any credential, following no redirect; raise `OSError`."""
        ...

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """Call a method of the running gateway; None where none runs. Raise `OSError` where it does not answer, or refuses."""
        ...

    def listening(self, port: int) -> Sequence[Listening]:
        """Return who listens on a port."""
        ...

    def leftovers(self) -> Sequence[Leftover]:
        """Return what programs of an earlier gateway of this state folder left."""
        ...

    def owner(self) -> Owner:
        """Return who holds the state folder."""
        ...

    def limits(self) -> Limits:
        """Return what the gateway's process may use."""
        ...

    def units(self) -> Sequence[ServiceUnit]:
        """Return the definitions of services that start a gateway."""
        ...

    def logins(self) -> Sequence[KeptLogin]:
        """Return the logins that are kept in files."""
        ...

    def certificate_ends_ms(self, path: Path) -> int | None:
        """Return when a PEM certificate ends; None where there is none that can be read."""
        ...

    def versions(self) -> Versions:
        """Return the versions of what runs and of what is in the database."""
        ...

    def integrity(self, seconds: float) -> Sequence[str]:
        """Look through the database for what is broken, for so long at most, going on where the look before ended; return the faults."""
        ...
