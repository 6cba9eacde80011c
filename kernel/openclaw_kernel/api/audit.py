"""The audit log as those see it who write into it: what was done or refused, by whom, from where, and what it changed."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

from openclaw_kernel.api.methods import Call

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII)
_NO_TRACE: Final = "0" * 32


class AuditAction(StrEnum):
    """All that is written down. The set is closed: an action is added here, with whoever does it."""

    GATEWAY_STARTED = "gateway.started"
    GATEWAY_STOPPED = "gateway.stopped"
    RESTART_REQUESTED = "restart.requested"

    CONFIG_LOADED = "config.loaded"
    CONFIG_REJECTED = "config.rejected"
    CONFIG_WRITTEN = "config.written"
    CONFIG_ACCEPTED = "config.accepted"
    """A config became a new generation; the same write holds its row."""
    CONFIG_ROLLED_BACK = "config.rolled-back"
    """An earlier generation became the newest again."""

    DEVICE_REQUESTED = "device.requested"
    DEVICE_APPROVED = "device.approved"
    DEVICE_REJECTED = "device.rejected"
    DEVICE_REMOVED = "device.removed"
    DEVICE_RENAMED = "device.renamed"
    NODE_REQUESTED = "node.requested"
    NODE_APPROVED = "node.approved"
    NODE_REJECTED = "node.rejected"
    NODE_REMOVED = "node.removed"
    NODE_RENAMED = "node.renamed"
    TOKEN_ISSUED = "token.issued"  # noqa: S105 - an action, no token
    TOKEN_ROTATED = "token.rotated"  # noqa: S105 - an action, no token
    TOKEN_RETIRED = "token.retired"  # noqa: S105 - an action, no token
    """An old token ended because the one that takes its place was used."""
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - an action, no token
    SETUP_CODE_ISSUED = "setup-code.issued"
    SETUP_CODE_USED = "setup-code.used"
    SETUP_CODE_REFUSED = "setup-code.refused"

    AUTH_REFUSED = "auth.refused"
    """A credential or a proof of a device did not hold."""
    AUTH_LOCKED_OUT = "auth.locked-out"
    IDENTITY_ADMITTED = "identity.admitted"
    """Somebody whom a proxy, an authenticator or a client certificate named was let in."""
    ORIGIN_REFUSED = "origin.refused"
    PROXY_HEADERS_IGNORED = "proxy.headers-ignored"
    METHOD_REFUSED = "method.refused"
    """A connection asked for what its role or scopes do not allow."""
    GRANT_REFUSED = "grant.refused"
    """Somebody would have handed out more than it has: a method raised `Forbidden` with `missingScope`, which the dispatcher records."""
    PAGE_CODE_ISSUED = "page.code-issued"
    PAGE_SIGNED_IN = "page.signed-in"
    PAGE_REFUSED = "page.refused"
    TLS_LOADED = "tls.loaded"
    TLS_REJECTED = "tls.rejected"

    SECRET_READ = "secret.read"  # noqa: S105 - an action, no secret
    SECRET_DENIED = "secret.denied"  # noqa: S105 - an action, no secret
    SECRET_WRITTEN = "secret.written"  # noqa: S105 - an action, no secret
    SECRET_REMOVED = "secret.removed"  # noqa: S105 - an action, no secret
    LOGIN_COMPLETED = "login.completed"
    LOGIN_REMOVED = "login.removed"

    PLUGIN_STATE = "plugin.state"
    PLUGINS_CHANGED = "plugins.changed"
    """The set of installed plugins or their versions differ from those of the start before."""
    PLUGIN_INSTALLED = "plugin.installed"
    PLUGIN_UPGRADED = "plugin.upgraded"
    PLUGIN_REMOVED = "plugin.removed"
    PLUGIN_RELOADED = "plugin.reloaded"
    """Its code was imported anew and took the place of the old."""
    CHANNEL_STARTED = "channel.started"
    CHANNEL_STOPPED = "channel.stopped"
    SESSION_DELETED = "session.deleted"

    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_DENIED = "approval.denied"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVALS_CHANGED = "approvals.changed"
    """The rules of what needs an approval were changed."""

    SECURITY_FIXED = "security.fixed"
    SECURITY_UNDONE = "security.undone"
    """A fix of `security audit` was taken back."""

    AUDIT_OVERFLOWED = "audit.overflowed"
    """More came than is written one by one; the row has the counts."""
    AUDIT_BROKEN = "audit.broken"
    """The rows that a checkpoint had signed were not there, or were others, when the gateway started."""


AuditOutcome = Literal["done", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOrigin:
    """Who acts, and from where.

    `actor` is a principal (`token`, `device:<id>`, `page:<id>`), a part of the gateway (`policy`, `gateway`), or `nobody` for who has
    proved nothing. `surface` is `ws`, `http`, `cli`, `start`, `policy`, or a channel's id. Neither is ever what a client says of itself.
    """

    actor: str
    surface: str
    address: str | None = None
    trace_id: str | None = None


BY_GATEWAY: Final = AuditOrigin(actor="gateway", surface="start")
"""The gateway itself, at its start."""
BY_POLICY: Final = AuditOrigin(actor="policy", surface="policy")
"""A decision by the configuration, without a person."""


def origin_of(call: Call) -> AuditOrigin:
    """Who makes the call, and from where."""
    return AuditOrigin(
        actor=call.client.principal, surface=call.surface, address=call.client.address, trace_id=trace_id_of(call.traceparent)
    )


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id of a W3C `traceparent`, None where it is none."""
    found = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    return None if found is None or found[1] == _NO_TRACE else found[1]


def state_digest(state: Any) -> str:
    """SHA-256, hexadecimal, of the canonical JSON (RFC 8785) of what was or is; raise `ValueError` for what JSON cannot hold.

    A secret that is part of the state is given as its own hash.
    """
    # Imported here: few who see the api write into the audit log.
    import rfc8785

    return hashlib.sha256(rfc8785.dumps(state)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that was done or refused.

    `subject` is what it was done to (`device:<id>`, `plugin:<id>`, a method), `reason` one of a few fixed words or sentences, never text of
    whoever is refused: refusals are counted together by it. `before` and `after` are `state_digest`s. `details` is a little JSON
    for people, cut where it is long. None of it holds a secret.
    """

    action: AuditAction
    origin: AuditOrigin
    outcome: AuditOutcome = "done"
    subject: str | None = None
    reason: str | None = None
    before: str | None = None
    after: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class AuditLog(Protocol):
    """The append-only log of what matters for trust. No entry for ordinary reads and messages: they pay nothing for it."""

    def append(self, connection: sqlite3.Connection, entry: AuditEntry) -> int:
        """Write inside a `Store.write` work, the one that does what is recorded: both are on disk, or neither. Return the row's number."""
        ...

    def refused(self, entry: AuditEntry) -> None:
        """Record a refusal that changes nothing else, soon; its outcome is `refused`, whatever the entry says.

        The same action, actor, surface, network and reason are one row at once, and one more a minute with the count and the first
        subjects. What is over the bound is counted in a row of its own. Only on the loop.
        """
        ...

    def note(self, entry: AuditEntry) -> None:
        """Record what changes nothing in the store, soon, as `refused` does, but each subject for itself. Only on the loop."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows are wanted. `action` is one, or what stands before its dot; times are Unix milliseconds, both included."""

    action: str | None = None
    outcome: AuditOutcome | None = None
    actor: str | None = None
    subject: str | None = None
    trace_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Rows as they are hashed and exported, and the number behind which the next page begins; None at the end."""

    rows: Sequence[Mapping[str, Any]]
    next: int | None


class AuditReader(Protocol):
    """The audit log as it is read. Nothing of it is ever deleted; what has to leave the machine is exported."""

    async def page(self, filters: AuditFilter, *, behind: int | None, limit: int, oldest_first: bool) -> AuditPage:
        """Return the next rows; a page may hold fewer than `limit`, none even, where few rows match."""
        ...

    async def verify(self) -> Mapping[str, Any]:
        """Check chain and checkpoints; return what was found, with the first row that is not what was written."""
        ...
