"""An authenticator: the reader at the door signs who came in, and until when."""

from __future__ import annotations

import hashlib
import hmac
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from openclaw_kernel.api import Approach, Identity, IdentityRefused, PluginContext, Registrar, Secret, hookimpl

HEADER = "X-Acme-Badge"


class BadgeSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: Secret
    """What the readers sign with."""


class BadgeAuthenticator:
    id = "acme-badge"

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._key = context.settings(BadgeSettings).key

    async def authenticate(self, approach: Approach) -> Identity | IdentityRefused | None:
        badge = approach.headers.get(HEADER)
        if badge is None:
            return None  # none of our business: the next authenticator is asked
        number, _, rest = badge.partition(".")
        expires, _, signature = rest.partition(".")
        if not hmac.compare_digest(signature.encode(), sign(self._key, number, expires).encode()):
            return IdentityRefused(reason="signature_invalid", cure="no reader of ours signed this badge")
        if int(expires) <= self._context.now_ms():
            return IdentityRefused(reason="badge_expired", cure="hold it to a reader again", guess=False)
        return Identity(issuer="acme-doors", subject=number, expires_ms=int(expires))


def sign(key: Secret, number: str, expires: str) -> str:
    return hmac.new(key.unwrap().encode(), f"{number}.{expires}".encode(), hashlib.sha256).hexdigest()


class BadgePlugin:
    settings: ClassVar[type[BaseModel] | None] = BadgeSettings

    def __init__(self, context: PluginContext) -> None:
        self._authenticator = BadgeAuthenticator(context)

    @hookimpl
    def openclaw_register_authenticators(self, registrar: Registrar) -> None:
        registrar.add_authenticator(self._authenticator)
