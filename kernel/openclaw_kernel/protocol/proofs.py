"""What a request itself proves of who sends it: by the word of a trusted proxy, before any frame and for HTTP routes alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.auth import TRUSTED_PROXY, Refused, Verified, Verifier

if TYPE_CHECKING:
    from aiohttp import web


class Proofs:
    """Asks the verifier about requests."""

    def __init__(self, *, verifier: Verifier, arrivals: Arrivals, now_ms: Callable[[], int]) -> None:
        self._verifier = verifier
        self._arrivals = arrivals
        self._now_ms = now_ms

    async def of(self, request: web.Request) -> Verified | Refused | None:
        """Who sends this request, why that is not believed, or None where it says nothing of it."""
        if self._verifier.mode != TRUSTED_PROXY:
            return None
        arrival = self._arrivals.of(request)
        return self._verifier.verify_proxied(arrival, request.headers, request.headers.get("Origin"), self._now_ms())
