"""Registers the authenticator. Neither PyJWT nor an HTTP client is loaded before the first request that carries one of its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import BaseModel

from openclaw_kernel.api import Approach, Identity, IdentityRefused, PluginContext, Registrar, hookimpl
from openclaw_plugins.jwt_identity.settings import JwtIdentitySettings, resolve

if TYPE_CHECKING:
    from openclaw_plugins.jwt_identity.authenticator import TokenReader
    from openclaw_plugins.jwt_identity.keys import Fetcher


class JwtAuthenticator:
    """Proves identities by signed tokens; also the unit that closes its HTTP client."""

    id: Final = "jwt-identity"

    def __init__(self, settings: JwtIdentitySettings) -> None:
        self._settings = settings
        self._issuers = [resolve(issuer) for issuer in settings.issuers]
        self._headers = {issuer.header for issuer in self._issuers}
        self._reader: TokenReader | None = None
        self._fetcher: Fetcher | None = None

    async def authenticate(self, approach: Approach) -> Identity | IdentityRefused | None:
        """Check the token of the request, where it has one."""
        if not any(header in approach.headers for header in self._headers):
            return None
        if self._reader is None:
            from openclaw_plugins.jwt_identity.authenticator import TokenReader
            from openclaw_plugins.jwt_identity.keys import Fetcher

            self._fetcher = Fetcher()
            self._reader = TokenReader(self._issuers, self._settings, self._fetcher)
        return await self._reader.read(approach)

    async def start(self) -> None:
        """Begin; keys are fetched with the first token."""

    async def stop(self) -> None:
        """Close the client."""
        if self._fetcher is not None:
            await self._fetcher.close()


class JwtIdentityPlugin:
    """The bundled authenticator."""

    settings: ClassVar[type[BaseModel] | None] = JwtIdentitySettings

    def __init__(self, context: PluginContext) -> None:
        settings = context.settings(JwtIdentitySettings)
        self._authenticator = JwtAuthenticator(settings) if settings.issuers else None

    @hookimpl
    def openclaw_register_authenticators(self, registrar: Registrar) -> None:
        """Register it where an issuer is configured."""
        if self._authenticator is not None:
            registrar.add_authenticator(self._authenticator)
            registrar.add_unit(self._authenticator)
