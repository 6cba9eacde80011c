"""A certificate that is renewed while clients are connected, as people and programs renew them; over real sockets."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.models import GatewayTls
from openclaw_kernel.api.audit import AuditAction, AuditEntry
from openclaw_kernel.http import Door
from openclaw_kernel.tasks import TaskOwner
from openclaw_kernel.tls.keeper import SOON_MS, Pace, TlsKeeper
from tests.kernel.tls.listener import DEADLINE, listening, until
from tests.support.certificates import Issued, replace, trust

PATIENT = Pace(quiet=0.02, whole=DEADLINE * 2, look=DEADLINE * 2)
HASTY = Pace(quiet=0.02, whole=0.05, look=DEADLINE * 2)
NAMED = GatewayTls.model_validate({"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem"})
WITH_CLIENTS = GatewayTls.model_validate({"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem", "caPath": "ca.pem"})
NOW_MS = 1_700_000_000_000


@dataclass
class Notes:
    """An audit log that a test waits for."""

    entries: list[AuditEntry] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)
    waiting: set[asyncio.Task[None]] = field(default_factory=set)

    def note(self, entry: AuditEntry) -> None:
        """Take one."""
        self.entries.append(entry)
        task = asyncio.get_running_loop().create_task(self._tell())
        self.waiting.add(task)
        task.add_done_callback(self.waiting.discard)

    def refused(self, entry: AuditEntry) -> None:
        """Take one."""
        self.note(entry)

    def append(self, _connection: object, entry: AuditEntry) -> int:
        """Take one."""
        self.note(entry)
        return len(self.entries)

    async def wait(self, count: int) -> AuditEntry:
        """The entry of this number, from 1, once it is there."""
        async with asyncio.timeout(DEADLINE), self.came:
            await self.came.wait_for(lambda: len(self.entries) >= count)
        return self.entries[count - 1]

    async def _tell(self) -> None:
        async with self.came:
            self.came.notify_all()


@dataclass
class Serving:
    """A listener with its keeper."""

    keeper: TlsKeeper
    port: int
    notes: Notes

    async def shown(self) -> bytes | None:
        """The certificate that a new connection gets."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=trust(None))
        try:
            return certificate_of(writer)
        finally:
            writer.close()
            await writer.wait_closed()
            del reader


def certificate_of(writer: asyncio.StreamWriter) -> bytes | None:
    """What the server showed on this connection."""
    shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
    return shown.getpeercert(binary_form=True)


def der(issued: Issued) -> bytes:
    """The certificate as it goes over the wire."""
    return ssl.PEM_cert_to_DER_cert(issued.certificate_pem.decode())


@asynccontextmanager
async def serving(
    home: Path, pace: Pace, settings: GatewayTls = NAMED, now_ms: Callable[[], int] = lambda: NOW_MS
) -> AsyncIterator[Serving]:
    """Serve the pair of a state folder, and follow it."""
    keeper = await TlsKeeper.open(settings, home, now_ms=now_ms, pace=pace)
    notes = Notes()
    keeper.record(notes)
    failures: list[Any] = []
    tasks = TaskOwner("test", lambda name, error: failures.append((name, error)))
    tasks.spawn("follow", keeper.follow())
    async with listening(keeper.context, Door()) as port:
        try:
            yield Serving(keeper, port, notes)
        finally:
            assert await tasks.close(DEADLINE) == []
    assert failures == []


class Heard(logging.Handler):
    """Sets `came` when a line with these words is logged, from whichever thread."""

    def __init__(self, words: str) -> None:
        super().__init__(logging.DEBUG)
        self.came = asyncio.Event()
        self._words = words
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        """Listen."""
        if self._words in record.getMessage():
            self._loop.call_soon_threadsafe(self.came.set)


@asynccontextmanager
async def hearing(words: str) -> AsyncIterator[asyncio.Event]:
    """What is set when the log has these words."""
    handler = Heard(words)
    logger = logging.getLogger("openclaw.tls")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield handler.came
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """One request on an open connection; the first line of its answer."""
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
    async with asyncio.timeout(DEADLINE):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
    return head.split(b"\r\n")[0]


async def test_new_connections_get_the_renewed_certificate_and_open_ones_go_on(tmp_path: Path) -> None:
    first, second = Issued.make(), Issued.make()
    first.write(tmp_path)
    async with serving(tmp_path, PATIENT) as gateway:
        assert (await gateway.notes.wait(1)).action is AuditAction.TLS_LOADED
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=trust(first), server_hostname="gateway.test")
        assert await ask(reader, writer) == b"HTTP/1.1 200 OK"
        second.write(tmp_path)
        loaded = await gateway.notes.wait(2)
        assert await gateway.shown() == der(second)
        assert await ask(reader, writer) == b"HTTP/1.1 200 OK"
        assert certificate_of(writer) == der(first)
        writer.close()
        await writer.wait_closed()
        assert gateway.keeper.state.fingerprint == second.fingerprint
        assert loaded.action is AuditAction.TLS_LOADED
        assert loaded.subject == f"certificate:{second.fingerprint.replace(':', '').lower()}"
        assert loaded.before == gateway.notes.entries[0].after != loaded.after


async def test_half_of_a_new_pair_changes_nothing_until_the_other_half_comes(tmp_path: Path) -> None:
    first, second = Issued.make(), Issued.make()
    first.write(tmp_path)
    async with serving(tmp_path, PATIENT) as gateway, hearing("not whole yet") as seen:
        replace(tmp_path / "cert.pem", second.certificate_pem)
        async with asyncio.timeout(DEADLINE):
            await seen.wait()
        assert await gateway.shown() == der(first)
        replace(tmp_path / "key.pem", second.key_pem)
        assert (await gateway.notes.wait(2)).action is AuditAction.TLS_LOADED
        assert await gateway.shown() == der(second)
        assert [entry.action for entry in gateway.notes.entries] == [AuditAction.TLS_LOADED] * 2


async def test_a_file_that_is_written_in_place_is_taken_when_it_is_whole(tmp_path: Path) -> None:
    first, second = Issued.make(), Issued.make()
    first.write(tmp_path)
    async with serving(tmp_path, PATIENT) as gateway, hearing("not whole yet") as seen:
        (tmp_path / "key.pem").write_bytes(second.key_pem)
        with (tmp_path / "cert.pem").open("wb") as file:
            file.write(second.certificate_pem[:100])
            file.flush()
            async with asyncio.timeout(DEADLINE):
                await seen.wait()
            file.write(second.certificate_pem[100:])
        await gateway.notes.wait(2)
        assert await gateway.shown() == der(second)


@pytest.mark.parametrize("bad", ["another's key", "expired", "open to others", "gone"])
async def test_a_bad_pair_keeps_the_old_and_is_written_down(tmp_path: Path, bad: str) -> None:
    first = Issued.make()
    first.write(tmp_path)
    async with serving(tmp_path, HASTY) as gateway:
        if bad == "another's key":
            replace(tmp_path / "key.pem", Issued.make().key_pem)
        elif bad == "expired":
            Issued.make(days=(-20, -1)).write(tmp_path)
        elif bad == "open to others":
            replace(tmp_path / "key.pem", first.key_pem, mode=0o644)
        else:
            (tmp_path / "cert.pem").unlink()
        rejected = await gateway.notes.wait(2)
        assert (rejected.action, rejected.outcome) == (AuditAction.TLS_REJECTED, "refused")
        assert rejected.before == gateway.notes.entries[0].after
        assert await gateway.shown() == der(first)
        (problem,) = gateway.keeper.problems()
        assert problem.startswith(f"{rejected.subject}: {rejected.details['found']}; ")
        assert problem.endswith("; the certificate of before is still served")
        second = Issued.make()
        second.write(tmp_path)
        async with asyncio.timeout(DEADLINE), gateway.notes.came:
            await gateway.notes.came.wait_for(lambda: gateway.notes.entries[-1].action is AuditAction.TLS_LOADED)
        assert await gateway.shown() == der(second)
        assert gateway.keeper.problems() == []


async def test_links_are_followed_when_certbot_swaps_them(tmp_path: Path) -> None:
    archive, live, home = (tmp_path / name for name in ("archive", "live", "home"))
    for folder in (archive, live, home):
        folder.mkdir(mode=0o700)
    first, second = Issued.make(), Issued.make()
    first.write(archive, certificate="cert1.pem", key="key1.pem")
    for name in ("cert", "key"):
        (live / f"{name}.pem").symlink_to(f"../archive/{name}1.pem")
        (home / f"{name}.pem").symlink_to(live / f"{name}.pem")
    async with serving(home, PATIENT) as gateway:
        second.write(archive, certificate="cert2.pem", key="key2.pem")
        for name in ("cert", "key"):
            (live / f"{name}.new").symlink_to(f"../archive/{name}2.pem")
            (live / f"{name}.new").replace(live / f"{name}.pem")
        await gateway.notes.wait(2)
        assert await gateway.shown() == der(second)


async def test_links_are_followed_when_kubernetes_swaps_the_folder_behind_them_again_and_again(tmp_path: Path) -> None:
    mount, home = tmp_path / "mount", tmp_path / "home"
    for folder in (mount, home):
        folder.mkdir(mode=0o700)
    issued = [Issued.make() for _ in range(4)]
    issued[0].write(mount / "..0")
    (mount / "..data").symlink_to("..0")
    for name in ("cert.pem", "key.pem"):
        (mount / name).symlink_to(f"..data/{name}")
        (home / name).symlink_to(mount / name)
    async with serving(home, PATIENT) as gateway:
        for number in (1, 2, 3):
            issued[number].write(mount / f"..{number}")
            (mount / "..data_tmp").symlink_to(f"..{number}")
            (mount / "..data_tmp").replace(mount / "..data")
            await gateway.notes.wait(number + 1)
            assert await gateway.shown() == der(issued[number])


async def test_where_the_system_tells_of_no_change_it_is_seen_all_the_same(tmp_path: Path) -> None:
    first = Issued.make()
    first.write(tmp_path)
    async with serving(tmp_path, Pace(quiet=0.02, whole=0.05, look=0.05)) as gateway:
        # Of a mode that changes the watcher tells nothing.
        (tmp_path / "key.pem").chmod(0o644)
        assert (await gateway.notes.wait(2)).action is AuditAction.TLS_REJECTED
        (tmp_path / "key.pem").chmod(0o600)
        await until(lambda: not gateway.keeper.problems())


async def test_the_same_certificate_written_again_is_no_news(tmp_path: Path) -> None:
    first, second = Issued.make(), Issued.make()
    first.write(tmp_path)
    async with serving(tmp_path, PATIENT) as gateway:
        first.write(tmp_path)
        second.write(tmp_path)
        assert (await gateway.notes.wait(2)).subject == f"certificate:{second.fingerprint.replace(':', '').lower()}"


async def test_other_authorities_are_believed_from_then_on(tmp_path: Path) -> None:
    Issued.make().write(tmp_path)
    old, new = Issued.make("old", authority=True), Issued.make("new", authority=True)
    replace(tmp_path / "ca.pem", old.certificate_pem)
    async with serving(tmp_path, PATIENT, WITH_CLIENTS) as gateway:
        told: list[str] = []
        gateway.keeper.taken = lambda: told.append("taken")
        gateway.keeper.authorities_changed = lambda: told.append("authorities")
        replace(tmp_path / "ca.pem", new.certificate_pem)
        await gateway.notes.wait(2)
        assert told == ["taken", "authorities"]
        assert gateway.keeper.context.current.get_ca_certs(binary_form=True) == [der(new)]


async def test_the_end_of_a_certificate_is_a_problem_in_time(tmp_path: Path) -> None:
    issued = Issued.make()
    issued.write(tmp_path)
    end_ms = int(issued.certificate.not_valid_after_utc.timestamp() * 1000)
    now = [end_ms - SOON_MS - 1]
    async with serving(tmp_path, PATIENT, now_ms=lambda: now[0]) as gateway:
        assert gateway.keeper.problems() == []
        now[0] = end_ms - SOON_MS + 1
        (problem,) = gateway.keeper.problems()
        assert problem.startswith("gateway.tls.certPath: the certificate ends at ")
        assert problem.endswith(" UTC; renew it")
