"""Who may connect: the one verifier, wrapped by the one limiter.

Only `Verifier` makes a `Verified`; the handshake cannot go on without one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, final

from openclaw_config.models import GatewayAuth, TlsClient
from openclaw_config.secrets import Secret
from openclaw_kernel.api.authenticator import Identity, IdentityRefused
from openclaw_kernel.api.errors import GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.api.grants import narrowed
from openclaw_kernel.api.pairing import TokenVerdict, device_principal
from openclaw_kernel.api.scopes import ALL_SCOPES
from openclaw_kernel.protocol import certificates, vouched
from openclaw_kernel.protocol.certificates import ShownCertificate, granted_to_certificate
from openclaw_kernel.protocol.connect import Credentials
from openclaw_kernel.protocol.device import Proven
from openclaw_kernel.protocol.limiter import Caller, FailureLimiter
from openclaw_kernel.protocol.proxy import Arrival
from openclaw_kernel.protocol.vouched import granted_to

DEVICE_TOKEN: Final = "device-token"  # noqa: S105 - a word of the protocol
"""The method of who came in with a device token; also the kind of that credential."""

TRUSTED_PROXY: Final = "trusted-proxy"
"""The method of who came in by the word of a trusted proxy; also the mode in which that is how one comes in."""
IDENTITY: Final = "identity"
"""The method of whom an authenticator proved; also the kind under which wrong claims of an identity are counted."""
BOOTSTRAP_TOKEN: Final = "bootstrap-token"  # noqa: S105 - a word of the protocol
"""The method of who came in with a setup code; also the kind of that credential."""
CERTIFICATE: Final = "certificate"
"""The method of who came in with a client certificate."""
_WORD: Final = re.compile(r"[a-z0-9_]{1,48}")
_LONGEST_CURE: Final = 200
_RETRY_MS: Final = 5_000

_MINT: Final = object()
# The kinds of credentials, under which wrong tries are counted.
_SECRET: Final = "shared-secret"  # noqa: S105 - a word of the protocol
_NEXT_STEPS: Final = {
    "token_missing": "update_auth_configuration",
    "password_missing": "update_auth_configuration",
    "token_missing_config": "update_auth_configuration",
    "password_missing_config": "update_auth_configuration",
    "token_mismatch": "update_auth_credentials",
    "password_mismatch": "update_auth_credentials",
    "device_token_mismatch": "update_auth_credentials",
    "rate_limited": "wait_then_retry",
    "scope_mismatch": "review_auth_configuration",
}
_CODES: Final = {
    "token_missing": "AUTH_TOKEN_MISSING",
    "password_missing": "AUTH_PASSWORD_MISSING",
    "token_missing_config": "AUTH_TOKEN_NOT_CONFIGURED",
    "password_missing_config": "AUTH_PASSWORD_NOT_CONFIGURED",
    "token_mismatch": "AUTH_TOKEN_MISMATCH",
    "password_mismatch": "AUTH_PASSWORD_MISMATCH",
    "device_token_mismatch": "AUTH_DEVICE_TOKEN_MISMATCH",
    "scope_mismatch": "AUTH_SCOPE_MISMATCH",
    "bootstrap_token_invalid": "AUTH_BOOTSTRAP_TOKEN_INVALID",
    "rate_limited": "AUTH_RATE_LIMITED",
}
_CLAIMED: Final = frozenset({vouched.USER_NOT_ALLOWED, vouched.AMBIGUOUS_HEADER})
"""Reasons with which somebody claimed to be who it is not, as with a wrong secret."""
_MESSAGES: Final = {
    "token_missing": "gateway token missing; send auth.token, the value of gateway.auth.token",
    "password_missing": "gateway password missing; send auth.password, the value of gateway.auth.password",
    "token_missing_config": "gateway.auth.token is not set; set it in openclaw.yaml",
    "password_missing_config": "gateway.auth.password is not set; set it in openclaw.yaml",
    "token_mismatch": "gateway token mismatch; use the value of gateway.auth.token",
    "password_mismatch": "gateway password mismatch; use the value of gateway.auth.password",
    "device_token_mismatch": "device token mismatch; this gateway has issued no such token, or has withdrawn it",
    "scope_mismatch": "device token scope mismatch; ask for fewer scopes, or have the token rotated with more",
    "bootstrap_token_invalid": "bootstrap token invalid or expired; ask for a new setup code",
    "rate_limited": "too many failed attempts; wait, then retry",
    vouched.UNTRUSTED_SOURCE: "only a proxy in gateway.trustedProxies names users here; come through it, or list it there",
    vouched.LOOPBACK_SOURCE: "a proxy on the gateway's own machine names users only with gateway.auth.trustedProxy.allowLoopback",
    vouched.AMBIGUOUS_HEADER: "the proxy names no single user; let it replace the user header, not add to it",
    "identity_expired": "the proof of identity has expired; sign in anew",
    "identity_unknown": "the identity is proven and may do nothing here; add it to gateway.auth.identities",
    certificates.UNKNOWN: "this client certificate may do nothing here; add it to gateway.tls.clients, or bring another credential",
    certificates.EXPIRED: "the client certificate has expired; connect with a new one",
    certificates.WRONG_ROLE: "this client certificate is for another role; add an entry with that role to gateway.tls.clients",
    vouched.USER_NOT_ALLOWED: "this user is not in gateway.auth.trustedProxy.allowUsers",
}


@final
@dataclass(frozen=True, slots=True)
class Verified:
    """Proof that a credential was checked.

    `method` is token, password, none, page, device-token, bootstrap-token, trusted-proxy, identity or certificate. `principal` keys
    what it does; `device` is the device that connects, where one proved itself.
    """

    method: str
    principal: str
    mint: object = field(repr=False)
    device: Proven | None = None
    delay_ms: int = 0
    """For how long the answer is held back: a wrong secret came beside the good token."""
    ceiling: tuple[str, ...] | None = None
    """The scopes that it may have at most; None where nothing but what it is given bounds them."""
    expires_ms: int | None = None
    """When the proof ends (Unix milliseconds), and the connection with it."""
    roles: frozenset[str] | None = None
    """The roles that it may have; None where nothing but what it is given bounds them."""

    def __post_init__(self) -> None:
        if self.mint is not _MINT:
            message = "only the verifier makes a Verified"
            raise TypeError(message)


@dataclass(frozen=True, slots=True)
class Refused:
    """A failed proof: the reason of the protocol, and for how long the answer is held back or the caller locked out."""

    reason: str
    delay_ms: int = 0
    retry_after_ms: int | None = None
    message: str | None = None
    """What is to be done, where the reason alone does not tell."""
    temporary: bool = False
    """Whether nothing was refused yet: it cannot be checked now."""

    def to_error(self, *, can_retry_with_device_token: bool = False, misplaced: str | None = None) -> GatewayError:
        """The error that the protocol has for it; `misplaced` says which credential was in the wrong field."""
        if self.temporary:
            text = self.message or "your identity cannot be checked now"
            return Unavailable(f"{text}; retry shortly", details={"reason": self.reason}, retry_after_ms=_RETRY_MS)
        step = "retry_with_device_token" if can_retry_with_device_token else _NEXT_STEPS.get(self.reason, "review_auth_configuration")
        details: dict[str, Any] = {
            "code": _CODES.get(self.reason, "AUTH_UNAUTHORIZED"),
            "authReason": self.reason,
            "canRetryWithDeviceToken": can_retry_with_device_token,
            "recommendedNextStep": step,
        }
        text = self.message or _MESSAGES.get(self.reason, "unauthorized")
        if self.reason.startswith(vouched.MISSING_HEADER):
            details["code"] = "AUTH_IDENTITY_HEADER_REQUIRED"
            text = f"the proxy did not send {self.reason.removeprefix(vouched.MISSING_HEADER)}; let it send that header, and sign in there"
        if misplaced is not None:
            text = f"{text}; {misplaced}"
        return InvalidRequest(f"unauthorized: {text}", details=details, retry_after_ms=self.retry_after_ms)


@dataclass(frozen=True, slots=True)
class PageGrant:
    """What a browser that exchanged a one-time code carries in its cookie: an id, checked against the live sessions."""

    session_id: str


class TokenBook(Protocol):
    """Knows the device tokens."""

    def check_token(self, device_id: str, role: str, token: str, scopes: Sequence[str]) -> TokenVerdict:
        """See `openclaw_kernel.api.DevicePairing.check_token`."""
        ...

    def check_setup(self, token: str, role: str) -> bool:
        """See `openclaw_kernel.api.DevicePairing.check_setup`."""
        ...


class Verifier:
    """Checks credentials against `gateway.auth` and the device tokens; every try goes through the limiter."""

    def __init__(
        self, auth: GatewayAuth, limiter: FailureLimiter, tokens: TokenBook | None = None, *, certificates: Sequence[TlsClient] = ()
    ) -> None:
        self._auth = auth
        self._certificates = certificates
        self._limiter = limiter
        self._tokens = tokens
        self.epoch = 0
        """Grows with each change of the settings: a proof of an earlier one may not hold any more."""

    def adopt(self, auth: GatewayAuth, certificates: Sequence[TlsClient]) -> None:
        """Check by these settings from now on."""
        if (auth, certificates) != (self._auth, self._certificates):
            self._auth, self._certificates = auth, certificates
            self.epoch += 1

    @property
    def mode(self) -> str:
        """`token`, `password`, `none` or `trusted-proxy`."""
        return self._auth.mode

    def verify_proxied(self, arrival: Arrival, headers: Mapping[str, str], origin: str | None, now_ms: int) -> Verified | Refused:
        """Check what a request says of its user, in mode `trusted-proxy`."""
        caller = arrival.caller(origin)
        locked = self.identity_lock(caller, now_ms)
        if locked is not None:
            return locked
        found = vouched.read_user(self._auth.trusted_proxy, arrival, headers)
        if isinstance(found, str):
            return self._refuse(found, [IDENTITY] if found in _CLAIMED else [], caller, now_ms)
        granted = granted_to(self._auth.identities, Identity(issuer=TRUSTED_PROXY, subject=found.user))
        if not granted:
            if any(entry.issuer == TRUSTED_PROXY for entry in self._auth.identities):
                return Refused("identity_unknown")
            granted = ALL_SCOPES
        self._limiter.succeeded(IDENTITY, caller)
        ceiling = tuple(sorted(granted if found.cap is None else narrowed(granted, found.cap)))
        return Verified(TRUSTED_PROXY, f"user:{found.user}", _MINT, ceiling=ceiling)

    def identity_lock(self, caller: Caller, now_ms: int) -> Refused | None:
        """The refusal of a caller that is locked out for identities that did not hold."""
        locked_ms = self._limiter.locked_for_ms(IDENTITY, caller, now_ms)
        return Refused("rate_limited", retry_after_ms=locked_ms) if locked_ms else None

    def verify_identity(self, answer: Identity | IdentityRefused, caller: Caller, now_ms: int) -> Verified | Refused:
        """Accept whom an authenticator proved, for as long as the proof lasts and with what the configuration gives it."""
        locked = self.identity_lock(caller, now_ms)
        if locked is not None:
            return locked
        if isinstance(answer, IdentityRefused):
            word = answer.reason if _WORD.fullmatch(answer.reason) else "refused"
            tried = [IDENTITY] if answer.guess and not answer.temporary else []
            refused = self._refuse(f"identity_{word}", tried, caller, now_ms)
            if refused.reason == "rate_limited":
                return refused
            return replace(refused, message=" ".join(answer.cure.split())[:_LONGEST_CURE], temporary=answer.temporary)
        if answer.expires_ms is not None and answer.expires_ms <= now_ms:
            return Refused("identity_expired")
        scopes = granted_to(self._auth.identities, answer)
        if not scopes:
            # It is who it says it is: nothing was guessed.
            return Refused("identity_unknown")
        self._limiter.succeeded(IDENTITY, caller)
        principal = f"identity:{answer.issuer}#{answer.subject}"
        return Verified(IDENTITY, principal, _MINT, ceiling=tuple(sorted(scopes)), expires_ms=answer.expires_ms)

    def verify_certificate(self, shown: ShownCertificate, now_ms: int) -> Verified | Refused:
        """Accept the client certificate that TLS checked, for as long as it is valid and with what the configuration gives it.

        Nothing is counted: who shows one has its key, and guesses nothing.
        """
        grant = granted_to_certificate(self._certificates, shown)
        if grant is None:
            return Refused(certificates.UNKNOWN)
        if shown.expires_ms <= now_ms:
            return Refused(certificates.EXPIRED)
        ceiling = tuple(sorted(grant.scopes))
        principal = f"cert:{shown.fingerprint}"
        return Verified(CERTIFICATE, principal, _MINT, ceiling=ceiling, expires_ms=shown.expires_ms, roles=grant.roles)

    def with_device(self, verified: Verified, device: Proven) -> Verified:
        """The same proof for a device that comes with it, which then has to be paired."""
        return replace(verified, principal=device_principal(device.id), device=device)

    def verify_page(self, grant: PageGrant) -> Verified:
        """Accept a browser whose cookie the page sessions recognised."""
        return Verified("page", f"page:{grant.session_id}", _MINT)

    def verify(
        self,
        offered: Credentials,
        caller: Caller,
        now_ms: int,
        *,
        device: Proven | None = None,
        role: str = "operator",
        scopes: Sequence[str] = (),
    ) -> Verified | Refused:
        """Check the shared secret first, then the token of a device; neither presence nor locality proves anything."""
        if device is not None and offered.bootstrap_token:
            return self._verify_setup(offered.bootstrap_token, caller, now_ms, device, role)
        reason = self._check_secret(offered, caller, now_ms)
        if reason is None:
            self._limiter.succeeded(_SECRET, caller)
            method = self._secret_kind if self.mode == TRUSTED_PROXY else self.mode
            return Verified(method, method if device is None else device_principal(device.id), _MINT, device)
        # Where nothing was guessed, nothing is counted; two texts in one frame are two guesses.
        tried = [] if reason.endswith(("_missing", "_config")) else [_SECRET] * max(1, len(_guesses(offered)))
        token = offered.device_token or offered.token
        if device is None or not token or self._tokens is None:
            return self._refuse(reason, tried, caller, now_ms)
        if not self._limiter.locked_for_ms(DEVICE_TOKEN, caller, now_ms):
            verdict = self._tokens.check_token(device.id, role, token, scopes)
            if verdict == "ok":
                self._limiter.succeeded(DEVICE_TOKEN, caller)
                # A device is no place to guess the secret from: what came beside its token is counted.
                guesses = _guesses(offered) - {token} if reason.endswith("_mismatch") else ()
                delays = [self._limiter.failed(_SECRET, caller, now_ms) for _ in guesses]
                return Verified(DEVICE_TOKEN, device_principal(device.id), _MINT, device, max(delays, default=0))
            if verdict == "scopes":
                return Refused("scope_mismatch")
        return self._refuse("device_token_mismatch" if offered.device_token else reason, [*tried, DEVICE_TOKEN], caller, now_ms)

    def _verify_setup(self, token: str, caller: Caller, now_ms: int, device: Proven, role: str) -> Verified | Refused:
        is_locked = self._limiter.locked_for_ms(BOOTSTRAP_TOKEN, caller, now_ms)
        if is_locked or self._tokens is None or not self._tokens.check_setup(token, role):
            return self._refuse("bootstrap_token_invalid", [BOOTSTRAP_TOKEN], caller, now_ms)
        self._limiter.succeeded(BOOTSTRAP_TOKEN, caller)
        return Verified(BOOTSTRAP_TOKEN, device_principal(device.id), _MINT, device)

    def verify_secret(self, candidate: str, caller: Caller, now_ms: int) -> Verified | Refused:
        """Check a bearer credential of an HTTP request."""
        return self.verify(Credentials.model_construct(token=candidate, password=candidate), caller, now_ms)

    @property
    def _secret_kind(self) -> str:
        return "password" if self.mode == "password" or (self.mode == TRUSTED_PROXY and self._auth.token is None) else "token"

    def _check_secret(self, offered: Credentials, caller: Caller, now_ms: int) -> str | None:
        if self.mode == "none":
            return None
        if self.mode == TRUSTED_PROXY and not caller.is_loopback:
            return vouched.UNTRUSTED_SOURCE
        if self._limiter.locked_for_ms(_SECRET, caller, now_ms):
            return "rate_limited"
        # Where a proxy names the users, a program on this machine that no proxy speaks for shows whichever secret there is.
        name = self._secret_kind
        expected: Secret | None = self._auth.token if name == "token" else self._auth.password
        if expected is None:
            return vouched.UNTRUSTED_SOURCE if self.mode == TRUSTED_PROXY else f"{name}_missing_config"
        candidates = _guesses(offered)
        if any([expected.matches(text) for text in candidates]):  # noqa: C419 - all are compared, so that time tells nothing
            return None
        return f"{name}_mismatch" if candidates else f"{name}_missing"

    def _refuse(self, reason: str, tried: Sequence[str], caller: Caller, now_ms: int) -> Refused:
        """Count each wrong try of a kind; where one of them is locked out, that is all the caller learns."""
        locked = {kind: self._limiter.locked_for_ms(kind, caller, now_ms) for kind in tried}
        delays = [self._limiter.failed(kind, caller, now_ms) for kind in tried if not locked[kind]]
        if any(locked.values()):
            return Refused("rate_limited", retry_after_ms=max(locked.values()))
        return Refused(reason, delay_ms=max(delays, default=0))


def _guesses(offered: Credentials) -> set[str]:
    """What may be meant as the shared secret."""
    return {text for text in (offered.token, offered.password) if text}
