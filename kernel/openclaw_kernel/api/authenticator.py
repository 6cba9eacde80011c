"""Who somebody is, proved by what came with the request itself: the seam for identities that others issue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """A request before anything of it is believed, read-only. Nothing in it is proved; a browser's Origin has been judged already."""

    headers: Mapping[str, str]
    """Names in any case; a header that came several times is joined by `, `."""
    path: str
    peer: str
    """The other end of the socket."""
    address: str
    """The client's address, as far as trusted proxies tell; for the log and for limits, never for rights."""
    by_trusted_proxy: bool
    """Whether the peer is in `gateway.trustedProxies`."""
    secure: bool
    """Whether the client came over TLS, to the gateway or to a trusted proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who somebody is, by a proof that the authenticator checked. What it may do is the gateway's to say: `gateway.auth.identities`.

    `issuer` and `subject` together are the person, for ever: they are compared letter by letter, and neither is ever given to another.
    """

    issuer: str
    subject: str
    display_name: str | None = None
    """For people; never compared."""
    email: str | None = None
    """Only where the issuer says that it is verified."""
    groups: Sequence[str] = ()
    expires_ms: int | None = None
    """When the proof ends (Unix milliseconds), and the connection with it."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth knowing, without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRefused:
    """The request carries a proof of this authenticator's kind, and it does not hold.

    `reason` is one word of a few, such as `token_expired`; `cure` is one line for people, with nothing of the proof in it.
    """

    reason: str
    cure: str
    guess: bool = True
    """Whether it counts as a wrong try, of which ten lock out."""
    temporary: bool = False
    """Whether the proof may well hold and cannot be checked now, as where keys cannot be fetched: the client is told to come back."""


Proof: TypeAlias = Identity | IdentityRefused | None
"""What an authenticator answers; None means that the request is none of its business."""


class Authenticator(Protocol):
    """Proves identities. Asked once for each WebSocket upgrade and for HTTP requests that need to know."""

    @property
    def id(self) -> str:
        """Names it in the log and among the others, e.g. `acme-badge`."""
        ...

    async def authenticate(self, approach: Approach) -> Proof:
        """Check the proof that the request carries, within five seconds. The first answer that is not None decides."""
        ...
