"""The pairing of devices, as the handshake asks for it and a plugin (`pairing`) answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from openclaw_kernel.api.methods import Scope

PairingReason = Literal["not-paired", "role-upgrade", "scope-upgrade", "metadata-upgrade"]
"""Why a device has to be approved, in the protocol's words."""

TokenVerdict = Literal["ok", "unknown", "scopes"]
"""What a device token is worth: it opens, nobody issued it, or it was narrowed to less than is asked."""

BOOTSTRAP_PREFIX: Final = "ocs_"
"""What the bootstrap token of a setup code begins with, so that one in the wrong place is known for what it is."""

SetupSpent = Literal["setup-spent"]
"""The setup code was used by another, or is over, since it was checked."""

_PRINCIPAL: Final = "device:"

AUDIENCE: Final = "audience:"
"""What the topics begin with that a connection has by what it is, and that none can subscribe to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClaim:
    """A device that proved its key, and what it asks for. Everything but the id and the key is its own word.

    `scopes` are the known ones of those asked for.
    """

    device_id: str
    public_key: str
    """The raw key, base64url without padding."""
    role: str
    scopes: tuple[str, ...]
    client_id: str
    client_mode: str
    platform: str
    device_family: str | None = None
    display_name: str | None = None
    address: str
    network: str
    """What the address is counted by."""
    local_secret: bool
    """Whether it came straight from this machine, from no browser and through no proxy, with the shared secret of the gateway."""
    token: str | None = field(default=None, repr=False)
    """The device token it showed, if it showed one."""
    by_token: bool = False
    """Whether this token, and not the shared secret, is what it came in with."""
    bootstrap_token: str | None = field(default=None, repr=False)
    """The bootstrap token that it came in with."""
    caps: tuple[str, ...] = ()
    """What a node declares to have; counts once a person has approved it, as do its commands and permissions."""
    commands: tuple[str, ...] = ()
    permissions: Mapping[str, bool] = field(default_factory=dict)
    version: str | None = None
    model_identifier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleToken:
    """A token for another role of the same device."""

    role: str
    scopes: tuple[str, ...]
    token: str = field(repr=False)
    issued_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceGrant:
    """What a paired device may do on this connection, and the token it may show the next time."""

    device_id: str
    scopes: tuple[str, ...]
    token: str = field(repr=False)
    issued_at_ms: int
    further: tuple[RoleToken, ...] = ()
    """Those of its other roles, where a setup code has given it several at once."""
    caps: tuple[str, ...] = ()
    """What of a node's declared surface counts."""
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalNeeded:
    """A person has to approve the device first. `request_id` is None where no further request can be kept."""

    reason: PairingReason
    request_id: str | None
    approved_roles: tuple[str, ...] = ()
    approved_scopes: tuple[str, ...] = ()


class DevicePairing(Protocol):
    """Which devices may connect (plugin `pairing`). All but `settle` answer from memory, at once."""

    def check_token(self, device_id: str, role: str, token: str, scopes: Sequence[str]) -> TokenVerdict:
        """Tell what a device token is worth, in constant time."""
        ...

    def check_setup(self, token: str, role: str) -> bool:
        """Tell whether a bootstrap token is good for this role, in constant time."""
        ...

    def recall(self, claim: DeviceClaim) -> DeviceGrant | None:
        """Return what the device may do; None where `settle` has to decide or to issue a token first."""
        ...

    async def settle(self, claim: DeviceClaim) -> ApprovalNeeded | SetupSpent | None:
        """Approve by policy or by setup code, or keep a request, durably; None means that `recall` now has an answer."""
        ...


def device_principal(device_id: str) -> str:
    """The principal of a connection with this device."""
    return f"{_PRINCIPAL}{device_id}"


def device_of(principal: str) -> str | None:
    """The id of the device that a principal is, None where it is none."""
    return principal.removeprefix(_PRINCIPAL) if principal.startswith(_PRINCIPAL) else None


def device_audience(device_id: str) -> tuple[str, ...]:
    """The topics of an event about a device: who sees all devices hears it, and the device itself."""
    return (f"{AUDIENCE}devices", f"{AUDIENCE}{device_principal(device_id)}")


def audiences_of(principal: str, scopes: Collection[str]) -> frozenset[str]:
    """The topics a connection has by what it is: a device without operator.admin is shown itself, everybody else all devices."""
    own = device_of(principal)
    if own is None:
        return frozenset({f"{AUDIENCE}devices"})
    everybody = {f"{AUDIENCE}devices"} if Scope.ADMIN.value in scopes else set()
    return frozenset({f"{AUDIENCE}{principal}", *everybody})
