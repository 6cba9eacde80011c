"""What checks see of one state folder, gathered without a running gateway and without running anything of anybody's."""

from __future__ import annotations

import hmac
import os
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from openclaw_config.home import config_path
from openclaw_config.inventory import Slot, inventory
from openclaw_config.issues import KeyPath
from openclaw_config.layers import Layer
from openclaw_config.load import Loaded, load
from openclaw_config.migrating import pending
from openclaw_config.redaction import REFERENCE, is_secret_place
from openclaw_config.secrets import Secret
from openclaw_config.source import Resolver
from openclaw_kernel.api.check import CheckContext, FileEntry, SecretSlot
from openclaw_kernel.api.probe import Probe
from openclaw_kernel.api.strength import weakness_of_secret
from openclaw_kernel.audit.verifying import verify_files
from openclaw_kernel.checks.files import entry_of, files_below
from openclaw_kernel.checks.instruments import Ask, MachineInstruments
from openclaw_kernel.checks.machine import machine_facts, process_facts, variables_of
from openclaw_kernel.checks.plugins import installed_plugins
from openclaw_kernel.checks.salvage import Salvaged, salvage
from openclaw_kernel.host.discovery import Discovery
from openclaw_kernel.packages.journal import cut_off

DATABASE: Final = "state.sqlite3"
_NOT_ASKED: Final = frozenset({"keyring", "exec"})
"""Kinds of references that ask somebody: a person to unlock something, or a program that does what it likes."""


@dataclass(frozen=True, slots=True)
class Running:
    """The gateway that owns the state folder now."""

    pid: int
    url: str
    ask: Ask | None = None
    """Puts a request to it."""


class SurveyResolver(Resolver):
    """Puts a random secret where a reference leads nowhere, or to somebody who would have to be asked; `unread` are the places."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], source: Mapping[str, Any]) -> None:
        super().__init__(name, folder, environment, source)
        self.unread: set[KeyPath] = set()

    def _text(self, text: str, where: KeyPath) -> Any:
        reference = REFERENCE.match(text)
        if reference is not None and reference[1] in _NOT_ASKED:
            return self._standin(where)
        known = len(self.issues)
        value = super()._text(text, where)
        if len(self.issues) == known or not (reference is not None or is_secret_place(where)):
            return value
        del self.issues[known:]
        return self._standin(where)

    def _standin(self, where: KeyPath) -> Secret:
        self.unread.add(where)
        return Secret(secrets.token_urlsafe(32))


class StateFile:
    """Implements `StateReader` on the database file, beside a running gateway or without one."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / DATABASE
        self._verdict: Mapping[str, Any] | None = None

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows; none where a table that it names is not there, or no database. Raise `sqlite3.Error`."""
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, isolation_level=None)) as connection:
            connection.execute("PRAGMA query_only = ON")
            try:
                return list(connection.execute(statement, values))
            except sqlite3.OperationalError as error:
                if str(error).startswith(("no such table", "no such column")):
                    return []
                raise

    def verify_audit(self) -> Mapping[str, Any]:
        """Check the whole audit log, once; raise `OSError`, `sqlite3.Error`."""
        if self._verdict is None:
            self._verdict = self._verify()
        return self._verdict

    def _verify(self) -> Mapping[str, Any]:
        if not self.rows("SELECT 1 FROM sqlite_master WHERE name = 'kernel_audit'"):
            return {"ok": True, "rows": 0, "checkpoints": 0, "fault": None}
        return verify_files(self._path, self._home)


@dataclass(frozen=True, slots=True)
class Scene:
    """The context, and the file it was loaded from."""

    context: CheckContext
    loaded: Loaded


def survey(home: Path, discovery: Discovery, *, running: Running | None, probe: Probe | None = None, tolerant: bool = False) -> Scene:
    """Look at everything once.

    Raise `ConfigError` where openclaw.yaml cannot be used; but `tolerant` takes what is valid of it, and its faults.
    """
    path = config_path(home)
    environment = (variables_of(running.pid) if running is not None else None) or os.environ
    if tolerant:
        salvaged = salvage(path, environment, SurveyResolver)
    else:
        found = load(path, environment=environment, resolve_by=SurveyResolver)
        salvaged = Salvaged(found, found.text, ())
    loaded = salvaged.loaded
    context = CheckContext(
        home=home,
        config=loaded.config,
        document=loaded.document,
        config_path=path,
        files=files_below(home),
        look=_look,
        secrets=_slots(loaded, environment),
        plugins=installed_plugins(loaded.config, discovery),
        plugin_problems=discovery.problems,
        cut_off_changes=[(change.found, change.cure) for change in cut_off(home)],
        state=StateFile(home),
        process=process_facts(None if running is None else running.pid),
        machine=machine_facts(home),
        probe=probe,
        instruments=MachineInstruments(
            home=home,
            database=home / DATABASE,
            pid=None if running is None else running.pid,
            ask_gateway=None if running is None else running.ask,
        ),
        faults=salvaged.faults,
        old_forms={step.migration.title: step.keys for step in pending(loaded.source)},
        config_hash=None if salvaged.faults else loaded.hash,
        text=salvaged.text,
    )
    return Scene(context, loaded)


def _look(path: Path) -> FileEntry | None:
    return entry_of(path)


def _slots(loaded: Loaded, environment: Mapping[str, str]) -> list[SecretSlot]:
    resolver = SurveyResolver(loaded.path.name, loaded.path.parent, environment, loaded.document)
    key = secrets.token_bytes(32)
    return [_slot(_of_variable(slot, loaded), resolver, key) for slot in inventory(loaded.document)]


def _of_variable(slot: Slot, loaded: Loaded) -> Slot:
    # What an environment variable sets stands in no file.
    origin = loaded.layers.origin(slot.where)
    is_variable = slot.kind == "literal" and origin is not None and origin.layer is Layer.ENVIRONMENT
    return replace(slot, kind="variable") if is_variable else slot


def _slot(slot: Slot, resolver: SurveyResolver, key: bytes) -> SecretSlot:
    resolved = resolver.resolve(slot.value, slot.where)
    text = resolved.unwrap() if isinstance(resolved, Secret) else str(resolved)
    is_read = slot.where not in resolver.unread
    reference = REFERENCE.match(str(slot.value))
    return SecretSlot(
        key=slot.where,
        kind=slot.kind,
        used_by=slot.used_by,
        target=None if reference is None else reference[2],
        digest=hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex() if is_read else None,
        weakness=weakness_of_secret(text) if is_read else None,
        name=slot.name,
        text=text if slot.kind == "literal" else None,
    )
