"""device.pair.setupCode and device.pair.setupStatus: a code to scan or paste, and what became of it."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from openclaw_kernel.api import Call, Gateway, InvalidRequest, Params, PluginContext, Scope, origin_of, refuse_beyond, rpc
from openclaw_plugins.pairing.addresses import choose
from openclaw_plugins.pairing.setup_tables import Access
from openclaw_plugins.pairing.setups import PROFILES, SetupDesk, outcome

_LONGEST_QR: Final = 16_384


class SetupCodeParams(Params):
    public_url: Annotated[str, Field(min_length=1)] | None = None
    prefer_remote_url: bool = False
    include_qr: bool = True
    bootstrap_profile: Literal["limited", "node"] | None = None
    join_url: Literal[True] | None = None


class SetupStatusParams(Params):
    setup_id: Annotated[str, Field(min_length=1, max_length=128)]


class SetupCodeResult(TypedDict):
    setupId: str
    setupCode: str
    qrDataUrl: NotRequired[str]
    gatewayUrl: str
    auth: Literal["token", "password"]
    urlSource: str
    access: Access
    accessDowngraded: NotRequired[bool]
    expiresAtMs: int


class Outcome(TypedDict):
    setupId: str
    deviceId: str
    deviceName: NotRequired[str]
    access: Access
    ts: int


class SetupStatusResult(TypedDict):
    completion: NotRequired[Outcome]
    deliveryUncertain: NotRequired[Outcome]


class SetupMethods:
    """The methods on setup codes. What a code gives, whoever asks for it must have: `refuse_beyond`."""

    def __init__(self, context: PluginContext, desk: SetupDesk) -> None:
        self._context = context
        self._desk = desk

    @rpc(
        "device.pair.setupCode",
        scope=Scope.ADMIN,
        params=SetupCodeParams,
        result=SetupCodeResult,
        repeatable="each call makes a code of its own, which ends after ten minutes",
        advertised=False,
    )
    async def setup_code(self, call: Call, params: SetupCodeParams) -> dict[str, Any]:
        """Make a setup code: the gateway's address and a bootstrap token that pairs one device, once, within ten minutes.

        `access` is full, limited (neither operator.admin nor operator.pairing) or node; never full where the address is not encrypted.
        """
        if params.join_url:
            raise InvalidRequest("joinUrl: this gateway makes no links that pair a device; leave it out, and use the setup code")
        config, gateway = self._context.config.gateway, self._context.service(Gateway)
        address = choose(params.public_url, gateway.url, bind=config.bind)
        wanted: Access = params.bootstrap_profile or "full"
        access: Access = "limited" if wanted == "full" and not address.is_safe else wanted

        def allowed() -> None:
            for role, scopes in PROFILES[access].items():
                refuse_beyond(call.client, "", role, scopes)

        allowed()
        setup, token = await self._desk.mint(access, call.client.principal, origin_of(call), allowed=allowed)
        text = json.dumps({"url": address.url, "bootstrapToken": token}, separators=(",", ":"))
        code = base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
        picture = _picture(code) if params.include_qr else None
        return {
            "setupId": setup.setup_id,
            "setupCode": code,
            **({} if picture is None else {"qrDataUrl": picture}),
            "gatewayUrl": address.url,
            "auth": "password" if config.auth.mode == "password" else "token",
            "urlSource": address.source,
            "access": access,
            **({"accessDowngraded": True} if access != wanted else {}),
            "expiresAtMs": setup.expires_ms,
        }

    @rpc(
        "device.pair.setupStatus",
        scope=Scope.ADMIN,
        params=SetupStatusParams,
        result=SetupStatusResult,
        repeatable="it reads and changes nothing",
    )
    async def setup_status(self, _call: Call, params: SetupStatusParams) -> dict[str, Any]:
        """Say what became of a setup code; empty while nobody has used it, and once it is over."""
        used = await self._desk.status(params.setup_id)
        if used is None:
            return {}
        return {"deliveryUncertain" if used.completed_ms is None else "completion": outcome(used)}


def _picture(code: str) -> str | None:
    # Imported here: few gateways are ever asked for a picture.
    import segno

    url: str = segno.make(code, error="m").png_data_uri(scale=4)
    return url if len(url) <= _LONGEST_QR else None
