"""The gateway assembled: what is started in which order, and stopped in reverse. The only module that knows all the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from openclaw_config.load import ConfigError, Loaded, load
from openclaw_kernel.announcements import Announcements
from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditLog, AuditReader
from openclaw_kernel.api.check import Fixes
from openclaw_kernel.api.errors import GatewayError, InvalidRequest
from openclaw_kernel.api.oauth import Logins
from openclaw_kernel.api.plugins import Plugins
from openclaw_kernel.api.requests import Requests
from openclaw_kernel.api.services import Connections, EventReplay, Events, Gateway, PageAccess, PluginStatus, Restarts
from openclaw_kernel.api.store import Store
from openclaw_kernel.audit.starts import Start
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.boot import Boot
from openclaw_kernel.bus import EventBus
from openclaw_kernel.cannot_start import CannotStart, faulty
from openclaw_kernel.checks.recording import FixRecorder, record_at_start
from openclaw_kernel.children.late import LateIsolation
from openclaw_kernel.chronicle import Chronicle
from openclaw_kernel.configuration.joining import offer_configuration
from openclaw_kernel.configuration.schema_file import keep_schema_file
from openclaw_kernel.events.log import EventLog
from openclaw_kernel.events.records import Bounds
from openclaw_kernel.events.replay import LogReplay
from openclaw_kernel.exposure import refusal_of
from openclaw_kernel.gateway import GatewayFacts
from openclaw_kernel.generations import Generations
from openclaw_kernel.handover.belongings import Belongings
from openclaw_kernel.host import PluginHost
from openclaw_kernel.host.discovery import bundled_only, discover
from openclaw_kernel.host.loader import load_driver
from openclaw_kernel.host.pairing import HostedPairing
from openclaw_kernel.host.registry import Unclassified
from openclaw_kernel.http import PLUGIN_ROUTES, Door, Probes, build_application
from openclaw_kernel.listening import Port, fenced
from openclaw_kernel.live.config import LiveConfig, LiveUnits, seen_of
from openclaw_kernel.live.leaves import KernelLeaves, credential, proxies
from openclaw_kernel.lock import CannotLock, StateLock, doubts
from openclaw_kernel.lockouts import KeptLockouts
from openclaw_kernel.oauth.broker import LoginDesk
from openclaw_kernel.packages.desk import PluginDesk
from openclaw_kernel.presence import PresenceBook
from openclaw_kernel.protocol.arrivals import Arrivals, Complaints
from openclaw_kernel.protocol.auth import CERTIFICATE, Verifier
from openclaw_kernel.protocol.connection import Connection
from openclaw_kernel.protocol.connections import AUTHORITIES_CHANGED, OpenConnections
from openclaw_kernel.protocol.dispatch import Dispatcher
from openclaw_kernel.protocol.events import EventRegistry
from openclaw_kernel.protocol.frames import EventFrame, dumps
from openclaw_kernel.protocol.handshake import Close, Handshakes, Phase
from openclaw_kernel.protocol.limiter import FailureLimiter, HeldAnswers
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.pages import PageSessions
from openclaw_kernel.protocol.proofs import Proofs
from openclaw_kernel.protocol.proxy import Arrival
from openclaw_kernel.protocol.refusals import Refusals
from openclaw_kernel.protocol.registry import MethodRegistry
from openclaw_kernel.protocol.server import GatewayServer
from openclaw_kernel.protocol.watchers import Watchers
from openclaw_kernel.restart import RestartDesk
from openclaw_kernel.serving import Serving
from openclaw_kernel.store.background import finish
from openclaw_kernel.store.keyvalue import StoredKeyValue
from openclaw_kernel.store.requests import RequestTable
from openclaw_kernel.surface import LiveSurface
from openclaw_kernel.tasks import TaskOwner
from openclaw_kernel.upkeep import end_leftovers, keep_health, keep_time, take_back_changes

logger = logging.getLogger("openclaw.gateway")

DATABASE: Final = "state.sqlite3"
PAGE_SESSIONS_KEY: Final = "page-sessions"
STOP_SECONDS: Final = 10.0
DRAIN_GRACE_SECONDS: Final = 2.0
RESTART_EXPECTED_MS: Final = 1000
FOLLOWER_SECONDS: Final = 1.0
"""How long after a restart a client is kept waiting for the plugins to start, before it is told to come back."""


@dataclass(slots=True)
class _Wire:
    """What exists once the plugins are loaded."""

    registry: MethodRegistry
    server: GatewayServer
    pages: PageSessions
    verifier: Verifier
    watchers: Watchers


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is constructed before anything is opened."""

    store: Any
    """The driver: a `Store` that is opened and closed."""
    logins: LoginDesk
    event_log: EventLog
    values: StoredKeyValue
    pages: PageSessions
    limiter: FailureLimiter
    isolation: LateIsolation


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class GatewayApp:
    """One gateway in one process. `start` returns when it serves, `stop` when nothing of it is left."""

    def __init__(
        self,
        *,
        loaded: Loaded,
        home: Path,
        limits: Limits | None = None,
        event_bounds: Bounds | None = None,
        belongings: Belongings | None = None,
        boot: Boot | None = None,
    ) -> None:
        self.loaded = loaded
        self.boot = boot or Boot.plain(loaded, home)
        self._event_bounds = event_bounds
        self.home = home
        self.limits = limits or Limits()
        self._stack = contextlib.AsyncExitStack()
        self._presence: PresenceBook
        self._bus = EventBus()
        self._tasks: TaskOwner
        self._arrivals = Arrivals(proxies(loaded.config.gateway), self._not_believed)
        self._complain = Complaints()
        self._door = Door(is_proxy=self._arrivals.is_proxy)
        self._open = OpenConnections()
        self._held = HeldAnswers()
        self._hurry = asyncio.Event()
        self._serving = asyncio.Event()
        self._stops = False
        self._requests: RequestTable
        self._replay: LogReplay
        self._audit: AuditTrail
        self._chronicle: Chronicle
        self.generations: Generations
        self._lock = StateLock(home)
        self._keeps_lock = False
        self._left_changes: list[str] = []
        self.candidate: Callable[[], Awaitable[None]] | None = None
        """Tries the program that a restart would run; raises `GatewayError`. None where this process is not restarted."""
        given = belongings or Belongings()
        self._passed_lock, self._paused_at = given.lock, given.paused_at
        self._port = Port(loaded, home, door=self._door, now_ms=now_ms, given=given.sockets)
        self._announcements: Announcements
        self._desk: PluginDesk
        self.facts: GatewayFacts
        self.leaves: KernelLeaves
        self.live: LiveConfig | None = None
        self._seen = seen_of(loaded)
        self.restarts: RestartDesk
        self.host: PluginHost
        self.wire: _Wire

    async def start(self) -> None:
        """Take the lock, open the store, load the plugins, listen, start them; raise `CannotStart` and leave nothing behind."""
        try:
            await self._assemble()
        except BaseException as error:
            self.boot.ended(error)
            await self._stack.aclose()
            raise

    async def rehearse(self) -> list[str]:
        """Load what a start would serve, beside a gateway that runs: no lock, no port, no store. Return the plugins' problems.

        Raises:
            CannotStart: as `start` would.
            RegistryError: as `start` would.
        """
        self._refuse_open_door()
        await self._port.load_tls()
        parts = self._construct()
        try:
            await self._load_plugins()
            self._build_wire(parts.pages, parts.limiter)
            return self.host.problems()
        finally:
            await self.host.stop(1.0)
            await self._close_tasks()
            await parts.isolation.close(1.0)

    async def stop(self, reason: str = "service restart") -> None:
        """Let what is under way end, tell the clients, stop the plugins in reverse, close the store, release the lock."""
        await self.drain()
        self._bus.publish(EventFrame("shutdown", dumps({"reason": reason, "restartExpectedMs": RESTART_EXPECTED_MS})))
        self._chronicle.life(AuditAction.GATEWAY_STOPPED, reason)
        await self._stack.aclose()

    async def hand_over(self, reason: str = "gateway restart") -> Belongings:
        """Stop, but leave the port open and the folder locked: both are the caller's, for the next process."""
        self._port.pass_on()
        self._keeps_lock = True
        await self.stop(reason)
        return Belongings(lock=self._lock.pass_on(), sockets=self._port.hand_over(), paused_at=self._port.closed_at)

    @property
    def started(self) -> bool:
        """Whether the start is over."""
        return self._serving.is_set()

    @property
    def stops(self) -> bool:
        """Whether the stop has begun."""
        return self._stops

    def hurry(self) -> None:
        """Wait no longer for what is under way: the next start takes it up."""
        self._hurry.set()

    def link(self) -> str:
        """A fresh link that opens the chat page once."""
        code, _ = self.wire.pages.mint_code()
        return f"{self.facts.url}/#code={code}"

    async def _assemble(self) -> None:
        stack = self._stack
        self._take_hold(stack)
        self._left_changes = await asyncio.to_thread(take_back_changes, self.home)
        await self._port.load_tls()
        parts = self._construct()
        stack.push_async_callback(parts.isolation.close, STOP_SECONDS)
        stack.push_async_callback(self._close_tasks)
        self._tasks.spawn("leftovers", end_leftovers(self.home))
        stack.push_async_callback(parts.store.close)
        stack.push_async_callback(self._audit.close)
        stack.push_async_callback(parts.logins.close)
        stack.push_async_callback(parts.event_log.close)
        stack.push_async_callback(self.host.stop, STOP_SECONDS)
        await self._load_plugins()
        refused = await parts.store.open(self.host.registry.migrations())
        self.host.refuse_migrations(refused)
        self._tasks.spawn("migrations", finish(parts.store, self.host.registry.migrations(), self._serving))
        await self._audit.open()
        await self._record_start(parts.store)
        await parts.event_log.open()
        stack.push_async_callback(self._replay.close)
        self._bus.log = parts.event_log
        await self._restore(parts.values, parts.pages, parts.limiter)
        self.wire = self._build_wire(parts.pages, parts.limiter)
        self.live = live = LiveConfig(
            self.loaded,
            units=LiveUnits(self.host, self._open),
            leaves=self.leaves,
            generations=self.generations,
            restarts=self.restarts,
            audit=self._audit,
            facts=self.facts,
            bus=self._bus,
            changed=self._announcements.health_soon,
            seen=self._seen,
        )
        stack.push_async_callback(live.close)
        desk = offer_configuration(self.host, live, facts=self.facts, generations=self.generations, audit=self._audit, now_ms=now_ms)
        stack.push_async_callback(desk.close)
        await self._listen(stack)
        self._lock.describe(self.facts.describe_owner())
        await self.host.start()
        await self._begin_to_serve(live)

    def _construct(self) -> _Parts:
        # Nothing here opens, starts or writes: it is done in a rehearsal too, beside the gateway that runs.
        self._presence = PresenceBook(version=GatewayFacts.version, now_ms=now_ms)
        self.facts = GatewayFacts(loaded=self.loaded, home=self.home, presence=self._presence, limits=self.limits, now_ms=now_ms)
        self.facts.further_problems.append(lambda: [self.loaded.placed(line) for line in self._port.problems()])
        self._announcements = Announcements(self._bus, self.facts, self._presence)
        self.facts.presence_changed = self._announcements.presence_soon
        self._tasks = TaskOwner("gateway", _task_failed)
        self.restarts = RestartDesk(boot_id=self.facts.boot_id, check=self._check_candidate, spawn=self._tasks.spawn)
        self.facts.further_problems += [self.restarts.problems, partial(doubts, self.home), lambda: self._left_changes]
        store = load_driver("openclaw.stores", "sqlite")(self.home / DATABASE)
        limiter = FailureLimiter()
        self._requests = RequestTable(store, now_ms=now_ms, keep_seconds=self.limits.dedupe_seconds, limit=self.limits.dedupe_entries)
        self._audit = AuditTrail(store, home=self.home, now_ms=now_ms)
        self._chronicle = Chronicle(self._audit, version=self.facts.version, boot_id=self.facts.boot_id)
        self.generations = Generations(self.home, store, self._audit, now_ms=now_ms)
        self._standing = self.facts.serving = Serving(self.boot, self.generations)
        logins = LoginDesk(self.home, store, self._audit, now_ms=now_ms)
        event_log = EventLog(store, now_ms=now_ms, bounds=self._event_bounds)
        self._replay = LogReplay(event_log, self._bus)
        kernel_values = StoredKeyValue(store, "kernel")
        pages = PageSessions(
            limiter=limiter,
            now_ms=now_ms,
            save=self._save_pages(store, kernel_values),
            refusals=Refusals(self._audit),
            key=credential(self.loaded.config.gateway.auth),
            arrivals=self._arrivals,
            held=self._held,
        )
        isolation = LateIsolation(GatewayFacts.version)
        self.host = PluginHost(
            config=self.loaded.config,
            home=self.home,
            store=store,
            discovery=bundled_only(discover(self.home)) if self.boot.safe else discover(self.home),
            services={
                AuditLog: self._audit,
                AuditReader: self._audit,
                Fixes: FixRecorder(home=self.home, store=store, audit=self._audit),
                Events: self._bus,
                EventReplay: self._replay,
                Logins: logins,
                Gateway: self.facts,
                PageAccess: pages,
                Connections: self._open,
                Requests: self._requests,
                Restarts: self.restarts,
                Plugins: self._make_desk(),
            },
            on_state=self._plugin_changed,
            place=self.facts.placed,
            isolation=isolation,
        )
        return _Parts(store, logins, event_log, kernel_values, pages, limiter, isolation)

    async def _begin_to_serve(self, live: LiveConfig) -> None:
        self.facts.refresh_health()
        await self._standing.mark_good()
        self.facts.phase = Phase.SERVING
        self._serving.set()
        self._chronicle.life(AuditAction.GATEWAY_STARTED, None)
        self._tasks.spawn("clock", keep_time(self.wire.server.tick, self._announcements, self.limits, now_ms))
        self._tasks.spawn("health", keep_health(self._announcements, self.limits))
        self._tasks.spawn("requests", self._requests.keep_swept(self.limits.dedupe_sweep_seconds))
        live.watch()
        self._tasks.spawn("schema file", keep_schema_file(self.loaded, self.host.discovery))

    async def _restore(self, values: StoredKeyValue, pages: PageSessions, limiter: FailureLimiter) -> None:
        pages.load(await values.get(PAGE_SESSIONS_KEY))
        lockouts = KeptLockouts(limiter, values, now_ms=now_ms)
        await lockouts.load()
        self._stack.push_async_callback(lockouts.close)

    def _save_pages(self, store: Store, values: StoredKeyValue) -> Callable[[str, AuditEntry], Awaitable[None]]:
        async def save(text: str, entry: AuditEntry) -> None:
            keep = values.putting(PAGE_SESSIONS_KEY, text)
            await store.write(lambda connection: (keep(connection), self._audit.append(connection, entry)))

        return save

    async def _record_start(self, store: Store) -> None:
        start = Start(
            config_file=self.loaded.path.name,
            config=self.loaded.redacted(),
            plugins=self.host.statuses(),
        )
        try:
            await store.write(lambda connection: start.record(connection, self._audit))
        except GatewayError as error:
            # A full disk keeps nobody from looking after the gateway; the row comes when there is room.
            logger.error("the start is not in the audit log yet: %s", error.message)  # noqa: TRY400 - the store's own words say all
            self._audit.note(start.late())
        await self._standing.open(store, self._audit, self.restarts)
        await record_at_start(FixRecorder(home=self.home, store=store, audit=self._audit))

    def _make_desk(self) -> PluginDesk:
        self._desk = PluginDesk(home=self.home, audit=self._audit, events=self._bus)
        return self._desk

    async def _load_plugins(self) -> None:
        self._desk.bind(self.host)
        self._stack.push_async_callback(self._desk.close)
        try:
            await self.host.load()
        except Unclassified as error:
            raise CannotStart(str(error), 78) from error

    async def drain(self) -> None:
        """Let what is under way end, once. Everything works while this lasts, but for new requests, which are refused."""
        if self._stops:
            return
        self._stops = True
        self.facts.phase = Phase.DRAINING
        self.restarts.close()
        if self.live is not None:
            await self.live.close()
        drain = self._tasks.spawn("drain", self.host.drain())
        hurry = self._tasks.spawn("hurry", self._hurry.wait())
        await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (drain, hurry):
            task.cancel()
        await asyncio.wait({drain, hurry}, timeout=DRAIN_GRACE_SECONDS)

    def _build_wire(self, pages: PageSessions, limiter: FailureLimiter) -> _Wire:
        registry = MethodRegistry(self.host.registry.methods)
        self._bus.events = EventRegistry(self.host.registry.events)
        self.facts.bind(host=self.host, registry=registry, events=self._bus.events, ask=self.host.ask)
        pairing = HostedPairing.of(self.host.registry, self.host.guard)
        gateway = self.loaded.config.gateway
        verifier = Verifier(gateway.auth, limiter, pairing, certificates=gateway.tls.clients)
        refusals = Refusals(self._audit)
        proofs = Proofs(
            verifier=verifier,
            arrivals=self._arrivals,
            now_ms=now_ms,
            authenticators=self.host.authenticators,
            refusals=refusals,
            held=self._held,
            believed=lambda context: self._port.tls is None or self._port.tls.believes(context),
        )
        pages.prove = proofs.of_http
        dispatcher = Dispatcher(
            registry, limits=self.limits, now_ms=now_ms, phase=lambda: self.facts.phase, requests=self._requests, refusals=refusals
        )
        self.leaves = KernelLeaves(self.loaded.config, verifier=verifier, pages=pages, arrivals=self._arrivals, open_connections=self._open)
        server = GatewayServer(
            registry=registry,
            dispatcher=dispatcher,
            handshakes=Handshakes(verifier=verifier, phase=lambda: self.facts.phase, now_ms=now_ms, pairing=pairing, refusals=refusals),
            pages=pages,
            limits=self.limits,
            allowed_origins=lambda: self.leaves.allowed_origins,
            hello=self.facts.hello,
            opened=self._connection_opened,
            open_connections=self._open,
            arrivals=self._arrivals,
        )
        server.auth_epoch = lambda: verifier.epoch
        server.open_door = self._until_serving
        server.prove = proofs.of
        server.stands = proofs.stands
        server.proved = lambda request: self._door.release(request.protocol)
        watchers = Watchers(
            pages=pages, proofs=proofs, verifier=verifier, arrivals=self._arrivals, held=self._held, refusals=refusals, now_ms=now_ms
        )
        return _Wire(registry, server, pages, verifier, watchers)

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.loaded.config.gateway
        probes = Probes(
            started=lambda: self.facts.phase is not Phase.STARTING,
            ready=lambda: self.facts.ready,
            reasons=self.facts.reasons,
            trusted=self.wire.watchers.trusted,
        )
        base_path = config.control_ui.base_path
        application = build_application(
            base_path=base_path,
            upgrade=self.wire.server.handle,
            probes=probes,
            routes=self.host.registry.routes,
            guard=partial(fenced, self.host.guard),
            arrivals=self._arrivals,
            door=self._door,
            refuse_foreign=lambda request: self.wire.server.refuse_foreign(request, surface="http"),
        )
        surface = LiveSurface(self.wire.registry, self._bus.events, application[PLUGIN_ROUTES], changed=self._announcements.plugins_soon)
        self.host.surface = surface.build
        farewell = partial(self.wire.server.close, Close(1012, "service restart"))
        url = await self._port.serve(application, stack, farewell)
        if self._paused_at is not None:
            logger.info("restarted; for %.3f s nobody was accepted, who came meanwhile is served now", time.monotonic() - self._paused_at)
        self._follow_tls()
        self.facts.url = url + base_path

    def _follow_tls(self) -> None:
        tls = self._port.tls
        if tls is not None:
            self.facts.encryption = tls
            tls.record(self._audit)
            # The command line finds out there which certificate is ours.
            tls.taken = lambda: self._lock.describe(self.facts.describe_owner())
            tls.authorities_changed = self._judge_certificates_anew
            self._tasks.spawn("certificate", tls.follow())

    def _judge_certificates_anew(self) -> None:
        for connection in self._open:
            if connection.method == CERTIFICATE:
                self._open.invalidate(connection.principal, AUTHORITIES_CHANGED)

    async def _until_serving(self) -> None:
        # Who was connected to the process before comes back in the same instant: a moment here is shorter than its pause after a refusal.
        if self._paused_at is not None and not self._serving.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOWER_SECONDS):
                    await self._serving.wait()

    async def _check_candidate(self) -> None:
        try:
            await asyncio.to_thread(load, self.loaded.path)
        except ConfigError as error:
            raise InvalidRequest(f"not restarted, for the gateway could not start again: {error}") from error
        if self.candidate is not None:
            await self.candidate()

    def _take_hold(self, stack: contextlib.AsyncExitStack) -> None:
        stack.callback(self._port.close)
        try:
            self._lock.acquire(self._passed_lock)
        except CannotLock as error:
            raise CannotStart(str(error), 78) from error
        stack.callback(self._release_lock)
        self.boot.begin()
        self._refuse_open_door()
        self._port.take()

    def _release_lock(self) -> None:
        if not self._keeps_lock:
            self._lock.release()

    def _refuse_open_door(self) -> None:
        refusal = refusal_of(self.loaded.config.gateway)
        if refusal is not None:
            raise faulty(self.loaded, refusal.key, refusal.found, refusal.cure)

    def _not_believed(self, arrival: Arrival) -> None:
        self._complain(arrival)
        self._chronicle.not_believed(arrival)

    def _connection_opened(self, connection: Connection) -> Callable[[], None]:
        detach = self._bus.attach(connection)
        forget = self._replay.attach(connection)
        self._chronicle.admitted(connection)
        entry = connection.presence()
        if entry is not None:
            self._presence.connected(connection.connection_id, entry)
            self._announcements.presence_soon()

        def closed() -> None:
            forget()
            detach()
            if self._presence.disconnected(connection.connection_id):
                self._announcements.presence_soon()

        return closed

    def _plugin_changed(self, status: PluginStatus) -> None:
        serving = self.facts.phase is Phase.SERVING
        self._chronicle.plugin(status, serving=serving)
        if serving:
            self._announcements.health_soon()

    async def _close_tasks(self) -> None:
        self._announcements.close()
        hung = await self._tasks.close(1.0)
        if hung:
            logger.warning("did not end in time: %s", ", ".join(hung))


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
