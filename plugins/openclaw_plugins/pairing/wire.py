"""Devices on the wire: params, results and event payloads of device.pair.* and device.token.*."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from openclaw_kernel.api import EventSpec, Params, Scope
from openclaw_plugins.pairing.records import About, Device, Request

Id = Annotated[str, Field(min_length=1)]

EVENTS: Final = (
    EventSpec(name="device.pair.requested", scope=Scope.PAIRING, doc="A device asks to be paired."),
    EventSpec(
        name="device.pair.resolved",
        scope=Scope.PAIRING,
        doc="A request to be paired was decided, or nobody did in time.",
    ),
    EventSpec(name="device.pair.setup.completed", scope=Scope.PAIRING, doc="A setup code has paired a device, which was told its tokens."),
)


class NoParams(Params):
    """Takes none."""


class RequestParams(Params):
    request_id: Id


class DeviceParams(Params):
    device_id: Id


class RenameParams(Params):
    device_id: Id
    label: Annotated[str, Field(min_length=1, max_length=64)]


class RotateParams(Params):
    device_id: Id
    role: Id
    scopes: list[Id] | None = None


class RevokeParams(Params):
    device_id: Id
    role: Id


class TokenRow(TypedDict):
    role: str
    scopes: list[str]
    createdAtMs: int
    revokedAtMs: NotRequired[int]


class PendingRow(TypedDict):
    requestId: str
    deviceId: str
    publicKey: str
    displayName: NotRequired[str]
    platform: str
    deviceFamily: NotRequired[str]
    clientId: str
    clientMode: str
    role: str
    roles: list[str]
    scopes: list[str]
    reason: str
    remoteIp: str
    isRepair: bool
    ts: int
    expiresAtMs: int


class PairedRow(TypedDict):
    deviceId: str
    publicKey: str
    label: NotRequired[str]
    displayName: NotRequired[str]
    platform: str
    deviceFamily: NotRequired[str]
    clientId: str
    clientMode: str
    role: NotRequired[str]
    roles: list[str]
    scopes: list[str]
    remoteIp: str
    createdAtMs: int
    approvedAtMs: int
    approvedVia: str
    connected: bool
    tokens: list[TokenRow]


class ListResult(TypedDict):
    pending: list[PendingRow]
    paired: list[PairedRow]


class ApproveResult(TypedDict):
    requestId: str
    device: PairedRow


class RejectResult(TypedDict):
    requestId: str
    deviceId: str


class RenameResult(TypedDict):
    deviceId: str
    label: str


class RemoveResult(TypedDict):
    deviceId: str


class RotateResult(TypedDict):
    deviceId: str
    role: str
    scopes: list[str]
    rotatedAtMs: int
    tokenDelivery: Literal["in-band", "withheld-cross-device"]
    token: NotRequired[str]


class RevokeResult(TypedDict):
    deviceId: str
    role: str
    revokedAtMs: int


def requested(request: Request, *, is_repair: bool) -> dict[str, Any]:
    """The payload of `device.pair.requested`."""
    return {
        "requestId": request.request_id,
        "deviceId": request.device_id,
        "publicKey": request.public_key,
        **_about(request.about),
        "role": request.role,
        "roles": [request.role],
        "scopes": list(request.scopes),
        "silent": False,
        "isRepair": is_repair,
        "ts": request.created_ms,
    }


def pending_row(request: Request, *, is_repair: bool, expires_ms: int) -> dict[str, Any]:
    """A request in the list."""
    return requested(request, is_repair=is_repair) | {"reason": request.reason, "expiresAtMs": expires_ms}


def paired_row(device: Device, *, connected: bool) -> dict[str, Any]:
    """A device in the list; of its tokens only when they were issued."""
    live = device.live_roles
    return {
        "deviceId": device.device_id,
        "publicKey": device.public_key,
        **({"label": device.label} if device.label else {}),
        **_about(device.about),
        **({"role": live[0]} if live else {}),
        "roles": list(live),
        "scopes": sorted({scope for name in live for scope in device.roles[name].scopes}),
        "createdAtMs": device.created_ms,
        "approvedAtMs": device.approved_ms,
        "approvedVia": "silent" if device.approved_by == "policy" else "owner",
        "connected": connected,
        "tokens": _tokens(device),
    }


def _tokens(device: Device) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, role in sorted(device.roles.items()):
        if role.revoked_ms is not None:
            row = {"role": name, "scopes": [], "createdAtMs": role.approved_ms, "revokedAtMs": role.revoked_ms}
            rows.append(row)
        elif role.tokens:
            newest = role.tokens[-1]
            scopes = role.scopes if newest.scopes is None else newest.scopes
            rows.append({"role": name, "scopes": list(scopes), "createdAtMs": newest.issued_ms})
    return rows


def _about(about: About) -> dict[str, str]:
    row = {
        "displayName": about.display_name,
        "platform": about.platform,
        "deviceFamily": about.device_family,
        "clientId": about.client_id,
        "clientMode": about.client_mode,
        "remoteIp": about.address,
    }
    return {key: value for key, value in row.items() if value}
