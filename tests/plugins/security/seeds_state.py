"""What is put wrong in the database, with the machine, its clock and the plugins, and what is not."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from openclaw_kernel.api import BY_GATEWAY, AuditAction, AuditEntry, CheckContext, InstalledPlugin
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_plugins.pairing.tables import MIGRATIONS
from tests.plugins.security.scenes import Scene
from tests.plugins.security.seeds import Seed
from tests.plugins.security.seeds_files import mode

DAY = 86_400_000
_DEVICE = """
    INSERT INTO pairing_devices (device_id, public_key, created_ms, approved_ms, approved_by, display_name, platform, client_id,
                                 client_mode, address)
    VALUES ('d1', 'k', ?, ?, 'person', ?, 'linux', 'cli', ?, '127.0.0.1')
"""
_REQUEST = """
    INSERT INTO pairing_requests (request_id, device_id, public_key, role, scopes, reason, network, created_ms, refreshed_ms, platform,
                                  client_id, client_mode, address)
    VALUES (?, ?, 'k', 'operator', '[]', 'not-paired', '192.0.2.7', 1, 1, 'linux', 'cli', 'cli', 'x')
"""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def state(*statements: tuple[str, tuple[Any, ...]]) -> Scene:
    """The real tables, with what these statements write into them."""

    async def write(home: Path) -> None:
        store = SqliteStore(home / "state.sqlite3")
        await store.open({"pairing": MIGRATIONS})
        await store.write(lambda connection: [connection.execute(*statement) for statement in statements])
        await store.close()

    return Scene(prepare=lambda home: asyncio.run(write(home)))


def device(
    days: int,
    *,
    name: str | None = "laptop",
    used: bool = True,
    role: str = "operator",
    scopes: str = "operator.admin",
    client: str = "cli",
) -> Scene:
    """A device that was approved, and given its token, so many days ago."""
    then = now_ms() - days * DAY
    return state(
        (_DEVICE, (then, then, name, client)),
        ("INSERT INTO pairing_roles (device_id, role, scopes, approved_ms) VALUES ('d1', ?, ?, ?)", (role, json.dumps([scopes]), then)),
        ("INSERT INTO pairing_tokens (digest, device_id, role, issued_ms, used) VALUES (x'01', 'd1', ?, ?, ?)", (role, then, int(used))),
    )


def requests(count: int) -> Scene:
    """So many devices wait."""
    return state(*((_REQUEST, (f"r{number}", f"d{number}")) for number in range(count)))


def setups(count: int) -> Scene:
    """So many setup codes for everything are open."""
    statement = "INSERT INTO pairing_setups (setup_id, digest, access, minted_by, expires_ms) VALUES (?, ?, 'full', 'token', ?)"
    return state(*((statement, (f"s{number}", f"digest {number}".encode(), now_ms() + DAY)) for number in range(count)))


def node(*commands: str) -> Scene:
    """A node that was approved with these commands."""
    statement = (
        "INSERT INTO pairing_nodes (node_id, caps, commands, permissions, created_ms, approved_ms, generation)"
        " VALUES ('n1', '[]', ?, '[]', 1, 1, 1)"
    )
    return state((statement, (json.dumps(commands),)))


def pages(count: int) -> Scene:
    """So many pages are signed in."""
    sessions = json.dumps({f"digest {number}": now_ms() + DAY for number in range(count)})
    return state(("INSERT INTO kernel_key_value VALUES ('kernel', 'page-sessions', ?)", (sessions,)))


def audited(spoil: Callable[[Path], None] = lambda _home: None, *, ahead_ms: int = 0) -> Scene:
    """A real audit log of three rows with checkpoints; then something happens to it."""

    async def write(home: Path) -> None:
        store = SqliteStore(home / "state.sqlite3")
        await store.open({})
        audit = AuditTrail(store, home=home, now_ms=lambda: now_ms() + ahead_ms)
        await audit.open()
        for subject in ("one", "two", "three"):
            audit.note(AuditEntry(action=AuditAction.PLUGIN_STATE, origin=BY_GATEWAY, subject=subject))
        await audit.settled()
        await audit.close()
        await store.close()

    def prepare(home: Path) -> None:
        asyncio.run(write(home))
        spoil(home)

    return Scene(prepare=prepare)


def changed_row(home: Path) -> None:
    with closing(sqlite3.connect(home / "state.sqlite3")) as connection:
        connection.execute("DROP TRIGGER kernel_audit_no_update")
        connection.execute("UPDATE kernel_audit SET subject = 'other' WHERE sequence = 2")
        connection.commit()


def no_checkpoints(home: Path) -> None:
    (home / "audit-checkpoints.jsonl").unlink()


def later(minutes: int) -> Callable[[Path], None]:
    """A file that was changed so many minutes from now."""

    def prepare(home: Path) -> None:
        then = time.time() + 60 * minutes
        os.utime(home / "gateway.token", (then, then))

    return prepare


def process(**facts: Any) -> Callable[[CheckContext], CheckContext]:
    return lambda context: replace(context, process=replace(context.process, **facts))


def machine(**facts: Any) -> Callable[[CheckContext], CheckContext]:
    return lambda context: replace(context, machine=replace(context.machine, **facts))


def certificate(*, days: int = 90, bits: int = 2048) -> Scene:
    """A certificate that is valid for so many days, with an RSA key of so many bits."""

    def prepare(home: Path) -> None:
        key = rsa.generate_private_key(65_537, bits)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
        now = datetime.now(UTC)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        made = made.not_valid_before(now - timedelta(days=400)).not_valid_after(now + timedelta(days=days))
        (home / "cert.pem").write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
        mode("key.pem", 0o600, content="")(home)

    return Scene({"gateway": {"tls": {"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem"}}}, prepare=prepare)


def key_file(bits: int) -> Scene:
    """The certificate's key, with this mode."""
    tls = {"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem"}
    return Scene({"gateway": {"tls": tls}}, prepare=mode("key.pem", bits, content="x"))


def plugin(code: str = "", *, bits: int = 0o644, problems: tuple[str, ...] = (), **facts: Any) -> Scene:
    """One stranger's plugin with this code."""

    def prepare(home: Path) -> None:
        mode("../acme/plugin.py", bits, content=code)(home)
        (home.parent / "acme").chmod(0o755)

    def context(found: CheckContext) -> CheckContext:
        told: dict[str, Any] = {
            "id": "acme",
            "kind": "channel",
            "distribution": "acme",
            "version": "1.0",
            "bundled": False,
            "runs": True,
            "source": "index",
            "editable": False,
            "requires": ("acme-sdk>=1",),
            "folder": found.home.parent / "acme",
            "manifest": {},
            **facts,
        }
        return replace(found, plugins=[InstalledPlugin(**told)], plugin_problems=problems)

    return Scene(prepare=prepare, context=context)


DOUBLE = "plugin 'irc' comes from acme 1.0 and other 2.0, none is used; uninstall all but one"

SEEDS = {
    "devices.stale": Seed(device(200), device(90)),
    "devices.admin-unused": Seed(device(10, used=False), device(10, used=False, scopes="operator.read")),
    "devices.admin-page": Seed(device(1, client="webchat"), device(1, client="cli")),
    "devices.pending": Seed(requests(21), requests(20)),
    "devices.nodes-dangerous": Seed(node("camera.snap", "system.run"), node("camera.snap", "system.notify")),
    "devices.nodes-unknown": Seed(device(1, role="node", name=None), device(1, role="node")),
    "devices.setup-codes": Seed(setups(2), setups(1)),
    "http.pages.many": Seed(pages(21), pages(3)),
    "audit.chain": Seed(audited(changed_row), audited()),
    "audit.checkpoints": Seed(audited(no_checkpoints), audited()),
    "clock.state": Seed(audited(ahead_ms=DAY), audited()),
    "clock.files": Seed(Scene(prepare=later(30)), Scene(prepare=later(1))),
    "clock.unsynchronised": Seed(Scene(context=machine(clock_synchronised=False)), Scene(context=machine(clock_synchronised=None))),
    "process.root": Seed(Scene(context=process(user_id=0)), Scene(context=process(user_id=1000))),
    "process.umask": Seed(Scene(context=process(umask=0)), Scene(context=process(umask=0o077))),
    "process.core-dumps": Seed(Scene(context=process(core_bytes=-1)), Scene(context=process(core_bytes=0))),
    "secrets.environment": Seed(
        Scene(context=process(variables=("GITHUB_TOKEN", "PATH"))), Scene(context=process(variables=("SSH_AUTH_SOCK", "PATH")))
    ),
    "gateway.tls.expiry": Seed(certificate(days=3), certificate(days=90)),
    "gateway.tls.weak": Seed(certificate(bits=1024), certificate(bits=2048)),
    "gateway.tls.key-open": Seed(key_file(0o640), key_file(0o600)),
    "plugins.unpinned": Seed(plugin(source="vcs"), plugin(source="index")),
    "plugins.rights": Seed(
        plugin("def openclaw_decide_admission(message): ..."), plugin("def openclaw_decide_admission(message): ...", kind="plugin")
    ),
    "plugins.imports": Seed(plugin("import requests\n"), plugin("import acme_sdk, json\nfrom acme.wire import x\n")),
    "plugins.inside": Seed(
        plugin("from openclaw_kernel.store.sqlite import SqliteStore\n"), plugin("from openclaw_kernel.api import Tool\n")
    ),
    "plugins.duplicates": Seed(plugin(problems=(DOUBLE,)), plugin(problems=("acme: the plugin id 'X' is not usable; use x",))),
    "plugins.writable": Seed(plugin(bits=0o666), plugin(bits=0o644)),
}
