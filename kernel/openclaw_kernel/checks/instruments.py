"""What checks of kind `doctor` may ask of the machine, the network and the running gateway."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sqlite3
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlsplit

from openclaw_config.secret_files import FOLDER, LOGINS
from openclaw_kernel import __version__
from openclaw_kernel.api.children import leftovers
from openclaw_kernel.api.doctor import KeptLogin, Leftover, Limits, Listening, Owner, ServiceUnit, Space, Versions
from openclaw_kernel.api.probe import ProbeAnswer
from openclaw_kernel.checks.integrity import IntegrityLook
from openclaw_kernel.checks.system import limits_of, listening_on, service_units, space_of
from openclaw_kernel.lock import read_owner
from openclaw_kernel.store.migrations import KERNEL, KERNEL_MIGRATIONS

Ask: TypeAlias = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""A request to the running gateway; raises `OSError`."""

SECONDS: Final = 5.0
_BODY: Final = 65_536


@dataclass(frozen=True, slots=True)
class MachineInstruments:
    """Implements `openclaw_kernel.api.Instruments`. `ask_gateway` is None where no gateway runs."""

    home: Path
    database: Path
    pid: int | None = None
    ask_gateway: Ask | None = None
    _told: dict[str, Mapping[str, Any] | OSError] = field(default_factory=dict, repr=False)
    """What the gateway answered in this run; one that did not is not waited for again."""

    def space(self, path: Path) -> Space | None:
        """Look at a file system."""
        return space_of(path)

    def resolve(self, host: str) -> Sequence[str]:
        """Return the addresses of a name; raise `OSError`."""
        # Imported here: one check needs it.
        import socket

        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def ask(self, url: str) -> ProbeAnswer:
        """Ask an address; raise `OSError`."""
        if urlsplit(url).scheme not in {"http", "https"}:
            raise OSError(f"{url}: is no http or https address")
        opener = urllib.request.OpenerDirector()
        # No redirect is followed, and an answer of any status is an answer.
        for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
            opener.add_handler(handler)
        request = urllib.request.Request(url, headers={"Accept": "*/*"})  # noqa: S310 - http and https alone, seen above
        try:
            with opener.open(request, timeout=SECONDS) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return ProbeAnswer(status=answer.status, headers=headers, body=answer.read(_BODY))
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"no HTTP came back ({type(error).__name__})") from error

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """Call a method of the running gateway, once in a run; raise `OSError`."""
        if self.ask_gateway is None:
            return None
        silent = self._told.get("")
        if isinstance(silent, OSError):
            raise silent
        key = f"{method} {sorted((params or {}).items())}"
        if key not in self._told:
            try:
                self._told[key] = self.ask_gateway(method, params or {})
            except TimeoutError as error:
                self._told[""] = error
                raise
            except OSError as error:
                self._told[key] = error
        found = self._told[key]
        if isinstance(found, OSError):
            raise found
        return found

    def listening(self, port: int) -> Sequence[Listening]:
        """Return who listens on a port."""
        return listening_on(port)

    def leftovers(self) -> Sequence[Leftover]:
        """Return what an earlier gateway left running."""
        return [Leftover(pid=pid, name=name) for pid, name in leftovers(self.home, self.pid)]

    def owner(self) -> Owner:
        """Return who holds the state folder."""
        said = read_owner(self.home)
        pid, url = said.get("pid"), said.get("url")
        if not isinstance(pid, int) or pid <= 0:
            return Owner()
        return Owner(pid=pid, alive=_is_alive(pid), url=url if isinstance(url, str) else None)

    def limits(self) -> Limits:
        """Return what the gateway may use."""
        return limits_of(self.pid)

    def units(self) -> Sequence[ServiceUnit]:
        """Return the definitions of services."""
        return service_units(Path.home())

    def logins(self) -> Sequence[KeptLogin]:
        """Return the logins that are kept in files; no token leaves this function."""
        found: list[KeptLogin] = []
        with contextlib.suppress(OSError):
            found += [_login(path) for path in sorted((self.home / FOLDER / LOGINS).glob("*.json"))]
        return found

    def certificate_ends_ms(self, path: Path) -> int | None:
        """Return when a certificate ends."""
        from cryptography import x509

        try:
            return int(x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp() * 1000)
        except (OSError, ValueError):
            return None

    def versions(self) -> Versions:
        """Return the versions of what runs and of what the database was written by."""
        applied, written_by = _written(self.database)
        return Versions(
            package=__version__,
            python=sys.version_info[:3],
            sqlite=_triple(sqlite3.sqlite_version_info),
            known={KERNEL: len(KERNEL_MIGRATIONS)},
            applied=applied,
            written_by=written_by,
        )

    def integrity(self, seconds: float) -> Sequence[str]:
        """Look through the database."""
        return IntegrityLook(self.database, self.home).run(seconds)


def _triple(version: Sequence[int]) -> tuple[int, int, int]:
    return version[0], version[1], version[2]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _login(path: Path) -> KeptLogin:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        expires = said["expiresMs"]
        return KeptLogin(
            provider=path.stem, expires_ms=expires if isinstance(expires, int) else None, renewable=said["refreshToken"] is not None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return KeptLogin(provider=path.stem, expires_ms=None, renewable=False, readable=False)


def _written(database: Path) -> tuple[dict[str, int], str | None]:
    """What the database says of its migrations; nothing where it cannot be asked, which is another check's to tell."""
    if not database.exists():
        return {}, None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, isolation_level=None)) as connection:
            applied = dict(connection.execute("SELECT owner, max(number) FROM kernel_migrations GROUP BY owner").fetchall())
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name = 'kernel_migration_versions'")}
            written = connection.execute("SELECT DISTINCT version FROM kernel_migration_versions") if tables else ()
            versions = [str(version) for (version,) in written]
    except sqlite3.Error:
        return {}, None
    return applied, max(versions, key=_parts, default=None)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.replace("-", ".").split("."))
