"""The methods on devices. What a caller may do is decided by `refuse_beyond` alone."""

from __future__ import annotations

from functools import partial
from typing import Any

from openclaw_kernel.api import (
    Call,
    Connections,
    InvalidRequest,
    PluginContext,
    Scope,
    device_of,
    device_principal,
    effective_scopes,
    origin_of,
    refuse_beyond,
    rpc,
)
from openclaw_plugins.pairing import wire
from openclaw_plugins.pairing.decisions import Decisions
from openclaw_plugins.pairing.records import Device, printable


class DeviceMethods:
    """device.pair.* and device.token.*."""

    def __init__(self, context: PluginContext, decisions: Decisions) -> None:
        self._context = context
        self._decisions = decisions

    @rpc("device.pair.list", scope=Scope.PAIRING, params=wire.NoParams, result=wire.ListResult)
    def list(self, call: Call, _params: wire.NoParams) -> dict[str, Any]:
        """List the devices that wait for approval, and those that are approved; a device that is no admin sees itself."""
        own = None if call.client.has(Scope.ADMIN) else device_of(call.client.principal)
        paired = {device.device_id: device for device in self._decisions.devices()}
        return {
            "pending": [
                wire.pending_row(request, is_repair=request.device_id in paired, expires_ms=request.expires_ms)
                for request in self._decisions.waiting()
                if own in {None, request.device_id}
            ],
            "paired": [self._row(device) for device in paired.values() if own in {None, device.device_id}],
        }

    @rpc(
        "device.pair.approve",
        scope=Scope.PAIRING,
        params=wire.RequestParams,
        result=wire.ApproveResult,
        repeatable="a request is decided once; a second call finds none",
    )
    async def approve(self, call: Call, params: wire.RequestParams) -> dict[str, Any]:
        """Let a device in as it asked, with no more than the caller's own scopes."""
        request = self._decisions.request(params.request_id)

        def allowed() -> None:
            for role, scopes in self._decisions.handed_out(request).items():
                refuse_beyond(call.client, request.device_id, role, scopes)

        allowed()
        device = await self._decisions.approve(request.request_id, origin_of(call), allowed=allowed)
        return {"requestId": request.request_id, "device": self._row(device)}

    @rpc(
        "device.pair.reject",
        scope=Scope.PAIRING,
        params=wire.RequestParams,
        result=wire.RejectResult,
        repeatable="a request is decided once; a second call finds none",
    )
    async def reject(self, call: Call, params: wire.RequestParams) -> dict[str, Any]:
        """Forget a request; the device may ask again."""
        request = self._decisions.request(params.request_id)
        allowed = partial(refuse_beyond, call.client, request.device_id, request.role)
        allowed()
        await self._decisions.reject(request.request_id, origin_of(call), allowed=allowed)
        return {"requestId": request.request_id, "deviceId": request.device_id}

    @rpc(
        "device.pair.rename",
        scope=Scope.PAIRING,
        params=wire.RenameParams,
        result=wire.RenameResult,
        repeatable="the same name a second time changes nothing",
    )
    async def rename(self, call: Call, params: wire.RenameParams) -> dict[str, Any]:
        """Call a device by a name of one's own; it says nothing of what the device is."""
        label = printable(params.label)
        if not label:
            raise InvalidRequest("label: has nothing in it that can be shown; give it letters")
        allowed = partial(refuse_beyond, call.client, params.device_id, "operator")
        allowed()
        await self._decisions.rename(params.device_id, label, origin_of(call), allowed=allowed)
        return {"deviceId": params.device_id, "label": label}

    @rpc(
        "device.pair.remove",
        scope=Scope.PAIRING,
        params=wire.DeviceParams,
        result=wire.RemoveResult,
        repeatable="a device that is gone is gone",
    )
    async def remove(self, call: Call, params: wire.DeviceParams) -> dict[str, Any]:
        """Forget a device, its roles and tokens, and close its connections."""

        def allowed() -> None:
            roles = next((device.roles for device in self._decisions.devices() if device.device_id == params.device_id), {})
            for role in roles or ["operator"]:
                refuse_beyond(call.client, params.device_id, role)

        allowed()
        await self._decisions.remove(params.device_id, origin_of(call), answering=call.client.connection_id, allowed=allowed)
        return {"deviceId": params.device_id}

    @rpc(
        "device.token.rotate",
        scope=Scope.PAIRING,
        params=wire.RotateParams,
        result=wire.RotateResult,
        repeatable="the second token takes the place of the first, which opens until the second is shown",
    )
    async def rotate(self, call: Call, params: wire.RotateParams) -> dict[str, Any]:
        """Give a device's role a new token and close its connections; the old one opens until the new one is shown.

        The device alone is told the new one: here where it asks itself, else when it connects with the old one.
        """
        refuse_beyond(call.client, params.device_id, params.role, params.scopes or ())
        role = self._decisions.role(params.device_id, params.role)
        scopes = None if params.scopes is None else tuple(dict.fromkeys(params.scopes))
        beyond = sorted(set(scopes or ()) - effective_scopes(role.scopes))
        if beyond:
            raise InvalidRequest(f"scopes: the device is not approved for {beyond[0]}; approve a request of it first")
        # Without scopes the token has all that the role has, which is handed out as well.
        allowed = partial(refuse_beyond, call.client, params.device_id, params.role, role.scopes if scopes is None else scopes)
        allowed()
        text, token = await self._decisions.rotate(
            params.device_id, params.role, scopes, origin_of(call), answering=call.client.connection_id, allowed=allowed
        )
        is_own = device_of(call.client.principal) == params.device_id
        return {
            "deviceId": params.device_id,
            "role": params.role,
            "scopes": list(role.scopes if scopes is None else scopes),
            "rotatedAtMs": token.issued_ms,
            "tokenDelivery": "in-band" if is_own else "withheld-cross-device",
            **({"token": text} if is_own else {}),
        }

    @rpc(
        "device.token.revoke",
        scope=Scope.PAIRING,
        params=wire.RevokeParams,
        result=wire.RevokeResult,
        repeatable="a role that was taken away is not there a second time",
    )
    async def revoke(self, call: Call, params: wire.RevokeParams) -> dict[str, Any]:
        """Take a role away from a device and close its connections; it is given back by an approval only."""
        allowed = partial(refuse_beyond, call.client, params.device_id, params.role)
        allowed()
        revoked_ms = await self._decisions.revoke(
            params.device_id, params.role, origin_of(call), answering=call.client.connection_id, allowed=allowed
        )
        return {"deviceId": params.device_id, "role": params.role, "revokedAtMs": revoked_ms}

    def _row(self, device: Device) -> dict[str, Any]:
        connected = self._context.service(Connections).are_open(device_principal(device.device_id))
        return wire.paired_row(device, connected=connected)
