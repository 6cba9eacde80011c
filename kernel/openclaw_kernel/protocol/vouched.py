"""Whom a trusted proxy vouches for (`gateway.auth.mode: trusted-proxy`), and what people may do whom others vouch for. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from openclaw_config.models import IdentityGrant, TrustedProxyAuth
from openclaw_kernel.api.authenticator import Identity
from openclaw_kernel.api.scopes import effective_scopes
from openclaw_kernel.protocol.origin import is_loopback
from openclaw_kernel.protocol.proxy import Arrival, values_of

SCOPES_HEADER: Final = "x-openclaw-scopes"
UNTRUSTED_SOURCE: Final = "trusted_proxy_untrusted_source"
LOOPBACK_SOURCE: Final = "trusted_proxy_loopback_source"
MISSING_HEADER: Final = "trusted_proxy_missing_header_"
AMBIGUOUS_HEADER: Final = "trusted_proxy_ambiguous_header"
USER_NOT_ALLOWED: Final = "trusted_proxy_user_not_allowed"
_EVERYBODY: Final = "*"
_LONGEST_USER: Final = 256


@dataclass(frozen=True, slots=True)
class Vouched:
    """A user by the word of a trusted proxy."""

    user: str
    cap: frozenset[str] | None = None
    """The scopes beyond which the proxy lets nobody; None where it sets no bound."""


def read_user(settings: TrustedProxyAuth, arrival: Arrival, headers: Mapping[str, str]) -> Vouched | str:
    """Return whom the peer vouches for, or the reason why nobody is believed."""
    if not arrival.trusted:
        return UNTRUSTED_SOURCE
    if is_loopback(arrival.peer) and not settings.allow_loopback:
        return LOOPBACK_SOURCE
    # Only what HTTP calls blank: with any other the user is another one.
    lines = [(name.lower(), value.strip(" \t")) for name, value in headers.items()]
    user_header = (settings.user_header or "").lower()
    for name in (*(name.lower() for name in settings.required_headers), user_header):
        if not any(values_of(lines, name)):
            return f"{MISSING_HEADER}{name}"
    users = values_of(lines, user_header)
    user = users[0]
    # Of two values one may be the client's own.
    if len(users) != 1 or len(user) > _LONGEST_USER or not user.isprintable():
        return AMBIGUOUS_HEADER
    if settings.allow_users is not None and user not in settings.allow_users:
        return USER_NOT_ALLOWED
    return Vouched(user, read_cap(values_of(lines, SCOPES_HEADER)))


def read_cap(lines: Iterable[str]) -> frozenset[str] | None:
    """The scopes that every line of the header leaves; an empty one leaves none."""
    caps = [effective_scopes(text.strip() for text in line.split(",")) for line in lines]
    return frozenset.intersection(*caps) if caps else None


def granted_to(entries: Iterable[IdentityGrant], identity: Identity) -> frozenset[str]:
    """What the configuration gives somebody: the scopes of every entry that fits."""
    return frozenset(scope for entry in entries if _fits(entry, identity) for scope in entry.scopes)


def _fits(entry: IdentityGrant, identity: Identity) -> bool:
    # Equality alone, and of everything that the entry names: no case, no part, no pattern.
    return (
        entry.issuer == identity.issuer
        and entry.subject in {None, _EVERYBODY, identity.subject}
        and (entry.email is None or entry.email == identity.email)
        and (entry.group is None or entry.group in identity.groups)
    )
