"""The devices: kept in memory, each change on disk before it counts. One change at a time, and none is left half done."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

from openclaw_kernel.api import (
    ApprovalNeeded,
    Connections,
    DeviceClaim,
    DeviceGrant,
    Events,
    GatewayError,
    InvalidRequest,
    PairingReason,
    PluginContext,
    TokenVerdict,
    Unavailable,
    device_principal,
    effective_scopes,
    narrowed,
)
from openclaw_plugins.pairing import tables, wire
from openclaw_plugins.pairing.records import About, Device, Request, Role, Token, new_token
from openclaw_plugins.pairing.rules import OPERATOR, covers, may_be_silent, needed, same_request

PENDING_MS: Final = 300_000
MOST_DEVICES: Final = 1_000
_REFRESH_MS: Final = 30_000

ValueT = TypeVar("ValueT")
Allowed = Callable[[], None]
Change = Callable[[sqlite3.Connection], ValueT]


@dataclass(frozen=True, slots=True)
class _Issued:
    """The newest token of a role since the start; a device that shows none is told it again instead of a new one each time."""

    text: str = field(repr=False)
    token: Token


class DeviceBook:
    """Implements `openclaw_kernel.api.DevicePairing`, and what people do with devices."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._devices: dict[str, Device] = {}
        self._requests: dict[str, Request] = {}
        self._removed: set[str] = set()
        self._issued: dict[tuple[str, str], _Issued] = {}
        self._settling_tokens: set[bytes] = set()
        self._lock = asyncio.Lock()
        self._is_loaded = False

    async def load(self) -> None:
        """Read what is on disk; before that nobody is let in."""
        devices, requests, self._removed = await self._context.store.read(tables.load)
        self._devices = {device.device_id: device for device in devices}
        self._requests = {request.request_id: request for request in requests}
        self._is_loaded = True

    def close(self) -> None:
        """Let nobody in any more."""
        self._is_loaded = False

    # --- what the handshake asks ---

    def check_token(self, device_id: str, role: str, token: str, scopes: Sequence[str]) -> TokenVerdict:
        """See `openclaw_kernel.api.DevicePairing.check_token`."""
        held = self._live_role(device_id, role)
        found = None if held is None else held.find(token)
        if held is None or found is None:
            return "unknown"
        is_approved = set(scopes) <= effective_scopes(held.scopes)
        return "scopes" if is_approved and not covers(found, scopes) else "ok"

    def recall(self, claim: DeviceClaim) -> DeviceGrant | None:
        """See `openclaw_kernel.api.DevicePairing.recall`."""
        role = self._live_role(claim.device_id, claim.role)
        if role is None or needed(self._devices.get(claim.device_id), claim) is not None:
            return None
        shown = None if claim.token is None else role.find(claim.token)
        if claim.by_token and shown is None:
            return None
        limit = role.scopes
        if claim.by_token and shown is not None and shown.scopes is not None:
            limit = narrowed(shown.scopes, role.scopes)
        scopes = narrowed(claim.scopes, limit)
        if shown is not None and not shown.used:
            self._use(claim.device_id, claim.role, shown)
        if claim.token is not None and shown is not None and covers(shown, scopes):
            return DeviceGrant(device_id=claim.device_id, scopes=scopes, token=claim.token, issued_at_ms=shown.issued_ms)
        issued = self._issued.get((claim.device_id, claim.role))
        if issued is None or not covers(issued.token, scopes) or role.find(issued.text) is None:
            return None
        return DeviceGrant(device_id=claim.device_id, scopes=scopes, token=issued.text, issued_at_ms=issued.token.issued_ms)

    async def settle(self, claim: DeviceClaim) -> ApprovalNeeded | None:
        """See `openclaw_kernel.api.DevicePairing.settle`."""
        return await self._change("settle", partial(self._settle, claim))

    async def _settle(self, claim: DeviceClaim) -> ApprovalNeeded | None:
        role = self._live_role(claim.device_id, claim.role)
        if claim.by_token and (role is None or claim.token is None or role.find(claim.token) is None):
            # Withdrawn since it was checked.
            return None
        device = self._devices.get(claim.device_id)
        reason = needed(device, claim)
        if reason is None and device is not None:
            await self._have_token(device, claim)
            return None
        reason = reason or "not-paired"
        policy = self._context.config.gateway.pairing.local
        silent = may_be_silent(claim, device, policy=policy, was_removed=claim.device_id in self._removed)
        request = self._request_of(claim, reason)
        if silent and (device is not None or len(self._devices) < MOST_DEVICES):
            await self._have_token(await self._approve(request, "policy"), claim)
            return None
        return await self._keep(request, device)

    async def _have_token(self, device: Device, claim: DeviceClaim) -> None:
        if self.recall(claim) is None:
            await self._issue(device, claim.role, None)

    # --- what people do ---

    def waiting(self) -> list[Request]:
        """The requests that wait now, oldest first."""
        self._must_be_loaded()
        oldest_ms = self._context.now_ms() - PENDING_MS
        live = [request for request in self._requests.values() if request.refreshed_ms >= oldest_ms]
        return sorted(live, key=lambda request: (request.created_ms, request.request_id))

    def devices(self) -> list[Device]:
        """The approved devices, newest first."""
        self._must_be_loaded()
        return sorted(self._devices.values(), key=lambda device: (-device.approved_ms, device.device_id))

    def request(self, request_id: str) -> Request:
        """A request that waits; raise `InvalidRequest`."""
        found = next((request for request in self.waiting() if request.request_id == request_id), None)
        if found is None:
            text = f"unknown requestId {request_id[:64]!r}; it was decided, replaced or is older than {PENDING_MS // 60_000} minutes"
            raise InvalidRequest(f"{text}; see device.pair.list")
        return found

    def handed_out(self, request: Request) -> dict[str, tuple[str, ...]]:
        """What an approval gives, by role; a device that is no longer what it was gets back all that it had."""
        given = {request.role: request.scopes}
        device = self._devices.get(request.device_id)
        if device is not None and request.reason == "metadata-upgrade":
            for name in device.live_roles:
                given[name] = (*given.get(name, ()), *device.roles[name].scopes)
        return given

    def role(self, device_id: str, role: str) -> Role:
        """What a device is approved for in a role that was not revoked; raise `InvalidRequest`."""
        self._must_be_loaded()
        if device_id not in self._devices:
            raise InvalidRequest(f"unknown deviceId {device_id[:80]!r}; see device.pair.list")
        held = self._live_role(device_id, role)
        if held is None:
            found = ", ".join(self._devices[device_id].live_roles) or "none"
            raise InvalidRequest(f"device {device_id[:12]} has no role {role[:64]!r}; it has {found}")
        return held

    # `allowed` raises where the caller may not; it is asked again when the change is made, for its right may be gone by then.

    async def approve(self, request_id: str, *, allowed: Allowed) -> Device:
        """Let the device in as it asked; raise `InvalidRequest` where it no longer waits."""
        request = self.request(request_id)

        def has_room() -> None:
            allowed()
            if request.device_id not in self._devices and len(self._devices) >= MOST_DEVICES:
                raise InvalidRequest(f"{len(self._devices)} devices are approved, which is the limit; remove some with device.pair.remove")

        return self._there(await self._change("approve", partial(self._approve_waiting, request), has_room), "requestId")

    async def reject(self, request_id: str, *, allowed: Allowed) -> Request:
        """Forget a request; raise `InvalidRequest` where it no longer waits."""
        return self._there(await self._change("reject", partial(self._reject, self.request(request_id)), allowed), "requestId")

    async def remove(self, device_id: str, *, answering: str, allowed: Allowed) -> None:
        """Forget a device and close its connections; raise `InvalidRequest` for an unknown one."""
        if device_id not in self._devices:
            raise InvalidRequest(f"unknown deviceId {device_id[:80]!r}; see device.pair.list")
        await self._change("remove", partial(self._remove, device_id, answering), allowed)

    async def rotate(
        self, device_id: str, role: str, scopes: tuple[str, ...] | None, *, answering: str, allowed: Allowed
    ) -> tuple[str, Token]:
        """Replace every token of a role by a new one and close its connections; raise `InvalidRequest`."""
        self.role(device_id, role)
        change = partial(self._rotate, device_id, role, scopes, answering)
        return self._there(await self._change("rotate", change, allowed), "deviceId")

    async def revoke(self, device_id: str, role: str, *, answering: str, allowed: Allowed) -> int:
        """Take a role away and close its connections; return when. Only a person can give it back. Raise `InvalidRequest`."""
        self.role(device_id, role)
        return self._there(await self._change("revoke", partial(self._revoke, device_id, role, answering), allowed), "deviceId")

    # --- changes; each runs alone ---

    async def _change(self, name: str, change: Callable[[], Coroutine[Any, Any, ValueT]], allowed: Allowed = lambda: None) -> ValueT:
        async def alone() -> ValueT | GatewayError:
            async with self._lock:
                try:
                    allowed()
                except GatewayError as error:
                    return error
                return await change()

        self._must_be_loaded()
        # A caller that gives up must not leave disk and memory apart.
        answer: ValueT | GatewayError = await asyncio.shield(self._context.spawn(name, alone()))
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    async def _save(self, device: Device, further: Change[object] | None = None) -> None:
        def write(connection: sqlite3.Connection) -> None:
            tables.put_device(connection, device)
            if further is not None:
                further(connection)

        await self._context.store.write(write)
        self._devices[device.device_id] = device
        self._removed.discard(device.device_id)

    async def _issue(self, device: Device, name: str, scopes: tuple[str, ...] | None) -> _Issued:
        role = device.roles[name]
        # Tokens are told apart in time by when they were issued, also where the clock was set back.
        latest_ms = max((held.issued_ms for held in role.tokens), default=0)
        text, token = new_token(max(self._context.now_ms(), latest_ms + 1), scopes)
        await self._save(_with_role(device, name, role.issued(token)))
        issued = self._issued[device.device_id, name] = _Issued(text, token)
        return issued

    def _use(self, device_id: str, role: str, token: Token) -> None:
        if token.digest not in self._settling_tokens:
            self._settling_tokens.add(token.digest)
            self._context.spawn("use of a token", self._used(device_id, role, token))

    async def _used(self, device_id: str, name: str, token: Token) -> None:
        try:
            async with self._lock:
                device, role = self._devices.get(device_id), self._live_role(device_id, name)
                if device is not None and role is not None and token in role.tokens:
                    await self._save(_with_role(device, name, role.seen(token)))
        finally:
            self._settling_tokens.discard(token.digest)

    async def _approve_waiting(self, request: Request) -> Device | None:
        return await self._approve(request, "person") if self._waits(request) else None

    async def _approve(self, request: Request, by: str) -> Device:
        now_ms = self._context.now_ms()
        earlier = self._devices.get(request.device_id)
        role = self._live_role(request.device_id, request.role)
        scopes = request.scopes if role is None else tuple(dict.fromkeys((*role.scopes, *request.scopes)))
        tokens = () if role is None else role.tokens
        device = Device(
            device_id=request.device_id,
            public_key=request.public_key,
            about=request.about,
            created_ms=now_ms if earlier is None else earlier.created_ms,
            approved_ms=now_ms,
            approved_by=by,
            roles={**self._earlier_roles(request.device_id, now_ms), request.role: Role(scopes, now_ms, None, tokens)},
        )
        await self._save(device, lambda connection: tables.drop_request(connection, device.device_id))
        self._context.logger.info(
            "device %s approved by %s: %s as %s with %s",
            device.device_id[:12],
            by,
            request.reason,
            request.role,
            ", ".join(scopes) or "no scopes",
        )
        if by == "policy":
            self._tell_resolved(request, "approved")
        self._forget_requests(device.device_id, "approved")
        return device

    async def _reject(self, request: Request) -> Request | None:
        if not self._waits(request):
            return None
        await self._context.store.write(lambda connection: tables.drop_request(connection, request.device_id))
        self._context.logger.info("device %s rejected: %s", request.device_id[:12], request.reason)
        self._forget_requests(request.device_id, "rejected")
        return request

    async def _remove(self, device_id: str, answering: str) -> None:
        now_ms = self._context.now_ms()
        await self._context.store.write(lambda connection: tables.remove_device(connection, device_id, now_ms))
        self._devices.pop(device_id, None)
        self._removed.add(device_id)
        self._issued = {place: issued for place, issued in self._issued.items() if place[0] != device_id}
        self._forget_requests(device_id, "rejected")
        self._disconnect(device_id, None, "device-pair-removed", answering)

    async def _rotate(self, device_id: str, name: str, scopes: tuple[str, ...] | None, answering: str) -> tuple[str, Token] | None:
        device, role = self._devices.get(device_id), self._live_role(device_id, name)
        if device is None or role is None:
            return None
        issued = await self._issue(_with_role(device, name, replace(role, tokens=())), name, scopes)
        self._disconnect(device_id, name, "device-token-rotated", answering)
        return issued.text, issued.token

    async def _revoke(self, device_id: str, name: str, answering: str) -> int | None:
        device, role = self._devices.get(device_id), self._live_role(device_id, name)
        if device is None or role is None:
            return None
        now_ms = self._context.now_ms()
        # What was asked for in addition must not give back what is taken away.
        revoked = _with_role(device, name, replace(role, tokens=(), revoked_ms=now_ms))
        await self._save(revoked, lambda connection: tables.drop_request(connection, device_id))
        self._issued.pop((device_id, name), None)
        self._forget_requests(device_id, "rejected")
        self._disconnect(device_id, name, "device-token-revoked", answering)
        return now_ms

    async def _keep(self, fresh: Request, device: Device | None) -> ApprovalNeeded:
        known = next((request for request in self.waiting() if request.device_id == fresh.device_id), None)
        if known is not None and same_request(known, fresh) and fresh.created_ms - known.refreshed_ms < _REFRESH_MS:
            return _needed(known.request_id, fresh.reason, device)
        before_ms = fresh.created_ms - PENDING_MS
        kept = await self._context.store.write(lambda connection: tables.keep_request(connection, fresh, expired_before_ms=before_ms))
        self._requests = {request.request_id: request for request in kept.waiting}
        if kept.superseded is not None:
            self._tell_resolved(kept.superseded, "rejected")
        if kept.created:
            self._context.logger.info("device %s waits for approval: %s", fresh.device_id[:12], fresh.reason)
            self._context.service(Events).broadcast("device.pair.requested", wire.requested(fresh, is_repair=device is not None))
        return _needed(None if kept.request is None else kept.request.request_id, fresh.reason, device)

    # --- small things ---

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

    def _live_role(self, device_id: str, name: str) -> Role | None:
        self._must_be_loaded()
        device = self._devices.get(device_id)
        role = None if device is None else device.roles.get(name)
        return None if role is None or role.revoked_ms is not None else role

    def _earlier_roles(self, device_id: str, now_ms: int) -> dict[str, Role]:
        device = self._devices.get(device_id)
        if device is not None:
            return device.roles
        # Who gives a removed device back a role has not given back the one that a policy could.
        return {OPERATOR: Role((), now_ms, revoked_ms=now_ms)} if device_id in self._removed else {}

    def _waits(self, request: Request) -> bool:
        return request.request_id in {waiting.request_id for waiting in self.waiting()}

    def _forget_requests(self, device_id: str, decision: str) -> None:
        for request in [request for request in self._requests.values() if request.device_id == device_id]:
            del self._requests[request.request_id]
            self._tell_resolved(request, decision)

    def _tell_resolved(self, request: Request, decision: str) -> None:
        payload = {"requestId": request.request_id, "deviceId": request.device_id, "decision": decision, "ts": self._context.now_ms()}
        self._context.service(Events).broadcast("device.pair.resolved", payload)

    def _disconnect(self, device_id: str, role: str | None, reason: str, answering: str) -> None:
        self._context.logger.info("%s: %s%s", reason, device_id[:12], "" if role is None else f" as {role}")
        self._context.service(Connections).invalidate(device_principal(device_id), reason, role=role, answering=answering)

    def _must_be_loaded(self) -> None:
        if not self._is_loaded:
            raise Unavailable("devices cannot be paired now: the plugin pairing does not run", retryable=True)

    @staticmethod
    def _there(value: ValueT | None, what: str) -> ValueT:
        if value is None:
            raise InvalidRequest(f"unknown {what}: somebody else decided on it just now; see device.pair.list")
        return value


def _with_role(device: Device, name: str, role: Role) -> Device:
    return replace(device, roles={**device.roles, name: role})


def _needed(request_id: str | None, reason: PairingReason, device: Device | None) -> ApprovalNeeded:
    if device is None:
        return ApprovalNeeded(reason=reason, request_id=request_id)
    scopes = sorted({scope for name in device.live_roles for scope in device.roles[name].scopes})
    return ApprovalNeeded(reason=reason, request_id=request_id, approved_roles=device.live_roles, approved_scopes=tuple(scopes))
