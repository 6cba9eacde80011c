"""What people do with devices: let in, refuse, name, take away."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from functools import partial

from openclaw_kernel.api import AuditAction, AuditOrigin, InvalidRequest, Scope, device_principal
from openclaw_plugins.pairing import tables
from openclaw_plugins.pairing.book import approve
from openclaw_plugins.pairing.changes import Allowed, there
from openclaw_plugins.pairing.records import PENDING_MS, Device, Request, Role, Token
from openclaw_plugins.pairing.roster import Roster, Step, with_role
from openclaw_plugins.pairing.rules import NODE, OPERATOR


class Decisions:
    """Each is made once, alone, and only where `allowed` does not raise at that moment."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    # --- what is decided on ---

    def devices(self) -> list[Device]:
        """The approved devices, newest first."""
        self._roster.changes.must_be_open()
        return sorted(self._roster.devices.values(), key=lambda device: (-device.approved_ms, device.device_id))

    def waiting(self) -> list[Request]:
        """The requests that wait now, oldest first."""
        return self._roster.waiting()

    def request(self, request_id: str) -> Request:
        """A request that waits; raise `InvalidRequest`."""
        found = next((request for request in self._roster.waiting() if request.request_id == request_id), None)
        if found is None:
            text = f"unknown requestId {request_id[:64]!r}; it was decided, replaced or is older than {PENDING_MS // 60_000} minutes"
            raise InvalidRequest(f"{text}; see device.pair.list")
        return found

    def handed_out(self, request: Request) -> dict[str, tuple[str, ...]]:
        """What an approval gives, by role; a device that is no longer what it was gets back all that it had."""
        given = {request.role: request.scopes}
        device = self._roster.devices.get(request.device_id)
        if device is not None and request.reason == "metadata-upgrade":
            for name in device.live_roles:
                given[name] = (*given.get(name, ()), *device.roles[name].scopes)
        return given

    def role(self, device_id: str, role: str) -> Role:
        """What a device is approved for in a role that was not revoked; raise `InvalidRequest`."""
        device = self._roster.device(device_id)
        held = self._roster.live_role(device_id, role)
        if held is None:
            found = ", ".join(device.live_roles) or "none"
            raise InvalidRequest(f"device {device_id[:12]} has no role {role[:64]!r}; it has {found}")
        return held

    # --- decisions ---

    async def approve(self, request_id: str, origin: AuditOrigin, *, allowed: Allowed) -> Device:
        """Let the device in as it asked; raise `InvalidRequest` where it no longer waits."""
        request = self.request(request_id)
        change = partial(approve, self._roster, request, "person", origin, self._taken(request))
        return await self._roster.changes.make("approve", change, allowed)

    async def reject(self, request_id: str, origin: AuditOrigin, *, allowed: Allowed) -> Request:
        """Forget a request; raise `InvalidRequest` where it no longer waits."""
        request = self.request(request_id)
        await self._roster.changes.make("reject", partial(self._reject, request, origin), allowed)
        return request

    async def rename(self, device_id: str, label: str, origin: AuditOrigin, *, allowed: Allowed) -> None:
        """Call a device so; raise `InvalidRequest` for an unknown one."""
        self._roster.device(device_id)
        await self._roster.changes.make("rename", partial(self._rename, device_id, label, origin), allowed)

    async def remove(self, device_id: str, origin: AuditOrigin, *, answering: str, allowed: Allowed) -> None:
        """Forget a device and close its connections; raise `InvalidRequest` for an unknown one."""
        self._roster.device(device_id)
        await self._roster.changes.make("remove", partial(self._remove, device_id, origin, answering), allowed)

    async def rotate(
        self, device_id: str, role: str, scopes: tuple[str, ...] | None, origin: AuditOrigin, *, answering: str, allowed: Allowed
    ) -> tuple[str, Token]:
        """Put a new token in the place of a role's others, which open until it is shown, and close its connections."""
        self.role(device_id, role)
        change = partial(self._rotate, device_id, role, scopes, origin, answering)
        return there(await self._roster.changes.make("rotate", change, allowed), "deviceId")

    async def revoke(self, device_id: str, role: str, origin: AuditOrigin, *, answering: str, allowed: Allowed) -> int:
        """Take a role away and close its connections; return when. Only a person can give it back. Raise `InvalidRequest`."""
        self.role(device_id, role)
        change = partial(self._revoke, device_id, role, origin, answering)
        return there(await self._roster.changes.make("revoke", change, allowed), "deviceId")

    def _taken(self, request: Request) -> Step:
        def take(connection: sqlite3.Connection) -> None:
            there(tables.take_request(connection, request.request_id, self._roster.context.now_ms()) or None, "requestId")

        return take

    async def _reject(self, request: Request, origin: AuditOrigin) -> None:
        roster, details = self._roster, {"requestId": request.request_id, "role": request.role}
        audited = roster.audit(AuditAction.DEVICE_REJECTED, origin, request.device_id, reason=request.reason, details=details)
        await roster.write(self._taken(request), audited)
        roster.context.logger.info("device %s rejected: %s", request.device_id[:12], request.reason)
        roster.forget_requests(request.device_id, "rejected")

    async def _rename(self, device_id: str, label: str, origin: AuditOrigin) -> None:
        before = self._roster.device(device_id)
        after = replace(before, label=label)
        await self._roster.save(
            after, self._roster.audit(AuditAction.DEVICE_RENAMED, origin, device_id, before, after, details={"label": label})
        )

    async def _remove(self, device_id: str, origin: AuditOrigin, answering: str) -> None:
        roster, now_ms = self._roster, self._roster.context.now_ms()
        device = roster.device(device_id)
        await roster.withdrawals.remove(device_id, roster.next_generation(), now_ms)
        # Out from here on: what the disk still says is overruled.
        roster.devices.pop(device_id, None)
        roster.removed.add(device_id)
        roster.issued = {place: issued for place, issued in roster.issued.items() if place[0] != device_id}
        roster.disconnect(device_id, None, "device-pair-removed", answering)
        audited = roster.audit(AuditAction.DEVICE_REMOVED, origin, device_id, device)
        codes = roster.forget_setups(device_principal(device_id))
        also = [end(device_id, origin) for end in roster.when_withdrawn]
        await roster.write(lambda connection: tables.remove_device(connection, device_id, now_ms), codes, audited, *also)
        roster.forget_requests(device_id, "rejected")

    async def _rotate(
        self, device_id: str, name: str, scopes: tuple[str, ...] | None, origin: AuditOrigin, answering: str
    ) -> tuple[str, Token] | None:
        device = self._roster.devices.get(device_id)
        if device is None or self._roster.live_role(device_id, name) is None:
            return None
        if name == OPERATOR and scopes is not None and Scope.ADMIN.value not in scopes:
            # A code that it made gives more than it has from here on.
            await self._roster.write(self._roster.forget_setups(device_principal(device_id)))
        issued = await self._roster.issue(device, name, scopes, origin, rotate=True)
        self._roster.disconnect(device_id, name, "device-token-rotated", answering)
        return issued.text, issued.token

    async def _revoke(self, device_id: str, name: str, origin: AuditOrigin, answering: str) -> int | None:
        roster, now_ms = self._roster, self._roster.context.now_ms()
        device, role = roster.devices.get(device_id), roster.live_role(device_id, name)
        if device is None or role is None:
            return None
        revoked = with_role(device, name, replace(role, tokens=(), revoked_ms=now_ms))
        await roster.withdrawals.revoke(device_id, name, roster.next_generation(), now_ms)
        roster.devices[device_id] = revoked
        roster.issued.pop((device_id, name), None)
        roster.disconnect(device_id, name, "device-token-revoked", answering)
        audited = roster.audit(AuditAction.TOKEN_REVOKED, origin, device_id, device, revoked, details={"role": name})
        # What was asked for in addition must not give back what is taken away.
        codes = roster.forget_setups(device_principal(device_id))
        also = [end(device_id, origin) for end in roster.when_withdrawn] if name == NODE else []
        await roster.save(revoked, lambda connection: tables.drop_request(connection, device_id), codes, audited, *also)
        roster.forget_requests(device_id, "rejected")
        return now_ms
