"""Handshakes of devices with the real book over a real store, and no sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openclaw_config.models import Config, GatewayAuth
from openclaw_kernel.api import AuditLog, Events, Gateway, Scope, effective_scopes
from openclaw_kernel.api.methods import methods_of
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.protocol.auth import Verifier
from openclaw_kernel.protocol.connect import ConnectParams
from openclaw_kernel.protocol.device import signed_texts
from openclaw_kernel.protocol.handshake import Action, Delay, Handshakes, Peer, Phase, Settle
from openclaw_kernel.protocol.limiter import FailureLimiter
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_kernel.tasks import TaskOwner
from openclaw_plugins.pairing.book import DeviceBook
from openclaw_plugins.pairing.decisions import Decisions
from openclaw_plugins.pairing.methods import DeviceMethods
from openclaw_plugins.pairing.node_methods import NodeMethods
from openclaw_plugins.pairing.nodes import NodeBook
from openclaw_plugins.pairing.roster import Roster
from openclaw_plugins.pairing.setup_methods import SetupMethods
from openclaw_plugins.pairing.setups import SetupDesk
from openclaw_plugins.pairing.tables import MIGRATIONS
from openclaw_plugins.pairing.upgrade_methods import UpgradeMethods
from tests.kernel.protocol.transcript import LOCAL, TOKEN, Clock, request
from tests.support import contract

READ = ("operator.read",)


@dataclass
class RecordedEvents:
    """Implements Events; keeps all."""

    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    topics: list[tuple[str, ...]] = field(default_factory=list)
    """Those of each."""
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by each."""

    def broadcast(
        self,
        event: str,
        payload: Mapping[str, Any],
        *,
        topics: Collection[str] | None = None,
        scoped_topic: str | None = None,
        connections: Collection[str] | None = None,
        exclude: Collection[str] = (),
        droppable: bool = False,
        replaces: str | None = None,
    ) -> None:
        """Keep it, once it fits the contract."""
        contract.validate_event({"type": "event", "event": event, "payload": dict(payload)})
        self.sent.append((event, dict(payload)))
        self.told.set()
        self.topics.append(tuple(topics or ()))

    def resolved(self, kind: str = "device") -> list[tuple[str, str]]:
        """Request and decision of each resolved event."""
        return [(payload["requestId"], payload["decision"]) for event, payload in self.sent if event == f"{kind}.pair.resolved"]


@dataclass
class RecordedConnections:
    """Implements Connections; keeps who was ended."""

    ended: list[tuple[str, str, str | None]] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)

    open: set[str] = field(default_factory=set)
    """Who is connected."""
    surfaces: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    """What nodes were given while they were connected."""

    def are_open(self, principal: str, *, role: str | None = None) -> bool:
        """Whoever the test says is connected."""
        return principal in self.open

    def grant_surface(self, principal: str, *, caps: Collection[str], commands: Collection[str]) -> None:
        """Keep it."""
        self.surfaces.append((principal, tuple(caps), tuple(commands)))

    def invalidate(self, principal: str, reason: str, *, role: str | None = None, answering: str | None = None) -> int:
        """Keep it."""
        self.ended.append((principal, reason, role))
        for person in self.people:
            person.invalidated = person.invalidated or person.principal == principal
        return 0


class Context:
    """What the book needs of its context."""

    def __init__(self, store: SqliteStore, clock: Clock, policy: str) -> None:
        self.store = store
        self.state_dir = store.path.parent
        self.audit = AuditTrail(store, home=store.path.parent, now_ms=clock)
        self.config = Config.model_validate({"gateway": {"pairing": {"local": policy}}})
        self.logger = logging.getLogger("test.pairing")
        self.gateway = SimpleNamespace(url="http://127.0.0.1:18789")
        self.events = RecordedEvents()
        self.connections = RecordedConnections()
        self.failures: list[BaseException] = []
        self.tasks = TaskOwner("pairing", lambda _name, error: self.failures.append(error))
        self.running: set[asyncio.Task[Any]] = set()
        self._clock = clock

    def now_ms(self) -> int:
        """The test's time."""
        return self._clock()

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it."""
        task = self.tasks.spawn(name, coroutine)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    def service(self, kind: type) -> Any:
        """One of those it asks for."""
        if kind is Events:
            return self.events
        if kind is Gateway:
            return self.gateway
        return self.audit if kind is AuditLog else self.connections


@dataclass
class Person:
    """Who calls a method; by default the owner with the shared secret."""

    scopes: frozenset[str] = frozenset({"operator.admin"})
    principal: str = "token"
    role: str = "operator"
    connection_id: str = "caller"
    invalidated: bool = False
    address: str | None = "127.0.0.1"

    def has(self, scope: Scope) -> bool:
        """As a connection answers it."""
        return not self.invalidated and scope.value in effective_scopes(self.scopes)


@dataclass
class Call:
    """The part of a call that the methods look at."""

    client: Person
    surface: str = "ws"
    traceparent: str | None = None


class Gate:
    """One gateway: what its handshakes share, its book, and the methods on it."""

    def __init__(self, store: SqliteStore, *, policy: str = "auto", mode: str = "token", clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.waited_ms = 0
        """For how long the last handshake that was settled was held back."""
        self.context = Context(store, self.clock, policy)
        self.roster = Roster(self.context)  # type: ignore[arg-type]  # the part of a context it needs
        self.setups = SetupDesk(self.context, self.roster)  # type: ignore[arg-type]
        self.nodes = NodeBook(self.context, self.roster)  # type: ignore[arg-type]
        self.book = DeviceBook(self.context, self.roster, self.setups, self.nodes)  # type: ignore[arg-type]
        decisions = Decisions(self.roster)
        owners = [
            DeviceMethods(self.context, decisions),  # type: ignore[arg-type]
            SetupMethods(self.context, self.setups),  # type: ignore[arg-type]
            NodeMethods(self.context, self.nodes, decisions),  # type: ignore[arg-type]
            UpgradeMethods(self.context, self.roster, self.book),  # type: ignore[arg-type]
        ]
        self.methods = {method.name: method for owner in owners for method in methods_of(owner)}
        auth = {"mode": mode} | ({} if mode == "none" else {mode: TOKEN})
        self.verifier = Verifier(GatewayAuth.model_validate(auth), FailureLimiter(), self.book)
        self.handshakes = Handshakes(verifier=self.verifier, phase=lambda: Phase.SERVING, now_ms=self.clock, pairing=self.book)

    async def shake(self, device: TestDevice, peer: Peer = LOCAL, **more: Any) -> list[Action]:
        """A whole handshake."""
        handshake = self.handshakes.begin(peer)
        (challenge,) = handshake.open()
        nonce = str(challenge.frame).split('"nonce":"')[1].split('"')[0]  # type: ignore[union-attr]
        actions = handshake.receive(request("connect", device.params(nonce, self.clock(), **more)))
        self.waited_ms = 0
        while actions and isinstance(actions[-1], Settle):
            self.waited_ms += sum(action.milliseconds for action in actions if isinstance(action, Delay))
            actions = handshake.resume(await self.handshakes.settle(actions[-1].claim))
        return actions

    async def call(self, name: str, caller: Person | None = None, **params: Any) -> Any:
        """Call a method, and check its result."""
        declared = self.methods[name]
        assert declared.params is not None
        person = caller or Person()
        self.context.connections.people.append(person)
        answer = declared.handler(Call(person), declared.params.model_validate(params))
        result = await answer if asyncio.iscoroutine(answer) else answer
        contract.validate_result(name, result)
        return result

    async def settled(self) -> None:
        """Wait for what the book does by itself."""
        if self.context.running:
            await asyncio.wait(set(self.context.running))
        assert self.context.failures == [], self.context.failures


class TestDevice:
    """A device with a key of its own; `token` is the shared secret unless other credentials are given."""

    __test__ = False

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.raw = self.key.public_key().public_bytes_raw()
        self.id = hashlib.sha256(self.raw).hexdigest()

    def params(
        self,
        nonce: str,
        now_ms: int,
        *,
        auth: Mapping[str, str] | None = None,
        scopes: Sequence[str] | None = READ,
        role: str = "operator",
        client: tuple[str, str] = ("cli", "cli"),
        platform: str = "linux",
        proof: Mapping[str, Any] | None = None,
        surface: Mapping[str, Any] | None = None,
        **said: str,
    ) -> dict[str, Any]:
        """Signed connect params; `proof` replaces parts of it after it was signed, `surface` is what a node declares."""
        about = {"id": client[0], "mode": client[1], "version": "1", "platform": platform}
        about |= {{"family": "deviceFamily", "name": "displayName"}[key]: text for key, text in said.items()}
        params: dict[str, Any] = {"minProtocol": 4, "maxProtocol": 4, "client": about, "role": role}
        params |= surface or {}
        params["auth"] = {"token": TOKEN} if auth is None else dict(auth)
        if scopes is not None:
            params["scopes"] = list(scopes)
        whole = {"id": self.id, "publicKey": encode(self.raw), "signature": "x", "signedAt": now_ms, "nonce": nonce}
        model = ConnectParams.model_validate({**params, "device": whole})
        assert model.device is not None
        whole["signature"] = encode(self.key.sign(signed_texts(model, model.device)[0].encode()))
        return {**params, "device": {**whole, **(proof or {})}}


def encode(raw: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Gate]:
    """A gate over the store in this folder; opened again, it is the gateway after a restart."""
    store = SqliteStore(folder / "state.sqlite3")
    assert not await store.open({"pairing": MIGRATIONS})
    gate = Gate(store, **options)
    await gate.book.load()
    try:
        yield gate
        await gate.settled()
    finally:
        await gate.context.tasks.close(1)
        await store.close()
