"""The section `oauth` of a provider: the client of an authorization server that a person logs in with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from openclaw_config.models import Model
from openclaw_config.secrets import Secret

_HTTPS = r"https://[^\s/@?#]+(/[^\s#]*)?"
_LOOPBACK = r"http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^\s#]*)?"

Endpoint = Annotated[str, Field(pattern=rf"^({_HTTPS}|{_LOOPBACK})$")]
"""An https address; http only to this machine, for what is sent there is a credential."""


class OAuthClient(Model):
    client_id: Annotated[str, Field(min_length=1)]
    """The id that the authorization server knows this gateway by."""
    client_secret: Secret | None = None
    """The secret of the client, where the server gave it one."""
    device_authorization_url: Endpoint
    """Where a login begins (RFC 8628); https, or http on this machine."""
    token_url: Endpoint
    """Where tokens come from; https, or http on this machine."""
    scopes: list[Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]] = []
    """What the token shall be good for, in the server's words."""
    store: Literal["file", "keyring"] = "file"
    """Where the token is kept: in a file of the state folder that nobody else reads, or in the system's keyring."""
