"""What the handshake asks of the devices: answered from memory, decided by policy, or kept for a person."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from openclaw_kernel.api import (
    BY_GATEWAY,
    BY_POLICY,
    ApprovalNeeded,
    AuditAction,
    AuditOrigin,
    DeviceClaim,
    DeviceGrant,
    GatewayError,
    InvalidRequest,
    PairingReason,
    PluginContext,
    RoleToken,
    SetupSpent,
    TokenVerdict,
    device_principal,
    effective_scopes,
    narrowed,
)
from openclaw_plugins.pairing import tables, wire
from openclaw_plugins.pairing.records import About, Device, Request, Role, Token
from openclaw_plugins.pairing.roster import MOST_DEVICES, Roster, Step, with_role
from openclaw_plugins.pairing.rules import NODE, covers, may_be_silent, needed, same_request

_REFRESH_MS: Final = 30_000
_LOOK_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 5.0


class Setups(Protocol):
    """The setup codes, as the handshake needs them."""

    def check(self, token: str, role: str) -> bool:
        """Tell whether a bootstrap token is good for this role."""
        ...

    async def redeem(self, claim: DeviceClaim) -> SetupSpent | None:
        """Use a code up and pair the device."""
        ...

    def take_over(self, claim: DeviceClaim) -> tuple[RoleToken, ...]:
        """The tokens of the other roles, once."""
        ...


class Nodes(Protocol):
    """The second gate of nodes."""

    async def load(self) -> None:
        """Read what is on disk, once the devices are there."""
        ...

    def granted(self, claim: DeviceClaim, grant: DeviceGrant) -> DeviceGrant:
        """What of the declared surface counts."""
        ...

    async def expire(self) -> None:
        """End the requests of nodes that left."""
        ...


class DeviceBook:
    """Implements `openclaw_kernel.api.DevicePairing`."""

    def __init__(self, context: PluginContext, roster: Roster, setups: Setups, nodes: Nodes) -> None:
        self._context = context
        self._roster = roster
        self._setups = setups
        self._nodes = nodes
        self._settling_tokens: set[bytes] = set()
        self._waits_changed = asyncio.Event()

    async def load(self) -> None:
        """Read what is on disk; before that nobody is let in."""
        await self._roster.load()
        await self._nodes.load()
        self._roster.changes.is_open = True

    def close(self) -> None:
        """Let nobody in any more."""
        self._roster.changes.is_open = False

    def check_token(self, device_id: str, role: str, token: str, scopes: Sequence[str]) -> TokenVerdict:
        """See `openclaw_kernel.api.DevicePairing.check_token`."""
        held = self._roster.live_role(device_id, role)
        found = None if held is None else self._find(held, token)
        if held is None or found is None:
            return "unknown"
        is_approved = set(scopes) <= effective_scopes(held.scopes)
        return "scopes" if is_approved and not covers(found, scopes) else "ok"

    def check_setup(self, token: str, role: str) -> bool:
        """See `openclaw_kernel.api.DevicePairing.check_setup`."""
        return self._setups.check(token, role)

    def recall(self, claim: DeviceClaim) -> DeviceGrant | None:
        """See `openclaw_kernel.api.DevicePairing.recall`."""
        grant = self._admit(claim)
        return grant if grant is None or claim.role != NODE else self._nodes.granted(claim, grant)

    def _admit(self, claim: DeviceClaim) -> DeviceGrant | None:
        if claim.bootstrap_token is None:
            return self._recall(claim)
        role = self._roster.live_role(claim.device_id, claim.role)
        issued = self._roster.issued.get((claim.device_id, claim.role))
        if role is None or issued is None:
            return None
        # A setup code gives what it was made for, whatever is asked.
        scopes = narrowed(claim.scopes, role.scopes)
        limit = issued.token.scopes
        grant = self._recall(replace(claim, scopes=scopes if limit is None else narrowed(scopes, limit)))
        return None if grant is None else replace(grant, further=self._setups.take_over(claim))

    def _recall(self, claim: DeviceClaim) -> DeviceGrant | None:
        role = self._roster.live_role(claim.device_id, claim.role)
        if role is None or needed(self._roster.devices.get(claim.device_id), claim) is not None:
            return None
        shown = None if claim.token is None else self._find(role, claim.token)
        if claim.by_token and shown is None:
            return None
        limit = role.scopes
        if claim.by_token and shown is not None and shown.scopes is not None:
            limit = narrowed(shown.scopes, role.scopes)
        scopes = narrowed(claim.scopes, limit)
        if shown is not None and not shown.used:
            self._use(claim, shown)
        if claim.token is not None and shown is not None and not shown.rotated and covers(shown, scopes):
            return DeviceGrant(device_id=claim.device_id, scopes=scopes, token=claim.token, issued_at_ms=shown.issued_ms)
        issued = self._roster.issued.get((claim.device_id, claim.role))
        if issued is None or not covers(issued.token, scopes) or role.find(issued.text) is None:
            return None
        return DeviceGrant(device_id=claim.device_id, scopes=scopes, token=issued.text, issued_at_ms=issued.token.issued_ms)

    async def settle(self, claim: DeviceClaim) -> ApprovalNeeded | SetupSpent | None:
        """See `openclaw_kernel.api.DevicePairing.settle`."""
        if claim.bootstrap_token is not None:
            return await self._setups.redeem(claim)
        return await self._roster.changes.make("settle", partial(self._settle, claim))

    async def _settle(self, claim: DeviceClaim) -> ApprovalNeeded | None:
        roster = self._roster
        role = roster.live_role(claim.device_id, claim.role)
        if claim.by_token and (role is None or claim.token is None or self._find(role, claim.token) is None):
            # Withdrawn since it was checked.
            return None
        device = roster.devices.get(claim.device_id)
        reason = needed(device, claim)
        if reason is None and device is not None:
            await self._have_token(device, claim)
            return None
        reason = reason or "not-paired"
        policy = self._context.config.gateway.pairing.local
        silent = may_be_silent(claim, device, policy=policy, was_removed=claim.device_id in roster.removed)
        request = self._request_of(claim, reason)
        if silent and (device is not None or len(roster.devices) < MOST_DEVICES):
            origin = replace(BY_POLICY, address=claim.address)
            await self._have_token(await approve(roster, request, "policy", origin), claim)
            return None
        return await self._keep(request, device)

    async def _have_token(self, device: Device, claim: DeviceClaim) -> None:
        if self._recall(claim) is not None:
            return
        role = device.roles[claim.role]
        shown = None if claim.token is None else role.find(claim.token)
        # Where a rotation put another in its place whose text is lost by now, a further one is given with what that one had.
        scopes = role.tokens[-1].scopes if shown is not None and shown.rotated else None
        await self._roster.issue(device, claim.role, scopes, _origin(claim))

    def _find(self, role: Role, text: str) -> Token | None:
        # A later one was shown: that is on its way to the disk, and already true.
        found = role.find(text)
        is_over = found is not None and any(later.digest in self._settling_tokens for later in role.tokens[role.tokens.index(found) + 1 :])
        return None if is_over else found

    def _use(self, claim: DeviceClaim, token: Token) -> None:
        if token.digest not in self._settling_tokens:
            self._settling_tokens.add(token.digest)
            self._context.spawn("use of a token", self._used(claim, token))

    async def _used(self, claim: DeviceClaim, token: Token) -> None:
        try:
            async with self._roster.changes.lock:
                await self._note_use(claim, token)
        finally:
            self._settling_tokens.discard(token.digest)

    async def _note_use(self, claim: DeviceClaim, token: Token) -> None:
        roster, device_id, name = self._roster, claim.device_id, claim.role
        device, role = roster.devices.get(device_id), roster.live_role(device_id, name)
        if device is None or role is None or token not in role.tokens:
            return
        seen = with_role(device, name, role.seen(token))
        if not role.is_first(token):
            await roster.withdrawals.retire(device_id, name, token.generation)
            retired = roster.audit(AuditAction.TOKEN_RETIRED, _origin(claim), device_id, device, seen, details={"role": name})
            await roster.save(seen, retired)
        else:
            await roster.save(seen)

    async def ask(self, fresh: Request) -> ApprovalNeeded:
        """Keep a request that a device makes for itself, without a handshake."""
        return await self._roster.changes.make("request", lambda: self._keep(fresh, self._roster.devices.get(fresh.device_id)))

    async def _keep(self, fresh: Request, device: Device | None) -> ApprovalNeeded:
        roster = self._roster
        known = next((request for request in roster.waiting() if request.device_id == fresh.device_id), None)
        if known is not None and same_request(known, fresh) and fresh.created_ms - known.refreshed_ms < _REFRESH_MS:
            return _needed(known.request_id, fresh.reason, device)
        kept: tables.Kept | None = None
        details = {"role": fresh.role, "scopes": list(fresh.scopes), "reason": fresh.reason, "requestId": fresh.request_id}
        origin = AuditOrigin(actor=device_principal(fresh.device_id), surface="ws", address=fresh.about.address)
        asked = roster.audit(AuditAction.DEVICE_REQUESTED, origin, fresh.device_id, details=details)

        def keep(connection: sqlite3.Connection) -> None:
            nonlocal kept
            kept = tables.keep_request(connection, fresh)
            for request in kept.expired:
                _expired(roster, request)(connection)
            if kept.created:
                asked(connection)

        await roster.write(keep)
        if kept is None:
            raise AssertionError("a write that ended has kept or refused the request")
        roster.requests = {request.request_id: request for request in kept.waiting}
        self._waits_changed.set()
        for request in kept.expired:
            roster.tell_resolved(request, "expired")
        if kept.superseded is not None:
            roster.tell_resolved(kept.superseded, "rejected")
        if kept.created:
            self._context.logger.info("device %s waits for approval: %s", fresh.device_id[:12], fresh.reason)
            roster.tell("device.pair.requested", fresh.device_id, wire.requested(fresh, is_repair=device is not None))
        return _needed(None if kept.request is None else kept.request.request_id, fresh.reason, device)

    # --- requests that nobody answers ---

    async def run_expiry(self) -> None:
        """End requests when their time is over, for as long as the plugin runs."""
        while True:
            due_ms = min((request.expires_ms for request in self._roster.requests.values()), default=None)
            # Those of nodes end when their node has left, of which nobody is told; a minute more or less is nothing to them.
            seconds = _LOOK_SECONDS if due_ms is None else min(_LOOK_SECONDS, max(0, due_ms - self._context.now_ms()) / 1000 + 0.01)
            try:
                async with asyncio.timeout(seconds):
                    await self._waits_changed.wait()
            except TimeoutError:
                try:
                    await self.expire()
                except GatewayError as error:
                    self._context.logger.warning("requests that are over are not ended yet: %s", error.message)
                    await asyncio.sleep(_RETRY_SECONDS)
            self._waits_changed.clear()

    async def expire(self) -> None:
        """End the requests whose time is over, and tell so."""
        async with self._roster.changes.lock:
            await self._expire()
        await self._nodes.expire()

    async def _expire(self) -> None:
        roster = self._roster
        if all(request.expires_ms >= self._context.now_ms() for request in roster.requests.values()):
            return
        expired: tuple[Request, ...] = ()

        def expire(connection: sqlite3.Connection) -> None:
            nonlocal expired
            expired = tables.expire_requests(connection, self._context.now_ms())
            for request in expired:
                _expired(roster, request)(connection)

        await roster.write(expire)
        for request in expired:
            roster.requests.pop(request.request_id, None)
            roster.tell_resolved(request, "expired")

    def _request_of(self, claim: DeviceClaim, reason: PairingReason) -> Request:
        now_ms = self._context.now_ms()
        return Request(
            request_id=str(uuid.uuid4()),
            device_id=claim.device_id,
            public_key=claim.public_key,
            role=claim.role,
            scopes=claim.scopes,
            reason=reason,
            about=About.of(claim),
            network=claim.network,
            created_ms=now_ms,
            refreshed_ms=now_ms,
        )


async def approve(roster: Roster, request: Request, by: str, origin: AuditOrigin, *steps: Step) -> Device:
    """Let a device in as it asked, in one write with the steps; told by the log, the events and the audit log."""
    now_ms, generation = roster.context.now_ms(), roster.next_generation()
    earlier = roster.devices.get(request.device_id)
    role = roster.approved_role(request.device_id, request.role, request.scopes, generation)
    device = Device(
        device_id=request.device_id,
        public_key=request.public_key,
        about=request.about,
        created_ms=now_ms if earlier is None else earlier.created_ms,
        approved_ms=now_ms,
        approved_by=by,
        roles={**roster.earlier_roles(request.device_id), request.role: role},
        generation=generation if earlier is None else earlier.generation,
        label=None if earlier is None else earlier.label,
    )
    details = {"role": request.role, "scopes": list(role.scopes), "requestId": request.request_id}
    await approval(roster, device, origin, *steps, reason=request.reason, details=details)
    roster.context.logger.info(
        "device %s approved by %s: %s as %s with %s",
        device.device_id[:12],
        by,
        request.reason,
        request.role,
        ", ".join(role.scopes) or "no scopes",
    )
    if by == "policy":
        roster.tell_resolved(request, "approved")
    roster.forget_requests(device.device_id, "approved")
    return device


async def approval(roster: Roster, device: Device, origin: AuditOrigin, *steps: Step, reason: str, details: Mapping[str, Any]) -> None:
    """Write a device that is let in: the steps, the bound, its request gone, the row of the audit log."""

    def has_room(connection: sqlite3.Connection) -> None:
        count = tables.count_devices(connection, beside=device.device_id)
        if count >= MOST_DEVICES:
            raise InvalidRequest(f"{count} devices are approved, which is the limit; remove some with device.pair.remove")

    earlier = roster.devices.get(device.device_id)
    audited = roster.audit(AuditAction.DEVICE_APPROVED, origin, device.device_id, earlier, device, reason=reason, details=details)
    await roster.save(device, *steps, has_room, lambda connection: tables.drop_request(connection, device.device_id), audited)


def _needed(request_id: str | None, reason: PairingReason, device: Device | None) -> ApprovalNeeded:
    if device is None:
        return ApprovalNeeded(reason=reason, request_id=request_id)
    scopes = sorted({scope for name in device.live_roles for scope in device.roles[name].scopes})
    return ApprovalNeeded(reason=reason, request_id=request_id, approved_roles=device.live_roles, approved_scopes=tuple(scopes))


def _origin(claim: DeviceClaim) -> AuditOrigin:
    return AuditOrigin(actor=device_principal(claim.device_id), surface="ws", address=claim.address)


def _expired(roster: Roster, request: Request) -> Step:
    details = {"requestId": request.request_id, "role": request.role}
    return roster.audit(AuditAction.DEVICE_REJECTED, BY_GATEWAY, request.device_id, reason="expired", details=details)
