"""device.scopes.*: a device that is connected asks for more scopes, waits, and is given a token that has them."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from openclaw_kernel.api import (
    ALL_SCOPES,
    Call,
    InvalidRequest,
    Params,
    PluginContext,
    Scope,
    Unavailable,
    device_of,
    effective_scopes,
    origin_of,
    rpc,
)
from openclaw_plugins.pairing.book import DeviceBook
from openclaw_plugins.pairing.records import Device, Request
from openclaw_plugins.pairing.roster import Outcome, Roster
from openclaw_plugins.pairing.rules import OPERATOR, covers

_MOST_SCOPES = 8


class UpgradeParams(Params):
    scopes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=_MOST_SCOPES)]


class WaitParams(Params):
    request_id: Annotated[str, Field(min_length=1)]


class Registration(TypedDict):
    requestId: str


class Approved(TypedDict):
    status: Literal["approved"]
    requestId: str
    deviceToken: str
    scopes: list[str]


class Ended(TypedDict):
    status: Literal["rejected", "expired"]
    requestId: str


class UpgradeMethods:
    """A person decides on the request as on any other; the token is told to the device alone that asked."""

    def __init__(self, context: PluginContext, roster: Roster, book: DeviceBook) -> None:
        self._context = context
        self._roster = roster
        self._book = book

    @rpc(
        "device.scopes.requestUpgrade",
        scope=Scope.READ,
        params=UpgradeParams,
        result=Registration,
        repeatable="the same ask keeps its request",
    )
    async def request_upgrade(self, call: Call, params: UpgradeParams) -> dict[str, Any]:
        """Ask for scopes that the device is not approved for; a person approves it as any device."""
        device = self._own(call)
        scopes = tuple(dict.fromkeys(params.scopes))
        unknown = sorted(set(scopes) - ALL_SCOPES)
        if unknown:
            raise InvalidRequest(f"scopes: there is no scope {unknown[0][:64]!r}; known are {', '.join(sorted(ALL_SCOPES))}")
        role = self._roster.live_role(device.device_id, OPERATOR)
        if role is not None and set(scopes) <= effective_scopes(role.scopes):
            raise InvalidRequest("scopes: the device is approved for these already; connect again, and ask for them")
        now_ms = self._context.now_ms()
        needed = await self._book.ask(
            Request(
                request_id=str(uuid.uuid4()),
                device_id=device.device_id,
                public_key=device.public_key,
                role=OPERATOR,
                scopes=scopes,
                reason="scope-upgrade",
                about=device.about,
                network=call.client.address or "unknown",
                created_ms=now_ms,
                refreshed_ms=now_ms,
            )
        )
        if needed.request_id is None:
            raise Unavailable("too many devices wait for approval; approve or reject some, then ask again", retryable=True)
        return {"requestId": needed.request_id}

    @rpc(
        "device.scopes.waitUpgrade",
        scope=Scope.READ,
        params=WaitParams,
        result=Approved | Ended,
        repeatable="a second call gives the same device a further token",
    )
    async def wait_upgrade(self, call: Call, params: WaitParams) -> dict[str, Any]:
        """Wait until the request is decided or over; an approved one comes with a new token, the old one being good until it is shown."""
        device = self._own(call)
        outcome = await self._roster.outcome(params.request_id, device.device_id)
        if outcome.request.reason != "scope-upgrade" or not outcome.request.scopes:
            raise InvalidRequest("requestId: this request asked for no scopes in addition; connect again")
        if outcome.decision != "approved":
            return {"status": "expired" if outcome.decision == "expired" else "rejected", "requestId": params.request_id}
        text = await self._roster.changes.make("token of an upgrade", partial(self._token, call, outcome))
        return {"status": "approved", "requestId": params.request_id, "deviceToken": text, "scopes": list(outcome.request.scopes)}

    async def _token(self, call: Call, outcome: Outcome) -> str:
        device = self._own(call)
        role = self._roster.live_role(device.device_id, OPERATOR)
        wanted = outcome.request.scopes
        if role is None or not set(wanted) <= effective_scopes(role.scopes):
            raise InvalidRequest("the device has lost what was approved meanwhile; ask anew")
        newest = role.tokens[-1] if role.tokens else None
        if newest is not None and newest.generation > outcome.generation and not covers(newest, wanted):
            raise InvalidRequest("requestId: a rotation took away what was approved; have the token rotated again with these scopes")
        # A token that a rotation narrowed gains what was approved now, and not the rest of its role.
        held = None if newest is None else newest.scopes
        scopes = None if held is None else tuple(dict.fromkeys((*held, *wanted)))
        issued = await self._roster.issue(device, OPERATOR, scopes, origin_of(call))
        return issued.text

    def _own(self, call: Call) -> Device:
        own = device_of(call.client.principal)
        if own is None or call.client.role != OPERATOR:
            raise InvalidRequest("only a paired device asks for more scopes; connect with a device identity")
        return self._roster.device(own)
