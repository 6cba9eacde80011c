"""Who may read the reasons behind a health probe: whoever could ask for them over the WebSocket."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from openclaw_kernel.api.scopes import effective_scopes
from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.auth import Refused, Verifier
from openclaw_kernel.protocol.limiter import HeldAnswers
from openclaw_kernel.protocol.pages import PageSessions
from openclaw_kernel.protocol.proofs import Proofs
from openclaw_kernel.protocol.refusals import Refusals


class Watchers:
    """Judges a request by the page's cookie, by what it proves, or by the shared secret; a refusal is counted, held up and recorded."""

    def __init__(
        self,
        *,
        pages: PageSessions,
        proofs: Proofs,
        verifier: Verifier,
        arrivals: Arrivals,
        held: HeldAnswers,
        refusals: Refusals,
        now_ms: Callable[[], int],
    ) -> None:
        self._pages = pages
        self._proofs = proofs
        self._verifier = verifier
        self._arrivals = arrivals
        self._held = held
        self._refusals = refusals
        self._now_ms = now_ms

    async def trusted(self, request: web.Request) -> bool:
        """Whether they may."""
        if self._pages.authenticated(request):
            return True
        proof = await self._proofs.of_http(request)
        if proof is not None:
            return "operator.read" in effective_scopes(proof.ceiling or ())
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret or self._held.full:
            return False
        caller = self._arrivals.of(request).caller(request.headers.get("Origin"))
        verdict = self._verifier.verify_secret(secret, caller, self._now_ms())
        if isinstance(verdict, Refused):
            self._refusals.credential(verdict.reason, caller.address, surface="http")
            await self._held.hold(verdict.delay_ms)
            return False
        return True
