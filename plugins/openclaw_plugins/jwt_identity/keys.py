"""The keys of one issuer: fetched when they are needed, kept for a while, and fetched anew, no more often than is bearable."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from openclaw_plugins.jwt_identity.settings import Issuer, is_safe_url
from openclaw_plugins.jwt_identity.tokens import Key, Told, choose, read_keys

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger("openclaw.jwt-identity")

UNKNOWN_KEY_SECONDS: Final = 30.0
"""How soon after a fetch a key that nobody knows is a reason for another."""
RETRY_SECONDS: Final = 10.0
"""How soon after a fetch that failed the next is tried."""
FETCH_SECONDS: Final = 3.0
LONGEST_BYTES: Final = 262_144

Fetch: TypeAlias = Callable[[str], Awaitable[Any]]
"""Returns the JSON at an address; raises `CannotFetch`."""


class CannotFetch(Exception):
    """The keys cannot be had; the message says why."""


@dataclass(slots=True)
class KeySet:
    """The keys of an issuer. `clock` is a monotonic one."""

    issuer: Issuer
    fetch: Fetch
    clock: Callable[[], float]
    fresh_seconds: float
    kept_seconds: float
    _keys: list[Key] = field(default_factory=list)
    _fetched: float | None = None
    _tried: float | None = None
    _failure: CannotFetch | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def key_for(self, told: Told) -> Key | None:
        """The key that a token was signed with; None where the issuer has none such. Raise `CannotFetch`."""
        if not self._is_fresh():
            await self._refresh(self._is_fresh)
        key = choose(self._keys, told)
        if key is None and self._may_look_again():
            # The issuer may have changed its keys since.
            await self._refresh(lambda: not self._may_look_again())
            key = choose(self._keys, told)
        if key is None and self._failure is not None and not self._keys:
            raise self._failure
        return key

    def _is_fresh(self) -> bool:
        return self._fetched is not None and self.clock() - self._fetched < self.fresh_seconds

    def _may_look_again(self) -> bool:
        wait = UNKNOWN_KEY_SECONDS if self._failure is None else RETRY_SECONDS
        return self._tried is None or self.clock() - self._tried >= wait

    async def _refresh(self, is_done: Callable[[], bool]) -> None:
        async with self._lock:
            # Many may have waited for one fetch; and of one that just failed nobody is made to wait for another.
            if is_done() or (self._failure is not None and not self._may_look_again()):
                self._forget_old()
                return
            self._tried = self.clock()
            try:
                # Where the keys are and what they are together: one slow issuer must not use up the time that there is for an answer.
                async with asyncio.timeout(FETCH_SECONDS):
                    keys = read_keys(await self.fetch(await self._address()))
            except TimeoutError:
                self._fail(CannotFetch(f"the issuer did not answer within {FETCH_SECONDS:g} s"))
                return
            except (CannotFetch, ValueError) as error:
                self._fail(error if isinstance(error, CannotFetch) else CannotFetch(str(error)))
                return
            self._keys, self._fetched, self._failure = keys, self.clock(), None

    def _fail(self, failure: CannotFetch) -> None:
        self._failure = failure
        logger.warning("the keys of %s cannot be fetched: %s", self.issuer.issuer, failure)
        self._forget_old()

    def _forget_old(self) -> None:
        if self._fetched is None or self.clock() - self._fetched >= self.fresh_seconds + self.kept_seconds:
            self._keys = []

    async def _address(self) -> str:
        if self.issuer.jwks_url is not None:
            return self.issuer.jwks_url
        document = await self.fetch(f"{self.issuer.issuer.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != self.issuer.issuer:
            raise CannotFetch("its openid-configuration is another issuer's; compare issuer with it, or set jwksUrl")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or not is_safe_url(address):
            raise CannotFetch("its openid-configuration names no jwks_uri with https; set jwksUrl")
        return address


class Fetcher:
    """Fetches JSON; its session lives as long as the plugin."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, url: str) -> Any:
        """Return the JSON at an address; raise `CannotFetch`."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with asyncio.timeout(FETCH_SECONDS), self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:  # noqa: PLR2004 - OK
                    raise CannotFetch(f"{url} answered {response.status}")
                content = await _read(response)
        except TimeoutError as error:
            raise CannotFetch(f"{url} did not answer within {FETCH_SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CannotFetch(f"{url} cannot be reached ({type(error).__name__})") from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CannotFetch(f"{url} answered with what is no JSON") from error

    async def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for part in response.content.iter_any():
        content += part
        if len(content) > LONGEST_BYTES:
            raise CannotFetch(f"{response.url} answered with more than {LONGEST_BYTES} bytes")
    return content
