"""The devices as they are: in memory, and on disk before a change counts. Shared by all that decide on them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openclaw_kernel.api import (
    BY_GATEWAY,
    AuditAction,
    AuditEntry,
    AuditLog,
    AuditOrigin,
    Connections,
    Events,
    InvalidRequest,
    PluginContext,
    device_audience,
    device_principal,
    state_digest,
)
from openclaw_plugins.pairing import setup_tables, tables
from openclaw_plugins.pairing.changes import Changes
from openclaw_plugins.pairing.records import Device, Request, Role, Token, new_token, state_of
from openclaw_plugins.pairing.rules import NODE, OPERATOR
from openclaw_plugins.pairing.setup_tables import Setup
from openclaw_plugins.pairing.withdrawals import FILE_NAME, Withdrawals, Withdrawn, reconcile

MOST_DEVICES: Final = 1_000

_MOST_OUTCOMES: Final = 256

Step = Callable[[sqlite3.Connection], object]
"""A part of a write."""


@dataclass(frozen=True, slots=True)
class Issued:
    """The newest token of a role since the start; a device that shows none is told it again instead of a new one each time."""

    text: str = field(repr=False)
    token: Token


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request that was decided, or is over."""

    request: Request
    decision: str
    generation: int
    """The highest that was given or withdrawn by then."""


class Roster:
    """What is known of devices, and the writes that change it. The callers take turns by `changes`."""

    def __init__(self, context: PluginContext) -> None:
        self.context = context
        self.changes = Changes(context)
        self.devices: dict[str, Device] = {}
        self.requests: dict[str, Request] = {}
        self.removed: set[str] = set()
        self.issued: dict[tuple[str, str], Issued] = {}
        self.outcomes: dict[str, Outcome] = {}
        """What became of the last requests, oldest first."""
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self.setups: dict[bytes, Setup] = {}
        """The setup codes that nobody has used."""
        self.when_withdrawn: list[Callable[[str, AuditOrigin], Step]] = []
        """What else ends with a device, or with its role node: each gives its step of the same write."""
        self.withdrawals = Withdrawals(context.state_dir / FILE_NAME)
        self._generation = 0

    # --- what is there ---

    async def load(self) -> None:
        """Read what is on disk, less what was withdrawn since; before that nobody is let in."""
        withdrawn = self.withdrawals
        await withdrawn.load()
        found = await self.context.store.read(tables.load)
        true = reconcile(found.devices, found.removed, found.generation, withdrawn)
        self._generation = max(found.generation, withdrawn.generation)
        self.devices, self.removed = true.devices, true.removed
        self.requests = {} if true.is_older else {request.request_id: request for request in found.requests}
        open_setups = await self.context.store.read(lambda connection: setup_tables.load_open(connection, self.context.now_ms()))
        self.setups = {} if true.is_older else {setup.digest: setup for setup in open_setups}
        if withdrawn.was_missing and found.withdrawn:
            await self._write_anew()
        if not (true.is_older or true.dropped or true.changed):
            return
        self.context.logger.warning(
            "the database is older than what was withdrawn since: %d devices and the rights of %d more are taken back;"
            " requests and setup codes of then count no longer",
            len(true.dropped),
            len(true.changed),
        )

        def write(connection: sqlite3.Connection) -> None:
            for device in true.dropped:
                tables.remove_device(connection, device.device_id, self.context.now_ms())
                self._withdrawn_before(connection, AuditAction.DEVICE_REMOVED, device, None)
            for device in true.changed:
                before = next(one for one in found.devices if one.device_id == device.device_id)
                tables.put_device(connection, device)
                self._withdrawn_before(connection, AuditAction.TOKEN_REVOKED, before, device)
            tables.forget_what_waits(connection)
            tables.note_generation(connection, self._generation, withdrawn.generation)

        await self.context.store.write(write)

    def live_role(self, device_id: str, name: str) -> Role | None:
        """What a device is approved for in a role, None where it is not, or no longer."""
        self.changes.must_be_open()
        device = self.devices.get(device_id)
        role = None if device is None else device.roles.get(name)
        return None if role is None or role.revoked_ms is not None else role

    def device(self, device_id: str) -> Device:
        """An approved device; raise `InvalidRequest`."""
        self.changes.must_be_open()
        found = self.devices.get(device_id)
        if found is None:
            raise InvalidRequest(f"unknown deviceId {device_id[:80]!r}; see device.pair.list")
        return found

    def waiting(self) -> list[Request]:
        """The requests that wait now, oldest first."""
        self.changes.must_be_open()
        now_ms = self.context.now_ms()
        live = [request for request in self.requests.values() if request.expires_ms >= now_ms]
        return sorted(live, key=lambda request: (request.created_ms, request.request_id))

    def approved_role(self, device_id: str, name: str, scopes: tuple[str, ...], generation: int) -> Role:
        """The role as it is once these scopes are approved in addition to what the device had."""
        held = self.live_role(device_id, name)
        merged = scopes if held is None else tuple(dict.fromkeys((*held.scopes, *scopes)))
        return Role(merged, self.context.now_ms(), generation, None, () if held is None else held.tokens)

    def earlier_roles(self, device_id: str) -> dict[str, Role]:
        """The roles that a device had before it is approved again."""
        device = self.devices.get(device_id)
        if device is not None:
            return device.roles
        now_ms = self.context.now_ms()
        # Who gives a removed device back a role has not given back the one that a policy could.
        return {OPERATOR: Role((), now_ms, 0, revoked_ms=now_ms)} if device_id in self.removed else {}

    def node_floor(self, device_id: str) -> int:
        """The generation of the last withdrawal of a device's role node: what is older counts no longer."""
        held = self.withdrawals.devices.get(device_id, Withdrawn())
        return max(held.revoked.get(NODE, (0, 0))[0], 0 if held.removed is None else held.removed[0])

    def forget_setups(self, minted_by: str) -> Step:
        """The step that ends the codes of one who may no longer hand anything out; memory forgets them at once."""
        self.setups = {digest: setup for digest, setup in self.setups.items() if setup.minted_by != minted_by}
        return lambda connection: setup_tables.drop_open(connection, minted_by)

    # --- writes ---

    def next_generation(self) -> int:
        """A number above all that were given or withdrawn."""
        self._generation += 1
        return self._generation

    async def save(self, device: Device, *steps: Step) -> None:
        """Write a device, and in the same transaction the steps, in whose order they stand; the first may refuse it all."""

        def write(connection: sqlite3.Connection) -> None:
            for step in steps:
                step(connection)
            tables.put_device(connection, device)
            self._note_generation(connection)

        await self.context.store.write(write)
        self.devices[device.device_id] = device
        self.removed.discard(device.device_id)

    async def write(self, *steps: Step) -> None:
        """Write steps together."""

        def write(connection: sqlite3.Connection) -> None:
            for step in steps:
                step(connection)
            self._note_generation(connection)

        await self.context.store.write(write)

    async def issue(
        self, device: Device, name: str, scopes: tuple[str, ...] | None, origin: AuditOrigin, *, rotate: bool = False
    ) -> Issued:
        """Give a role a new token; the others stay good until it is shown, in a rotation with no more than it has."""
        role = device.roles[name]
        # Tokens are told apart in time by when they were issued, also where the clock was set back.
        latest_ms = max((held.issued_ms for held in role.tokens), default=0)
        earlier, generation = self.next_generation(), self.next_generation()
        text, token = new_token(max(self.context.now_ms(), latest_ms + 1), scopes, generation)
        if rotate:
            # An older copy of the database, whose tokens are none of these, opens nothing.
            await self.withdrawals.retire(device.device_id, name, earlier)
        fresh = with_role(device, name, role.rotated(token, earlier) if rotate else role.issued(token))
        action = AuditAction.TOKEN_ROTATED if rotate else AuditAction.TOKEN_ISSUED
        await self.save(fresh, self.audit(action, origin, device.device_id, device, fresh, details={"role": name}))
        issued = self.issued[device.device_id, name] = Issued(text, token)
        return issued

    def audit(
        self,
        action: AuditAction,
        origin: AuditOrigin,
        device_id: str,
        before: Device | None = None,
        after: Device | None = None,
        *,
        reason: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Step:
        """The step that writes the audit log's row."""
        log = self.context.service(AuditLog)

        def append(connection: sqlite3.Connection) -> None:
            digests = [None if one is None else state_digest(state_of(one)) for one in (before, after)]
            entry = AuditEntry(
                action=action,
                origin=origin,
                subject=device_principal(device_id),
                reason=reason,
                before=digests[0],
                after=digests[1],
                details=details or {},
            )
            log.append(connection, entry)

        return append

    def _withdrawn_before(self, connection: sqlite3.Connection, action: AuditAction, before: Device, after: Device | None) -> None:
        reason = "withdrawn after this copy of the database was made"
        self.audit(action, BY_GATEWAY, before.device_id, before, after, reason=reason)(connection)

    def _note_generation(self, connection: sqlite3.Connection) -> None:
        tables.note_generation(connection, self._generation, self.withdrawals.generation)

    async def _write_anew(self) -> None:
        self.context.logger.warning(
            "%s was there before and is gone: it is written anew from the database; look at `devices list` if that is a copy put back",
            FILE_NAME,
        )
        number, now_ms = self.next_generation(), self.context.now_ms()
        gone = {device_id: Withdrawn(removed=(number, now_ms)) for device_id in self.removed}
        for device in self.devices.values():
            revoked = {name: (number, role.revoked_ms) for name, role in device.roles.items() if role.revoked_ms is not None}
            if revoked:
                gone[device.device_id] = Withdrawn(revoked=revoked)
        await self.withdrawals.rebuild(gone, number)
        await self.write()

    # --- who is told ---

    def forget_requests(self, device_id: str, decision: str) -> None:
        """Forget what a device had asked for, once the disk has."""
        for request in [request for request in self.requests.values() if request.device_id == device_id]:
            del self.requests[request.request_id]
            self.tell_resolved(request, decision)

    def tell_resolved(self, request: Request, decision: str) -> None:
        """Tell that a request waits no longer."""
        self.outcomes[request.request_id] = Outcome(request, decision, self._generation)
        while len(self.outcomes) > _MOST_OUTCOMES:
            del self.outcomes[next(iter(self.outcomes))]
        for waiter in self._waiters.pop(request.request_id, ()):
            if not waiter.done():
                waiter.set_result(None)
        payload = {"requestId": request.request_id, "deviceId": request.device_id, "decision": decision, "ts": self.context.now_ms()}
        self.tell("device.pair.resolved", request.device_id, payload)

    async def outcome(self, request_id: str, device_id: str) -> Outcome:
        """Wait until this device's request is decided or over; raise `InvalidRequest` for one that is not its own, or no longer known."""
        self.changes.must_be_open()
        request = self.requests.get(request_id)
        if request is not None and request.device_id == device_id:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiters = self._waiters.setdefault(request_id, [])
            waiters.append(waiter)
            try:
                await waiter
            finally:
                waiters.remove(waiter)
        found = self.outcomes.get(request_id)
        if found is None or found.request.device_id != device_id:
            raise InvalidRequest(f"unknown requestId {request_id[:64]!r}; ask anew with device.scopes.requestUpgrade")
        return found

    def tell(self, event: str, device_id: str, payload: Mapping[str, Any]) -> None:
        """Tell whoever device.pair.list would show the device."""
        self.context.service(Events).broadcast(event, payload, topics=device_audience(device_id))

    def disconnect(self, device_id: str, role: str | None, reason: str, answering: str | None) -> None:
        """End the connections of a device, or of one role of it."""
        self.context.logger.info("%s: %s%s", reason, device_id[:12], "" if role is None else f" as {role}")
        self.context.service(Connections).invalidate(device_principal(device_id), reason, role=role, answering=answering)


def with_role(device: Device, name: str, role: Role) -> Device:
    """The device with this in one of its roles."""
    return replace(device, roles={**device.roles, name: role})
