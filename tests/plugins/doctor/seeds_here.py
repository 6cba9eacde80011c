"""What is put wrong in openclaw.yaml, in the state folder, in the database and on the machine, and what is not."""

from __future__ import annotations

import os
import sys
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from openclaw_kernel.api import CheckContext
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.store.sqlite import SqliteStore
from tests.plugins.doctor.scenes import PLENTY, WELL, Context, Scene, Seed, execute, told, tools

TOKEN = "gateway: {auth: {token: '${file:gateway.token}'}}\n"
SAFE = Scene()
HOUR_MS = 3_600_000
LONG_AGO = 1_000_000_000


def written(name: str, *, size: int | None = None, seconds: int | None = None) -> Callable[[Path], None]:
    """A file of the state folder, as long and as old as is said."""

    def prepare(home: Path) -> None:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        if size is not None:
            os.truncate(path, size)
        path.chmod(0o600)
        if seconds is not None:
            os.utime(path, (seconds, seconds))

    return prepare


def gone(name: str) -> Callable[[Path], None]:
    """A file is removed."""
    return lambda home: (home / name).unlink()


def mode(name: str, bits: int) -> Callable[[Path], None]:
    """A file has this mode."""
    return lambda home: (home / name).chmod(bits)


def folder(name: str) -> Callable[[Path], None]:
    """A folder stands in the place of a file."""

    def prepare(home: Path) -> None:
        (home / name).unlink(missing_ok=True)
        (home / name).mkdir()

    return prepare


def linked(target: str, *, there: bool) -> Callable[[Path], None]:
    """openclaw.yaml is a link."""

    def prepare(home: Path) -> None:
        path, real = home / "openclaw.yaml", home.parent / target
        text = path.read_text()
        path.unlink()
        if there:
            real.write_text(text)
        path.symlink_to(real)

    return prepare


def process(**changes: Any) -> Context:
    """Facts of the process."""
    return lambda context: replace(context, process=replace(context.process, **changes))


def machine(**changes: Any) -> Context:
    """Facts of the machine."""
    return lambda context: replace(context, machine=replace(context.machine, **changes))


def at(now_ms: int) -> Context:
    """Another day."""
    return machine(now_ms=now_ms)


def disk(**changes: Any) -> Scene:
    """A file system of which this is told."""
    return Scene(context=tools(disk=replace(PLENTY, **changes)))


def limits(**changes: Any) -> Scene:
    """Limits of which this is told."""
    return Scene(context=tools(most=replace(WELL, **changes)))


def versions(**changes: Any) -> Context:
    """Versions of which this is told."""

    def changed(context: CheckContext) -> CheckContext:
        return tools(version=replace(context.instruments.versions(), **changes))(context)

    return changed


def in_force(context: CheckContext) -> CheckContext:
    """A gateway that has this very file."""
    import hashlib

    assert context.text is not None
    return told(config__get={"appliedConfigHash": hashlib.sha256(context.text.encode()).hexdigest()})(context)


def broken_pages(home: Path) -> None:
    """The database has a page on which nothing makes sense."""
    path = home / "state.sqlite3"
    rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT 'x', i, printf('%900d', i) FROM n"
    execute(home, "PRAGMA journal_mode = DELETE", f"INSERT INTO kernel_key_value {rows}")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 * 4096 - 3 * 4096)
        file.write(b"\xff" * 4096)


def forged(home: Path) -> None:
    """Somebody wrote in the audit log."""
    import asyncio

    from openclaw_kernel.api.audit import BY_GATEWAY, AuditAction, AuditEntry

    async def write() -> None:
        store = SqliteStore(home / "state.sqlite3")
        await store.open({})
        trail = AuditTrail(store, home=home, now_ms=lambda: 1_700_000_000_000)
        await trail.open()
        for subject in ("a", "b", "c"):
            trail.note(AuditEntry(action=AuditAction.CHANNEL_STARTED, origin=BY_GATEWAY, subject=subject))
        await trail.close()
        await store.close()

    asyncio.run(write())
    triggers = "DROP TRIGGER kernel_audit_no_update"
    execute(home, triggers, "UPDATE kernel_audit SET subject = 'z' WHERE subject = 'b'")


def answers(state: str, when: str) -> Callable[[Path], None]:
    """An answer in this state."""
    columns = "outbox_id, channel, account_id, peer_kind, peer_id, text, state, next_attempt_ms, created_ms, updated_ms"
    values = f"'o', 'telegram', 'default', 'direct', '1', 'x', '{state}', 0, {when}, {when}"
    statement = f"INSERT INTO conversation_outbox ({columns}) VALUES ({values})"  # noqa: S608 - words of this file
    return lambda home: execute(home, statement)


def migrated_beyond(home: Path) -> None:
    """A newer version wrote the database."""
    execute(home, "UPDATE kernel_migrations SET number = 999 WHERE owner = 'kernel' AND number = 5")


WITH_UNKNOWN_KEYS = """\
# mine
gateway:
  prot: 18789   # the port
  colour:       # of the door
    - blue

    - green
logging: {level: info, lvel: debug}
channels:
  telegram:
    botTokn: x
"""
NOW = "CAST(strftime('%s', 'now') AS INTEGER) * 1000"


def included(home: Path) -> None:
    """A file that is included."""
    (home / "more.yaml").write_text("logging: {level: debug}\n")


def profile(name: str | None) -> Callable[[Path], None]:
    """The profile that is asked for; the test's own fixture forgets it."""

    def prepare(_home: Path) -> None:
        os.environ.pop("OPENCLAW_PROFILE", None)
        if name is not None:
            os.environ["OPENCLAW_PROFILE"] = name

    return prepare


def variable(value: str) -> Callable[[Path], None]:
    """A variable that sets the port."""
    return lambda _home: os.environ.update(OPENCLAW_CONFIG__GATEWAY__PORT=value)


def without_zones(context: CheckContext) -> CheckContext:
    """A machine with no time zones; the next scene has them again."""
    zoneinfo.reset_tzpath(to=[])
    sys.modules["tzdata"] = None  # type: ignore[assignment]  # what Python takes for a module that is not there
    return context


def with_zones(context: CheckContext) -> CheckContext:
    """One that has them."""
    zoneinfo.reset_tzpath()
    sys.modules.pop("tzdata", None)
    return context


CONFIG: Mapping[str, Seed] = {
    "config.missing": Seed(Scene(prepare=gone("openclaw.yaml")), SAFE),
    "config.unreadable-file": Seed(Scene("gateway: {port: [\n"), Scene("gateway: {prot: 1}\n")),
    "config.unknown-key": Seed(Scene(WITH_UNKNOWN_KEYS), Scene("telegram: {botToken: x}\n")),
    "config.retired": Seed(Scene("telegram:\n  botToken: x\nagents:\n  list:\n    - id: main\n"), Scene("gateway: {prot: 1}\n")),
    "config.unknown-plugin": Seed(Scene("channels:\n  telegrm: {botToken: x}\n"), Scene("channels: {webchat: {}}\n")),
    "config.bad-value": Seed(Scene("gateway: {port: many}\n"), Scene("gateway: {port: 18790}\n")),
    "config.duplicate-key": Seed(Scene("logging: {level: info}\nlogging: {level: debug}\n"), SAFE),
    "config.missing-key": Seed(Scene("bindings: [{match: {channel: x}}]\n"), Scene("bindings: [{agentId: main, match: {channel: x}}]\n")),
    "config.unknown-name": Seed(Scene("agents: {defaults: {secrets: [github]}}\n"), Scene("agents: {defaults: {secrets: []}}\n")),
    "config.bad-include": Seed(Scene("$include: none.yaml\n"), Scene("$include: more.yaml\n", prepare=included)),
    "config.bad-profile": Seed(Scene(prepare=profile("none")), Scene(prepare=profile(None))),
    "config.bad-variable": Seed(Scene(prepare=variable("[")), Scene(prepare=variable("18791"))),
    "config.section": Seed(
        Scene("channels: {telegram: {botToken: '1:x', dmPolicy: everybody}}\n"),
        Scene("channels: {telegram: {botToken: '1:x', dmPolicy: disabled}}\n"),
    ),
    "config.old-form": Seed(
        Scene(context=lambda context: replace(context, old_forms={"x becomes y": [("gateway", "x")]})),
        SAFE,
    ),
    "config.unresolved-reference": Seed(
        Scene("gateway: {auth: {token: '${file:not.there}'}}\n"),
        Scene("gateway: {auth: {token: '${file:gateway.token}'}}\n"),
    ),
    "config.link": Seed(Scene(prepare=linked("elsewhere.yaml", there=False)), Scene(prepare=linked("elsewhere.yaml", there=True))),
    "config.not-in-force": Seed(Scene(TOKEN, context=told(config__get={"appliedConfigHash": "0" * 64})), Scene(TOKEN, context=in_force)),
}

FILES: Mapping[str, Seed] = {
    "home.missing": Seed(Scene(context=lambda context: replace(context, files={})), SAFE),
    "home.mode": Seed(Scene(prepare=mode(".", 0o500)), SAFE),
    "home.read-only": Seed(disk(read_only=True), SAFE),
    "home.network": Seed(Scene(context=machine(file_system="nfs4")), SAFE),
    "files.foreign": Seed(Scene(context=process(user_id=4711)), SAFE),
    "files.mode": Seed(Scene(prepare=mode("gateway.token", 0o000)), SAFE),
    "files.kind": Seed(Scene(prepare=folder("gateway.token")), SAFE),
    "files.left": Seed(
        Scene(prepare=written(".openclaw.yaml.0123456789abcdef", seconds=LONG_AGO)),
        Scene(prepare=written(".openclaw.yaml.0123456789abcdef")),
    ),
    "logs.size": Seed(
        Scene(prepare=written("logs/gateway.log", size=300_000_000)),
        Scene(prepare=written("logs/gateway.log", size=30_000_000)),
    ),
}

STORE: Mapping[str, Seed] = {
    "store.missing": Seed(Scene(prepare=written("state.sqlite3-wal")), Scene(database=True)),
    "store.integrity": Seed(Scene(database=True, prepare=broken_pages), Scene(database=True)),
    "store.size": Seed(
        Scene(prepare=written("state.sqlite3", size=9_000_000_000)), Scene(prepare=written("state.sqlite3", size=1_000_000))
    ),
    "store.wal": Seed(
        Scene(prepare=written("state.sqlite3-wal", size=300_000_000)), Scene(prepare=written("state.sqlite3-wal", size=60_000_000))
    ),
    "store.newer": Seed(Scene(database=True, prepare=migrated_beyond), Scene(database=True)),
    "audit.broken": Seed(Scene(prepare=forged), Scene(database=True)),
    "deliveries.dead": Seed(
        Scene(database=True, prepare=answers("dead_lettered", NOW)), Scene(database=True, prepare=answers("dead_lettered", "1"))
    ),
    "deliveries.waiting": Seed(
        Scene(database=True, prepare=answers("prepared", "1")), Scene(database=True, prepare=answers("prepared", NOW))
    ),
}

MACHINE: Mapping[str, Seed] = {
    "disk.space": Seed(disk(free_bytes=50_000_000), disk(free_bytes=2_000_000_000)),
    "disk.inodes": Seed(disk(free_inodes=3), disk(total_inodes=0, free_inodes=0)),
    "disk.temporary": Seed(disk(no_exec=True), SAFE),
    "clock.jump": Seed(Scene(context=told(status={"uptimeMs": 2 * HOUR_MS})), Scene(context=told(status={"uptimeMs": HOUR_MS - 900}))),
    "clock.ntp": Seed(Scene(context=machine(clock_synchronised=False)), Scene(context=machine(clock_synchronised=None))),
    "clock.zones": Seed(Scene(context=without_zones), Scene(context=with_zones)),
    "locale.encoding": Seed(limits(encoding="latin-1"), limits(encoding="UTF-8")),
    "limits.files": Seed(limits(open_files=60_000), limits(most_open_files=None)),
    "limits.memory": Seed(limits(most_memory_bytes=100_000_000), limits(most_memory_bytes=None)),
    "limits.watches": Seed(limits(watches=100), limits(watches=None, watchers=None)),
    "versions.python": Seed(Scene(context=at(4_102_444_800_000)), Scene(context=at(1_764_000_000_000))),
    "versions.sqlite": Seed(Scene(context=versions(sqlite=(3, 31, 1))), SAFE),
    "versions.downgraded": Seed(Scene(context=versions(written_by="99.0.0")), Scene(context=versions(written_by="0.0.1"))),
    "versions.restart": Seed(Scene(context=told(status={"version": "0.0.1"})), Scene(context=versions(package="0.1.0"))),
}

SEEDS = {**CONFIG, **FILES, **STORE, **MACHINE}
