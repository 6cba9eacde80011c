"""What a request itself proves of who sends it, before any frame: by a certificate, a trusted proxy's word, or to an authenticator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from multidict import CIMultiDict, CIMultiDictProxy

from openclaw_kernel.api.authenticator import Approach, Identity, IdentityRefused
from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.auth import CERTIFICATE, TRUSTED_PROXY, Refused, Verified, Verifier
from openclaw_kernel.protocol.certificates import UNKNOWN, read_certificate
from openclaw_kernel.protocol.limiter import HeldAnswers
from openclaw_kernel.protocol.pages import COOKIE
from openclaw_kernel.protocol.proxy import Arrival
from openclaw_kernel.protocol.refusals import Refusals

if TYPE_CHECKING:
    import ssl

    from aiohttp import web

_OWN: Final = f"{COOKIE}="


class Authenticators(Protocol):
    """Those of the plugins."""

    def __bool__(self) -> bool: ...

    async def ask(self, approach: Approach) -> Identity | IdentityRefused | None:
        """Return the first answer that is not None."""
        ...


class Proofs:
    """Asks the authenticators and the verifier about requests."""

    def __init__(
        self,
        *,
        verifier: Verifier,
        arrivals: Arrivals,
        now_ms: Callable[[], int],
        authenticators: Authenticators,
        refusals: Refusals | None = None,
        held: HeldAnswers | None = None,
        believed: Callable[[ssl.SSLContext], bool] = lambda _context: True,
    ) -> None:
        self._verifier = verifier
        self._arrivals = arrivals
        self._now_ms = now_ms
        self._authenticators = authenticators
        self._refusals = refusals or Refusals()
        self._held = held or HeldAnswers()
        self._believed = believed

    async def of(self, request: web.Request) -> Verified | Refused | None:
        """Who sends this request, why that is not believed, or None where it says nothing of it."""
        by_certificate = self._by_certificate(request)
        if isinstance(by_certificate, Verified):
            return by_certificate
        return await self._by_others(request) or by_certificate

    def stands(self, request: web.Request, verified: Verified) -> bool:
        """Whether what a request proved is proven still: the authorities may be others since it came."""
        return verified.method != CERTIFICATE or self._certificate(request) is not None

    def _certificate(self, request: web.Request) -> bytes | None:
        encrypted = request.get_extra_info("ssl_object")
        # Checked once, when the connection began, which may have been long ago.
        if encrypted is None or not self._believed(encrypted.context):
            return None
        shown: bytes | None = encrypted.getpeercert(binary_form=True)
        return shown

    def _by_certificate(self, request: web.Request) -> Verified | Refused | None:
        der = self._certificate(request)
        if not der:
            return None
        arrival = self._arrivals.of(request)
        if arrival.trusted or arrival.ignored:
            # It is the certificate of a proxy, which speaks for others.
            return None
        shown = read_certificate(der)
        proof = None if shown is None else self._verifier.verify_certificate(shown, self._now_ms())
        # Where nobody is asked for anything, a certificate that says nothing keeps nobody out.
        return None if isinstance(proof, Refused) and self._verifier.mode == "none" else proof

    async def _by_others(self, request: web.Request) -> Verified | Refused | None:
        by_proxy: Verified | Refused | None = None
        if self._verifier.mode == TRUSTED_PROXY:
            arrival = self._arrivals.of(request)
            by_proxy = self._verifier.verify_proxied(arrival, request.headers, request.headers.get("Origin"), self._now_ms())
        if isinstance(by_proxy, Verified) or not self._authenticators:
            return by_proxy
        return await self._ask(request) or by_proxy

    async def of_http(self, request: web.Request) -> Verified | None:
        """Who sends this request, for a route; what did not hold is written down, and answered no sooner than on a WebSocket."""
        proof = None if self._held.full else await self.of(request)
        if isinstance(proof, Refused):
            # A browser shows its certificate whether or not it wants anything by it.
            if proof.reason != UNKNOWN:
                self._refusals.credential(proof.reason, self._arrivals.of(request).address, surface="http")
            await self._held.hold(proof.delay_ms)
            return None
        return proof

    async def _ask(self, request: web.Request) -> Verified | Refused | None:
        arrival = self._arrivals.of(request)
        caller = arrival.caller(request.headers.get("Origin"))
        locked = self._verifier.identity_lock(caller, self._now_ms())
        if locked is not None:
            return locked
        answer = await self._authenticators.ask(approach_of(request, arrival))
        return None if answer is None else self._verifier.verify_identity(answer, caller, self._now_ms())


def approach_of(request: web.Request, arrival: Arrival) -> Approach:
    """What an authenticator gets to see of a request: all but our own cookie."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name in request.headers:
        if name not in headers:
            headers[name] = ", ".join(request.headers.getall(name))
    if "Cookie" in headers:
        foreign = [part for part in headers["Cookie"].replace(", ", ";").split(";") if not part.strip().startswith(_OWN)]
        headers["Cookie"] = ";".join(foreign).strip()
    return Approach(
        headers=CIMultiDictProxy(headers),
        path=request.path,
        peer=arrival.peer,
        address=arrival.address,
        by_trusted_proxy=arrival.trusted,
        secure=arrival.secure,
    )
