"""From the headers of a request to the identity that a signed token in them proves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from openclaw_kernel.api import Approach, Identity, IdentityRefused
from openclaw_plugins.jwt_identity import tokens
from openclaw_plugins.jwt_identity.keys import CannotFetch, Fetch, KeySet
from openclaw_plugins.jwt_identity.settings import Issuer, JwtIdentitySettings

_BEARER: Final = "bearer "
_SHARED_HEADER: Final = "authorization"
"""Carries other things than these tokens too."""


class TokenReader:
    """Reads the tokens of all issuers."""

    def __init__(
        self, issuers: Sequence[Issuer], settings: JwtIdentitySettings, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._headers = tuple(dict.fromkeys(issuer.header.lower() for issuer in issuers))
        self._issuers = issuers
        self._leeway = settings.leeway_seconds
        # An issuer that is there for several applications is asked, and waited for, once.
        self._keys = {
            _source(issuer): KeySet(issuer, fetch, clock, fresh_seconds=settings.keys_seconds, kept_seconds=settings.keys_kept_seconds)
            for issuer in issuers
        }

    async def read(self, approach: Approach) -> Identity | IdentityRefused | None:
        """Return whom the first token proves, why it does not, or None where there is none."""
        for header in self._headers:
            value = approach.headers.get(header)
            if value is None:
                continue
            answer = await self._read_one(header, value.strip())
            if answer is not None:
                return answer
        return None

    async def _read_one(self, header: str, value: str) -> Identity | IdentityRefused | None:
        text = value[len(_BEARER) :].strip() if value.lower().startswith(_BEARER) else value
        told = tokens.peek(text)
        issuers = [
            issuer for issuer in self._issuers if told is not None and issuer.issuer == told.issuer and issuer.header.lower() == header
        ]
        if told is None or not issuers:
            if header == _SHARED_HEADER:
                return None
            word, cure = (
                ("issuer_unknown", "its issuer is none of those in the plugin's section") if told else ("token_malformed", _MALFORMED)
            )
            return IdentityRefused(reason=word, cure=cure)
        answer: Identity | IdentityRefused | None = None
        # One issuer may be there twice, for two applications.
        for issuer in issuers:
            answer = await self._check(issuer, told)
            if isinstance(answer, Identity):
                return answer
        return answer

    async def _check(self, issuer: Issuer, told: tokens.Told) -> Identity | IdentityRefused:
        refused = tokens.refused_algorithm(told, issuer)
        if refused is not None:
            return refused
        try:
            key = await self._keys[_source(issuer)].key_for(told)
        except CannotFetch:
            cure = "the issuer's keys cannot be fetched now; the gateway's log says why"
            return IdentityRefused(reason="keys_unavailable", cure=cure, temporary=True)
        if key is None:
            # The issuer may have begun to use a key that we may not look for yet.
            return IdentityRefused(reason="key_unknown", cure="the token's key is none of the issuer's; sign in anew", guess=False)
        return tokens.check(told, key, issuer, self._leeway)


def _source(issuer: Issuer) -> tuple[str, str | None]:
    return issuer.issuer, issuer.jwks_url


_MALFORMED: Final = "the header has no signed token; see what the proxy puts there"
