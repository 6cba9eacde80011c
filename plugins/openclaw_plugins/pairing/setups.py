"""Setup codes: made for somebody who may hand out what they give, good for ten minutes, one device, one use."""

from __future__ import annotations

import hmac
import secrets
import sqlite3
import uuid
from dataclasses import replace
from functools import partial
from typing import Final

from openclaw_kernel.api import (
    BOOTSTRAP_PREFIX,
    AuditAction,
    AuditEntry,
    AuditLog,
    AuditOrigin,
    DeviceClaim,
    PluginContext,
    RoleToken,
    SetupSpent,
    Unavailable,
    device_principal,
)
from openclaw_plugins.pairing import setup_tables
from openclaw_plugins.pairing.book import approval
from openclaw_plugins.pairing.changes import Allowed
from openclaw_plugins.pairing.records import About, Device, digest_of, new_token
from openclaw_plugins.pairing.roster import Issued, Roster, with_role
from openclaw_plugins.pairing.setup_tables import MOST_OPEN, Access, Setup, Used

SETUP_MS: Final = 600_000
_TOKEN_BYTES: Final = 32

_LIMITED: Final = ("operator.approvals", "operator.questions", "operator.read", "operator.talk.secrets", "operator.write")
PROFILES: Final[dict[Access, dict[str, tuple[str, ...]]]] = {
    "full": {"operator": ("operator.admin", "operator.pairing", *_LIMITED), "node": ()},
    "limited": {"operator": _LIMITED, "node": ()},
    "node": {"node": ()},
}
"""What a code gives, by role."""


class _Spent(Exception):
    """The code is used up, or over."""


class SetupDesk:
    """The codes that are open, and what became of the others. `roster.setups` holds the open ones by their digest."""

    def __init__(self, context: PluginContext, roster: Roster) -> None:
        self._context = context
        self._roster = roster
        self._handed_over: dict[bytes, tuple[str, tuple[RoleToken, ...]]] = {}

    def check(self, token: str, role: str) -> bool:
        """See `openclaw_kernel.api.DevicePairing.check_setup`."""
        self._roster.changes.must_be_open()
        setup = self._find(token)
        return setup is not None and role in PROFILES[setup.access]

    async def mint(self, access: Access, minted_by: str, origin: AuditOrigin, *, allowed: Allowed) -> tuple[Setup, str]:
        """Make a code; return it with its bootstrap token. Raise `Unavailable` where too many are open."""
        return await self._roster.changes.make("setup code", partial(self._mint, access, minted_by, origin), allowed)

    async def status(self, setup_id: str) -> Used | None:
        """What became of a code, None while nobody has used it."""
        return await self._context.store.read(lambda connection: setup_tables.find_used(connection, setup_id))

    async def redeem(self, claim: DeviceClaim) -> SetupSpent | None:
        """Use a code up and pair the device, in one write; of several devices at once one is in. A change of its own."""
        return await self._roster.changes.make("setup", partial(self._redeem, claim))

    def take_over(self, claim: DeviceClaim) -> tuple[RoleToken, ...]:
        """The tokens of the other roles, once: for the answer that lets the device in."""
        setup_id, further = self._handed_over.pop(digest_of(claim.bootstrap_token or ""), ("", ()))
        if setup_id:
            self._context.spawn("end of a setup", self._complete(setup_id))
        return further

    def _find(self, token: str) -> Setup | None:
        digest, now_ms = digest_of(token), self._context.now_ms()
        matching = [setup for setup in self._roster.setups.values() if hmac.compare_digest(setup.digest, digest)]
        return next((setup for setup in matching if setup.expires_ms >= now_ms), None)

    async def _mint(self, access: Access, minted_by: str, origin: AuditOrigin) -> tuple[Setup, str]:
        now_ms, token = self._context.now_ms(), BOOTSTRAP_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        setup = Setup(setup_id=str(uuid.uuid4()), digest=digest_of(token), access=access, minted_by=minted_by, expires_ms=now_ms + SETUP_MS)
        details = {"access": access, "expiresMs": setup.expires_ms}
        entry = AuditEntry(action=AuditAction.SETUP_CODE_ISSUED, origin=origin, subject=f"setup:{setup.setup_id}", details=details)
        log = self._context.service(AuditLog)

        def write(connection: sqlite3.Connection) -> None:
            if not setup_tables.put(connection, setup, now_ms):
                text = f"{MOST_OPEN} setup codes are open; wait until one is used or over"
                raise Unavailable(text, retryable=True)
            log.append(connection, entry)

        await self._roster.write(write)
        live = {digest: one for digest, one in self._roster.setups.items() if one.expires_ms >= now_ms}
        self._roster.setups = {**live, setup.digest: setup}
        return setup, token

    async def _redeem(self, claim: DeviceClaim) -> SetupSpent | None:
        roster, now_ms = self._roster, self._context.now_ms()
        setup = self._find(claim.bootstrap_token or "")
        if setup is None or claim.role not in PROFILES[setup.access]:
            return self._refused(claim)
        device, issued = self._device(claim, setup)
        log, origin = self._context.service(AuditLog), AuditOrigin(actor=setup.minted_by, surface="ws", address=claim.address)
        details = {"setupId": setup.setup_id, "access": setup.access}
        used = AuditEntry(
            action=AuditAction.SETUP_CODE_USED,
            origin=replace(origin, actor=device_principal(device.device_id)),
            subject=f"setup:{setup.setup_id}",
            details=details | {"deviceId": device.device_id},
        )

        def use(connection: sqlite3.Connection) -> None:
            # First of all: whoever uses it up is the one who is let in.
            if not setup_tables.use(connection, setup, device.device_id, device.about.display_name, now_ms):
                raise _Spent
            log.append(connection, used)

        # A database that does not know of this use is older, and its codes count no longer.
        await roster.withdrawals.note(roster.next_generation())
        try:
            await approval(roster, device, origin, use, reason="setup-code", details=details)
        except _Spent:
            return self._refused(claim)
        roster.setups.pop(setup.digest, None)
        roster.issued |= {(device.device_id, role): one for role, one in issued.items()}
        further = tuple(
            RoleToken(role=role, scopes=_scopes(device, role, one), token=one.text, issued_at_ms=one.token.issued_ms)
            for role, one in issued.items()
            if role != claim.role
        )
        self._handed_over[setup.digest] = (setup.setup_id, further)
        while len(self._handed_over) > MOST_OPEN:
            # Their devices were lost before the answer, and are told so by the status.
            del self._handed_over[next(iter(self._handed_over))]
        roster.context.logger.info("device %s paired by setup code: %s", device.device_id[:12], setup.access)
        roster.forget_requests(device.device_id, "approved")
        return None

    def _device(self, claim: DeviceClaim, setup: Setup) -> tuple[Device, dict[str, Issued]]:
        roster, now_ms = self._roster, self._context.now_ms()
        earlier, generation = roster.devices.get(claim.device_id), roster.next_generation()
        device = Device(
            device_id=claim.device_id,
            public_key=claim.public_key,
            about=About.of(claim),
            created_ms=now_ms if earlier is None else earlier.created_ms,
            approved_ms=now_ms,
            approved_by="setup",
            roles=roster.earlier_roles(claim.device_id),
            generation=generation if earlier is None else earlier.generation,
            label=None if earlier is None else earlier.label,
        )
        issued = {}
        for name, scopes in PROFILES[setup.access].items():
            role = roster.approved_role(claim.device_id, name, scopes, generation)
            latest_ms = max((held.issued_ms for held in role.tokens), default=0)
            held = role.tokens[-1].scopes if role.tokens else None
            # What a rotation took away is not what the code was made for.
            limit = None if held is None else tuple(dict.fromkeys((*held, *scopes)))
            text, token = new_token(max(now_ms, latest_ms + 1), limit, roster.next_generation())
            device = with_role(device, name, role.issued(token))
            issued[name] = Issued(text, token)
        return device, issued

    def _refused(self, claim: DeviceClaim) -> SetupSpent:
        origin = AuditOrigin(actor=device_principal(claim.device_id), surface="ws", address=claim.address)
        entry = AuditEntry(action=AuditAction.SETUP_CODE_REFUSED, origin=origin, reason="used by another, or over")
        self._context.service(AuditLog).refused(entry)
        return "setup-spent"

    async def _complete(self, setup_id: str) -> None:
        now_ms = self._context.now_ms()
        await self._context.store.write(lambda connection: setup_tables.complete(connection, setup_id, now_ms))
        used = await self.status(setup_id)
        if used is not None:
            self._roster.tell("device.pair.setup.completed", used.device_id, outcome(used))


def _scopes(device: Device, role: str, issued: Issued) -> tuple[str, ...]:
    return device.roles[role].scopes if issued.token.scopes is None else issued.token.scopes


def outcome(used: Used) -> dict[str, str | int]:
    """What became of a code, on the wire."""
    named: dict[str, str | int] = {} if used.device_name is None else {"deviceName": used.device_name}
    ts = used.used_ms if used.completed_ms is None else used.completed_ms
    return {"setupId": used.setup_id, "deviceId": used.device_id, **named, "access": used.access, "ts": ts}
