"""The handshake as a state machine without I/O: texts and clock in, actions out."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from pydantic import ValidationError

from openclaw_kernel.api.errors import GatewayError, InvalidRequest, NotPaired, Unavailable
from openclaw_kernel.api.grants import narrowed
from openclaw_kernel.api.pairing import ApprovalNeeded, DeviceClaim, DeviceGrant, DevicePairing, SetupSpent
from openclaw_kernel.api.scopes import ALL_SCOPES
from openclaw_kernel.protocol.auth import (
    BOOTSTRAP_TOKEN,
    CERTIFICATE,
    DEVICE_TOKEN,
    IDENTITY,
    TRUSTED_PROXY,
    PageGrant,
    Refused,
    Verified,
    Verifier,
)
from openclaw_kernel.protocol.certificates import WRONG_ROLE
from openclaw_kernel.protocol.connect import ConnectParams, Credentials
from openclaw_kernel.protocol.device import CODES, Proven, prove
from openclaw_kernel.protocol.frames import BadFrame, EventFrame, NotJson, Request, dumps, failure, read_request
from openclaw_kernel.protocol.limiter import Caller, network_of
from openclaw_kernel.protocol.limits import PROBE_PROTOCOL_VERSION, PROTOCOL_VERSION
from openclaw_kernel.protocol.misplaced import misplaced
from openclaw_kernel.protocol.refusals import Refusals
from openclaw_kernel.protocol.vouched import UNTRUSTED_SOURCE
from openclaw_kernel.protocol.waiting import pairing_required

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
    """What it is counted by: see `openclaw_kernel.protocol.proxy.Arrival`."""
    direct_local: bool
    crowd: bool = False
    """Whether the address is that of a proxy which does not say who is behind it."""
    origin: str | None = None
    page: PageGrant | None = None
    """The page session whose cookie the upgrade carried."""
    proof: Verified | Refused | None = None
    """What the upgrade itself proved of who comes, None where it carried nothing of the kind."""


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
class Settle:
    """The pairing must decide first: the server asks it, and tells `Handshake.resume` what came of it."""

    claim: DeviceClaim


@dataclass(frozen=True, slots=True)
class Accept:
    """The client is in: the server answers `request_id` with hello-ok and opens the session."""

    request_id: str
    params: ConnectParams
    verified: Verified
    role: str
    scopes: tuple[str, ...]
    grant: DeviceGrant | None = None
    """What the device was given, where a paired one connects."""


Action: TypeAlias = Send | Close | Delay | Settle | Accept


class Handshake:
    """One connection from challenge to `Accept`, or to a refusal in the protocol's words."""

    def __init__(
        self,
        *,
        peer: Peer,
        verifier: Verifier,
        phase: Callable[[], Phase],
        now_ms: Callable[[], int],
        pairing: DevicePairing | None = None,
        nonce: str | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._peer = peer
        self._refusals = refusals or Refusals()
        self._proven: Proven | None = None
        self._verifier = verifier
        self._pairing = pairing
        self._phase = phase
        self._now_ms = now_ms
        self._nonce = nonce or str(uuid.uuid4())
        self._over = False
        self._waiting: _Waiting | None = None

    def open(self) -> list[Action]:
        """Challenge the client."""
        payload = dumps({"nonce": self._nonce, "ts": self._now_ms()})
        return [Send(EventFrame("connect.challenge", payload).targeted())]

    def expire(self) -> list[Action]:
        """The client said nothing in time; a plain close lets it try again."""
        return self._end(Close(1000, ""))

    def receive(self, data: str | bytes) -> list[Action]:
        """Take one frame."""
        if self._over or self._waiting is not None:
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
            return self._refuse(request.id, InvalidRequest(f"invalid connect params: {describe_validation(error, to_stranger=True)}"), 1008)
        return self._connect(request, params)

    def _connect(self, request: Request, params: ConnectParams) -> list[Action]:
        for check in (self._check_phase, self._check_protocol, self._check_role, self._check_origin):
            refusal = check(params)
            if refusal is not None:
                error, code, reason = refusal
                return self._refuse(request.id, error, code, reason)
        proven = self._prove(params)
        if isinstance(proven, GatewayError):
            return self._refuse(request.id, proven, 1008)
        try:
            verdict = self._verify(params, proven)
            if isinstance(verdict, Refused):
                return self._refuse_auth(request, params, verdict)
            if verdict.device is not None and not self._skips_pairing(params, verdict):
                return self._recall(_Waiting(request.id, params, verdict, self._claim(params, verdict, verdict.device)), first=True)
        except GatewayError as error:
            return self._refuse(request.id, error, 1011)
        scopes = self._scopes(params, verdict)
        if isinstance(scopes, GatewayError):
            return self._refuse(request.id, scopes, 1008)
        return self._end(Accept(request.id, params, verdict, params.role, scopes))

    def resume(self, outcome: ApprovalNeeded | SetupSpent | GatewayError | None) -> list[Action]:
        """Go on after `Settle`, with what the pairing answered or raised."""
        waiting, self._waiting = self._waiting, None
        if self._over or waiting is None:
            return []
        if isinstance(outcome, GatewayError):
            return self._refuse(waiting.request_id, outcome, 1011)
        if outcome == "setup-spent":
            return self._refuse(waiting.request_id, Refused("bootstrap_token_invalid").to_error(), 1008)
        if outcome is not None:
            return self._refuse(waiting.request_id, pairing_required(waiting.claim, outcome), 1008)
        try:
            return self._recall(waiting, first=False)
        except GatewayError as error:
            return self._refuse(waiting.request_id, error, 1011)

    def _recall(self, waiting: _Waiting, *, first: bool) -> list[Action]:
        # The last word is always said at once, without a wait in which the device could be removed.
        if first and waiting.verified.delay_ms and self._pairing is not None:
            self._waiting = waiting
            return [Delay(waiting.verified.delay_ms), Settle(waiting.claim)]
        if first and waiting.claim.bootstrap_token is not None:
            # A setup code is used up, also by a device that is known.
            self._waiting = waiting
            return [Settle(waiting.claim)]
        if self._pairing is None:
            nobody = ApprovalNeeded(reason="not-paired", request_id=None)
            hint = "this gateway pairs no devices; enable the plugin 'pairing'"
            return self._refuse(waiting.request_id, pairing_required(waiting.claim, nobody, hint), 1008)
        grant = self._pairing.recall(waiting.claim)
        if grant is not None:
            ceiling = waiting.verified.ceiling
            scopes = grant.scopes if ceiling is None else narrowed(grant.scopes, ceiling)
            return self._end(Accept(waiting.request_id, waiting.params, waiting.verified, waiting.params.role, scopes, grant))
        if not first:
            text = "the pairing of this device changed while it connected; connect again"
            return self._refuse(waiting.request_id, Unavailable(text, retry_after_ms=1000), 1013)
        self._waiting = waiting
        return [Settle(waiting.claim)]

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

    def _prove(self, params: ConnectParams) -> Proven | InvalidRequest | None:
        # Before any secret is compared: who fails here learns nothing of the secret, so nothing was guessed.
        if params.device is None:
            return None
        proven = prove(params, params.device, nonce=self._nonce, now_ms=self._now_ms())
        if isinstance(proven, Proven):
            self._proven = proven
            return proven
        return InvalidRequest(f"device identity refused: {proven}", details={"code": CODES[proven], "reason": proven})

    def _verify(self, params: ConnectParams, proven: Proven | None) -> Verified | Refused:
        offered = params.auth
        if self._peer.page is not None and not (offered.token or offered.password or params.device):
            return self._verifier.verify_page(self._peer.page)
        proof = self._peer.proof
        by_code = proven is not None and bool(offered.bootstrap_token)
        if isinstance(proof, Verified) and not by_code and (proof.method == TRUSTED_PROXY or not _offers(offered)):
            if proof.roles is not None and params.role not in proof.roles:
                return Refused(WRONG_ROLE)
            # What such a client gets without a device, it gets with one.
            return proof if proven is None or self._needs_no_device(params, proof) else self._verifier.with_device(proof, proven)
        if isinstance(proof, Refused) and not _offers(offered):
            return proof
        caller = Caller(self._peer.address, self._peer.direct_local, self._peer.origin, self._peer.crowd)
        verdict = self._verifier.verify(offered, caller, self._now_ms(), device=proven, role=params.role, scopes=known_scopes(params))
        if isinstance(proof, Refused) and isinstance(verdict, Refused) and verdict.reason == UNTRUSTED_SOURCE:
            # Only the proxy lets anybody in; why it did not is what the client should learn.
            return proof
        return verdict

    def _refuse_auth(self, request: Request, params: ConnectParams, refused: Refused) -> list[Action]:
        offered = params.auth
        retry = bool(
            refused.reason == "token_mismatch" and params.device and offered.token and not offered.password and not offered.device_token
        )
        hint = misplaced(offered, has_device=params.device is not None)
        error = refused.to_error(can_retry_with_device_token=retry, misplaced=hint)
        code, reason = (1013, "identity cannot be checked now") if refused.temporary else (1008, None)
        refusal = self._refuse(request.id, error, code, reason)
        return [Delay(refused.delay_ms), *refusal] if refused.delay_ms else refusal

    @property
    def _is_local(self) -> bool:
        return self._peer.direct_local and self._peer.origin is None

    def _is_local_backend(self, params: ConnectParams) -> bool:
        client = params.client
        return self._is_local and params.role == "operator" and (client.id, client.mode) == ("gateway-client", "backend")

    def _needs_no_device(self, params: ConnectParams, verified: Verified) -> bool:
        named = verified.method in {IDENTITY, CERTIFICATE} or (verified.method == TRUSTED_PROXY and params.client.id in _PAGE_CLIENTS)
        return named and params.role == "operator"

    def _skips_pairing(self, params: ConnectParams, verified: Verified) -> bool:
        # Where no secret is asked for, such a program gets the same without a device.
        return verified.method == "none" and self._is_local_backend(params)

    def _claim(self, params: ConnectParams, verified: Verified, device: Proven) -> DeviceClaim:
        client, auth = params.client, params.auth
        by_token = verified.method == DEVICE_TOKEN
        return DeviceClaim(
            device_id=device.id,
            public_key=device.public_key,
            role=params.role,
            scopes=known_scopes(params) if params.role == "operator" else (),
            client_id=client.id,
            client_mode=client.mode,
            platform=client.platform,
            device_family=client.device_family,
            display_name=client.display_name,
            address=self._peer.address,
            network=network_of(self._peer.address),
            local_secret=self._is_local and verified.method in {"token", "password"},
            token=auth.device_token or (auth.token if by_token else None),
            by_token=by_token,
            bootstrap_token=auth.bootstrap_token if verified.method == BOOTSTRAP_TOKEN else None,
            caps=tuple(params.caps),
            commands=tuple(params.commands),
            permissions=params.permissions,
            version=client.version,
            model_identifier=client.model_identifier,
        )

    def _scopes(self, params: ConnectParams, verified: Verified) -> tuple[str, ...] | GatewayError:
        asked = known_scopes(params)
        if verified.method == "page" and params.role == "operator":
            return narrowed(PAGE_SCOPES if params.scopes is None else asked, PAGE_SCOPES)
        if verified.ceiling is not None and self._needs_no_device(params, verified):
            return narrowed(PAGE_SCOPES if params.scopes is None else asked, verified.ceiling)
        client = params.client
        if self._is_local_backend(params):
            return narrowed(asked, ALL_SCOPES)
        if client.id in _NEEDS_DEVICE:
            text = f"client {client.id} must connect with a device identity; open it over https, or on the gateway's own machine"
            return InvalidRequest(text, details={"code": "CONTROL_UI_DEVICE_IDENTITY_REQUIRED"})
        if params.role == "operator" and verified.method in {"token", "password"}:
            return narrowed(asked, ALL_SCOPES if self._is_local and (client.id, client.mode) == ("cli", "cli") else ())
        text = "device identity required; operators may instead connect with the shared secret of gateway.auth"
        return NotPaired(text, details={"code": "DEVICE_IDENTITY_REQUIRED"})

    def _refuse(self, request_id: str, error: GatewayError, code: int, reason: str | None = None) -> list[Action]:
        self._refusals.handshake(error, self._peer.address, device_id=None if self._proven is None else self._proven.id)
        text = reason if reason is not None else error.message
        pairing = (error.details or {}).get("requestId")
        if pairing:
            text = f"pairing required (requestId:{pairing})"
        return [Send(failure(request_id, error)), *self._end(Close(code, text))]

    def _end(self, action: Action) -> list[Action]:
        self._over = True
        return [action]


@dataclass(frozen=True, slots=True)
class _Waiting:
    request_id: str
    params: ConnectParams
    verified: Verified
    claim: DeviceClaim


def _offers(offered: Credentials) -> bool:
    return bool(offered.token or offered.password or offered.device_token or offered.bootstrap_token)


def known_scopes(params: ConnectParams) -> tuple[str, ...]:
    """The scopes asked for that there are, each once. Who names none asks for none: a device's proof does not tell the two apart."""
    return tuple(dict.fromkeys(scope for scope in params.scopes or () if scope in ALL_SCOPES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshakes:
    """What the handshakes of one gateway have in common."""

    verifier: Verifier
    phase: Callable[[], Phase]
    now_ms: Callable[[], int]
    pairing: DevicePairing | None = None
    """None where no plugin pairs devices."""
    refusals: Refusals = field(default_factory=Refusals)

    def begin(self, peer: Peer) -> Handshake:
        """The handshake of a new connection."""
        return Handshake(
            peer=peer, verifier=self.verifier, phase=self.phase, now_ms=self.now_ms, pairing=self.pairing, refusals=self.refusals
        )

    async def settle(self, claim: DeviceClaim) -> ApprovalNeeded | SetupSpent | GatewayError | None:
        """Ask the pairing, for `Handshake.resume`."""
        if self.pairing is None:
            raise AssertionError("only a handshake with a pairing asks for one")
        try:
            return await self.pairing.settle(claim)
        except GatewayError as error:
            return error


def describe_validation(error: ValidationError, limit: int = 3, *, to_stranger: bool = False) -> str:
    """Say in one line which keys were wrong and how; a stranger is not told which words there are, for they name the product."""
    items = error.errors(include_url=False, include_context=False, include_input=False)
    # A key that is not known is often the misspelt one of those that are missing.
    items.sort(key=lambda item: item["type"] != "extra_forbidden")
    problems = []
    for item in items[:limit]:
        place = ".".join(str(part)[:_LONGEST_NAME] for part in item["loc"]) or "params"
        fault = "unknown key" if item["type"] == "extra_forbidden" else f"{item['msg'][:1].lower()}{item['msg'][1:]}"
        if to_stranger and item["type"] == "literal_error":
            fault = "no such word in the protocol"
        problems.append(f"at {place}: {fault}")
    rest = len(items) - limit
    return "; ".join(problems) + (f"; and {rest} more" if rest > 0 else "")
