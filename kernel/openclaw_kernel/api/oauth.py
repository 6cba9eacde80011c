"""Logins of providers at authorization servers, made by `openclaw-kernel auth login`."""

from __future__ import annotations

from typing import Protocol

from openclaw_config.oauth import OAuthClient
from openclaw_config.secrets import Secret


class Logins(Protocol):
    """The service: access tokens that are valid now. It refreshes them, one refresh at a time for each provider."""

    async def token(self, provider: str, client: OAuthClient, *, refused: Secret | None = None) -> Secret:
        """Return an access token of a provider instance; raise `ProviderError`, of kind AUTH where a person has to log in again.

        `refused` is one that the provider's server has just answered with 401: another is returned, or that is the error.
        """
        ...

    def problem(self, provider: str, client: OAuthClient) -> str | None:
        """Say in one line why there is no token, as far as is known without asking anybody."""
        ...


__all__ = ["Logins", "OAuthClient"]
