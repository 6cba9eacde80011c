"""The handshake as a state machine without I/O: texts and clock in, actions out."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from openclaw_kernel.api.errors import GatewayError, InvalidRequest, NotPaired, Unavailable
from openclaw_kernel.protocol import device as device_proof
from openclaw_kernel.protocol.auth import PageGrant, Refused, Verified, Verifier
from openclaw_kernel.protocol.connect import ConnectParams
from openclaw_kernel.protocol.frames import BadFrame, EventFrame, NotJson, Request, dumps, failure, read_request
from openclaw_kernel.protocol.limiter import Caller
from openclaw_kernel.protocol.limits import PROBE_PROTOCOL_VERSION, PROTOCOL_VERSION
from openclaw_kernel.protocol.scopes import ALL_SCOPES

_PAGE_CLIENTS: Final = frozenset({"webchat-ui", "openclaw-control-ui", "webchat"})
_NEEDS_DEVICE: Final = frozenset({"openclaw-control-ui", "openclaw-tui", "openclaw-browser-copilot"})
_LONGEST_NAME: Final = 64
PAGE_SCOPES: Final = ("operator.read", "operator.write")


class Phase(StrEnum):
    """Whether the gateway takes connections."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What the upgrade request said of the other end."""

    address: str
    direct_local: bool
    origin: str | None = None
    page: PageGrant | None = None
    """The page session whose cookie the upgrade carried."""


@dataclass(frozen=True, slots=True)
class Send:
    frame: bytes


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Delay:
    """Hold the following actions back."""

    milliseconds: int


@dataclass(frozen=True, slots=True)
class Accept:
    """The client is in: the server answers `request_id` with hello-ok and opens the session."""

    request_id: str
    params: ConnectParams
    verified: Verified
    role: str
    scopes: tuple[str, ...]


Action: TypeAlias = Send | Close | Delay | Accept


class Handshake:
    """One connection from challenge to `Accept`, or to a refusal in the protocol's words."""

    def __init__(
        self,
        *,
        peer: Peer,
        verifier: Verifier,
        phase: Callable[[], Phase],
        now_ms: Callable[[], int],
        nonce: str | None = None,
    ) -> None:
        self._peer = peer
        self._verifier = verifier
        self._phase = phase
        self._now_ms = now_ms
        self._nonce = nonce or str(uuid.uuid4())
        self._over = False

    def open(self) -> list[Action]:
        """Challenge the client."""
        payload = dumps({"nonce": self._nonce, "ts": self._now_ms()})
        return [Send(EventFrame("connect.challenge", payload).targeted())]

    def expire(self) -> list[Action]:
        """The client said nothing in time; a plain close lets it try again."""
        return self._end(Close(1000, ""))

    def receive(self, data: str | bytes) -> list[Action]:
        """Take one frame."""
        if self._over:
            return []
        try:
            request = read_request(data)
        except NotJson:
            return self._end(Close(1000, ""))
        except BadFrame:
            return self._end(Close(1008, "invalid request frame"))
        if request.method != "connect":
            return self._refuse(request.id, InvalidRequest("invalid handshake: first request must be connect"), 1008)
        try:
            params = ConnectParams.model_validate(request.params if request.params is not None else {})
        except ValidationError as error:
            return self._refuse(request.id, InvalidRequest(f"invalid connect params: {describe_validation(error)}"), 1008)
        return self._connect(request, params)

    def _connect(self, request: Request, params: ConnectParams) -> list[Action]:
        for check in (self._check_phase, self._check_protocol, self._check_role, self._check_origin):
            refusal = check(params)
            if refusal is not None:
                error, code, reason = refusal
                return self._refuse(request.id, error, code, reason)
        verdict = self._verify(params)
        if isinstance(verdict, Refused):
            return self._refuse_auth(request, params, verdict)
        scopes = self._scopes(params, verdict)
        if isinstance(scopes, GatewayError):
            return self._refuse(request.id, scopes, 1008)
        return self._end(Accept(request.id, params, verdict, params.role, scopes))

    def _check_phase(self, _params: ConnectParams) -> tuple[GatewayError, int, str] | None:
        phase = self._phase()
        if phase is Phase.SERVING:
            return None
        if phase is Phase.STARTING:
            starting = {"method": "connect", "reason": "startup-sidecars", "phase": phase.value}
            return (
                Unavailable("gateway starting; retry shortly", details=starting, retry_after_ms=500),
                1013,
                "gateway starting",
            )
        draining = {"method": "connect", "reason": "gateway-restarting", "phase": phase.value}
        return (
            Unavailable("gateway is restarting; retry shortly", details=draining, retry_after_ms=1000),
            1013,
            "gateway restart in progress",
        )

    def _check_protocol(self, params: ConnectParams) -> tuple[GatewayError, int, str] | None:
        lowest = PROTOCOL_VERSION
        if params.client.mode == "probe" or (params.role == "node" and params.client.mode == "node"):
            lowest = PROBE_PROTOCOL_VERSION
        if params.min_protocol <= PROTOCOL_VERSION and params.max_protocol >= lowest:
            return None
        details = {
            "code": "PROTOCOL_MISMATCH",
            "clientMinProtocol": params.min_protocol,
            "clientMaxProtocol": params.max_protocol,
            "expectedProtocol": PROTOCOL_VERSION,
            "minimumProbeProtocol": PROBE_PROTOCOL_VERSION,
        }
        return InvalidRequest("protocol mismatch", details=details), 1002, "protocol mismatch"

    def _check_role(self, params: ConnectParams) -> tuple[GatewayError, int, str] | None:
        return None if params.role in {"operator", "node"} else (InvalidRequest("invalid role"), 1008, "invalid role")

    def _check_origin(self, params: ConnectParams) -> tuple[GatewayError, int, str] | None:
        # A present Origin was judged before the upgrade; a page client without one is no browser.
        if self._peer.origin is not None or params.client.id not in _PAGE_CLIENTS:
            return None
        text = "origin not allowed: a page client must send its Origin; use client.id cli or gateway-client outside a browser"
        return (
            InvalidRequest(text, details={"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": "origin missing"}),
            1008,
            "origin not allowed",
        )

    def _verify(self, params: ConnectParams) -> Verified | Refused:
        offered = params.auth
        if self._peer.page is not None and not (offered.token or offered.password or params.device):
            return self._verifier.verify_page(self._peer.page)
        caller = Caller(self._peer.address, self._peer.direct_local, self._peer.origin)
        return self._verifier.verify(offered, caller, self._now_ms(), has_device=params.device is not None)

    def _refuse_auth(self, request: Request, params: ConnectParams, refused: Refused) -> list[Action]:
        offered = params.auth
        retry = bool(
            refused.reason == "token_mismatch" and params.device and offered.token and not offered.password and not offered.device_token
        )
        refusal = self._refuse(request.id, refused.to_error(can_retry_with_device_token=retry), 1008)
        return [Delay(refused.delay_ms), *refusal] if refused.delay_ms else refusal

    def _scopes(self, params: ConnectParams, verified: Verified) -> tuple[str, ...] | GatewayError:
        if params.device is not None:
            return self._device_refusal(params)
        asked = tuple(dict.fromkeys(scope for scope in params.scopes or () if scope in ALL_SCOPES))
        if verified.method == "page" and params.role == "operator":
            return PAGE_SCOPES if params.scopes is None else tuple(scope for scope in asked if scope in PAGE_SCOPES)
        client = params.client
        local = self._peer.direct_local and self._peer.origin is None
        if local and params.role == "operator" and (client.id, client.mode) == ("gateway-client", "backend"):
            return asked
        if client.id in _NEEDS_DEVICE:
            text = f"client {client.id} must connect with a device identity, and this gateway cannot pair devices yet"
            return InvalidRequest(text, details={"code": "CONTROL_UI_DEVICE_IDENTITY_REQUIRED"})
        if params.role == "operator" and verified.method in {"token", "password"}:
            return asked if local and (client.id, client.mode) == ("cli", "cli") else ()
        text = "device identity required; operators may instead connect with the shared secret of gateway.auth"
        return NotPaired(text, details={"code": "DEVICE_IDENTITY_REQUIRED"})

    def _device_refusal(self, params: ConnectParams) -> GatewayError:
        device = params.device
        if device is None:  # pragma: no cover - the caller has just seen it
            raise AssertionError
        reason = device_proof.check_proof(params, device, nonce=self._nonce, now_ms=self._now_ms())
        if reason is not None:
            return InvalidRequest(f"device identity refused: {reason}", details={"code": device_proof.CODES[reason], "reason": reason})
        details: dict[str, Any] = {
            "code": "PAIRING_REQUIRED",
            "reason": "not-paired",
            "requestId": str(uuid.uuid4()),
            "remediationHint": "this gateway cannot pair devices yet; connect without a device identity and with the shared secret",
            "deviceId": device.id,
            "requestedRole": params.role,
            "requestedScopes": list(params.scopes or ()),
        }
        return NotPaired("pairing required: device is not paired", details=details)

    def _refuse(self, request_id: str, error: GatewayError, code: int, reason: str | None = None) -> list[Action]:
        text = reason if reason is not None else error.message
        pairing = (error.details or {}).get("requestId")
        if pairing:
            text = f"pairing required (requestId:{pairing})"
        return [Send(failure(request_id, error)), *self._end(Close(code, text))]

    def _end(self, action: Action) -> list[Action]:
        self._over = True
        return [action]


def describe_validation(error: ValidationError, limit: int = 3) -> str:
    """Say in one line which keys were wrong and how."""
    items = error.errors(include_url=False, include_context=False, include_input=False)
    # A key that is not known is often the misspelt one of those that are missing.
    items.sort(key=lambda item: item["type"] != "extra_forbidden")
    problems = []
    for item in items[:limit]:
        place = ".".join(str(part)[:_LONGEST_NAME] for part in item["loc"]) or "params"
        fault = "unknown key" if item["type"] == "extra_forbidden" else f"{item['msg'][:1].lower()}{item['msg'][1:]}"
        problems.append(f"at {place}: {fault}")
    rest = len(items) - limit
    return "; ".join(problems) + (f"; and {rest} more" if rest > 0 else "")
