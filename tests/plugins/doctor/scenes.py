"""State folders as the first start makes them, with things put wrong in them, and the checks of doctor run on them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from openclaw_config.home import prepare_home
from openclaw_kernel.api import Check, CheckContext, MachineFacts, ProbeAnswer, ProcessFacts
from openclaw_kernel.api.doctor import Instruments, KeptLogin, Leftover, Limits, Listening, Owner, ServiceUnit, Space, Versions
from openclaw_kernel.checks.gathering import Gathered
from openclaw_kernel.checks.running import Reported, run_checks
from openclaw_kernel.checks.scene import survey
from openclaw_kernel.checks.sections import section_faults
from openclaw_kernel.host.discovery import Discovery, discover
from openclaw_kernel.host.guard import Guard
from openclaw_kernel.host.registry import Owned
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_plugins.conversation.tables import MIGRATIONS
from openclaw_plugins.doctor.catalogue import CHECKS

PLENTY = Space(total_bytes=1 << 40, free_bytes=1 << 39, total_inodes=1 << 20, free_inodes=1 << 19)
WELL = Limits(
    age_ms=3_600_000,
    open_files=40,
    most_open_files=65_536,
    memory_bytes=70_000_000,
    most_memory_bytes=4_000_000_000,
    watches=65_536,
    watchers=128,
    encoding="utf-8",
)

Context = Callable[[CheckContext], CheckContext]


@dataclass(frozen=True)
class Calm:
    """Instruments of a machine of which there is nothing to say; what is in the state folder is asked of the real ones.

    `told` is what the running gateway answers, by method; nothing means that none runs.
    """

    real: Instruments
    told: Mapping[str, Any] = field(default_factory=dict)
    disk: Space = PLENTY
    most: Limits = WELL
    names: Callable[[str], Sequence[str]] = lambda _host: ["192.0.2.1"]
    port: Sequence[Listening] = ()
    left: Sequence[Leftover] = ()
    holder: Owner | None = None
    services: Sequence[ServiceUnit] = ()
    version: Versions | None = None
    web: Callable[[str], ProbeAnswer] | None = None

    def space(self, path: Path) -> Space | None:
        return self.disk

    def resolve(self, host: str) -> Sequence[str]:
        return self.names(host)

    def ask(self, url: str) -> ProbeAnswer:
        return self.real.ask(url) if self.web is None else self.web(url)

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        answer = self.told.get(method)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def listening(self, port: int) -> Sequence[Listening]:
        return self.port

    def leftovers(self) -> Sequence[Leftover]:
        return self.left

    def owner(self) -> Owner:
        return self.real.owner() if self.holder is None else self.holder

    def limits(self) -> Limits:
        return self.most

    def units(self) -> Sequence[ServiceUnit]:
        return self.services

    def logins(self) -> Sequence[KeptLogin]:
        return self.real.logins()

    def certificate_ends_ms(self, path: Path) -> int | None:
        return self.real.certificate_ends_ms(path)

    def versions(self) -> Versions:
        return self.real.versions() if self.version is None else self.version

    def integrity(self, seconds: float) -> Sequence[str]:
        return self.real.integrity(seconds)


@cache
def bundled() -> Discovery:
    """The plugins of this project, and no other."""
    return Discovery(plugins=tuple(found for found in discover().plugins if found.bundled))


@dataclass(frozen=True)
class Scene:
    """What is put into a state folder: a text or keys for openclaw.yaml, files, and facts that a test cannot bring about."""

    config: Mapping[str, Any] | str = ""
    prepare: Callable[[Path], None] = lambda _home: None
    context: Context = lambda context: context
    database: bool = False

    def look(self, home: Path) -> CheckContext:
        """Make the folder, and look at it."""
        prepare_home(home)
        if self.config:
            text = self.config if isinstance(self.config, str) else json.dumps(self.config, indent=1)
            (home / "openclaw.yaml").write_text(text, encoding="utf-8")
        if self.database:
            asyncio.run(_make_database(home))
        self.prepare(home)
        return self.again(home)

    def again(self, home: Path) -> CheckContext:
        """Look at it once more."""
        scene = survey(home, bundled(), running=None, tolerant=True)
        sections = asyncio.run(section_faults(Guard(), scene.loaded, bundled()))
        return self.context(calm(replace(scene.context, faults=(*scene.context.faults, *sections))))


@dataclass(frozen=True)
class Seed:
    """A state folder in which a check finds something, and its neighbour, in which it does not."""

    wrong: Scene
    right: Scene


async def _make_database(home: Path) -> None:
    store = SqliteStore(home / "state.sqlite3")
    await store.open({"conversation": MIGRATIONS})
    await store.close()


def calm(context: CheckContext) -> CheckContext:
    """The same state folder on a machine of which there is nothing to say, for nobody knows where tests run."""
    home = context.files.get(context.home)
    user = os.geteuid() if home is None else home.user_id
    process = ProcessFacts(is_gateway=True, user_id=user, umask=0o022, core_bytes=0, variables=("PATH",))
    machine = MachineFacts(now_ms=context.machine.now_ms, clock_synchronised=True, login_users=("ada",), file_system="ext4")
    return replace(context, process=process, machine=machine, instruments=Calm(context.instruments))


def tools(**changes: Any) -> Context:
    """Instruments that tell something else."""

    def changed(context: CheckContext) -> CheckContext:
        assert isinstance(context.instruments, Calm)
        return replace(context, instruments=replace(context.instruments, **changes))

    return changed


def told(**answers: Any) -> Context:
    """A running gateway that answers so; two underscores stand for a dot."""
    return tools(told={method.replace("__", "."): answer for method, answer in answers.items()})


def found_by(check_id: str, context: CheckContext) -> list[Reported]:
    """Run one check, as the command does."""
    return run([check for check in CHECKS if check.id == check_id], context)


def run(checks: Sequence[Check], context: CheckContext) -> list[Reported]:
    """Run some."""
    gathered = Gathered([Owned("doctor", check) for check in checks], {})
    return asyncio.run(run_checks(gathered, context, Guard(), kind="doctor"))


def execute(home: Path, *statements: str) -> None:
    """Change the database."""
    with closing(sqlite3.connect(home / "state.sqlite3")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
