"""What is known of devices, as values; nothing here changes in place."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openclaw_kernel.api import DeviceClaim, PairingReason, narrowed

PENDING_MS: Final = 300_000
"""For how long a request waits after its device asked last."""
LONGEST_PENDING_MS: Final = 1_800_000
"""For how long it waits at most, however often the device asks."""

_LONGEST_TEXT: Final = 128
_TOKEN_BYTES: Final = 32
_UNSEEN_TOKENS: Final = 2


@dataclass(frozen=True, slots=True)
class Token:
    """A device token, of which only the SHA-256 is kept. `scopes` is None where it has all that its role is approved for.

    `generation` orders it among all that was given and withdrawn; see `withdrawals.py`.
    """

    digest: bytes = field(repr=False)
    scopes: tuple[str, ...] | None
    issued_ms: int
    generation: int
    used: bool = False
    rotated: bool = False
    """Whether a rotation has put another in its place: it still opens, and whoever shows it is told the other."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a device is approved for in one role, and its tokens, oldest first: the one in use, and what was issued since."""

    scopes: tuple[str, ...]
    approved_ms: int
    generation: int
    revoked_ms: int | None = None
    tokens: tuple[Token, ...] = ()

    def find(self, text: str) -> Token | None:
        """The token of this text, compared in constant time."""
        digest = digest_of(text)
        matching = [token for token in self.tokens if hmac.compare_digest(token.digest, digest)]
        return matching[0] if matching else None

    def is_first(self, token: Token) -> bool:
        """Tell whether no other token ends once this one is shown."""
        return self.tokens[0] == token

    def issued(self, token: Token) -> Role:
        """The role with a further token; what was told earlier stays good, within a bound, until a later one is seen."""
        used = [held for held in self.tokens if held.used][-1:]
        unused = [held for held in self.tokens if not held.used][-_UNSEEN_TOKENS:]
        return replace(self, tokens=(*used, *unused, token))

    def rotated(self, token: Token, generation: int) -> Role:
        """The role with a token in the place of the others, which have no more than it and end once it is shown.

        They become of this generation themselves, so that those of an older copy of the database count as withdrawn.
        """
        earlier = [replace(held, scopes=_narrower(held.scopes, token.scopes), generation=generation, rotated=True) for held in self.tokens]
        return replace(self, tokens=tuple(earlier)).issued(token)

    def seen(self, token: Token) -> Role:
        """The role once a token was shown: those issued before it are good no longer."""
        later = self.tokens[self.tokens.index(token) + 1 :]
        return replace(self, tokens=(replace(token, used=True), *later))


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a device says of itself, made short and printable."""

    display_name: str | None
    platform: str
    device_family: str | None
    client_id: str
    client_mode: str
    address: str

    @classmethod
    def of(cls, claim: DeviceClaim) -> About:
        """Take it from a claim."""
        return cls(
            display_name=_short(claim.display_name),
            platform=_short(claim.platform) or "unknown",
            device_family=_short(claim.device_family),
            client_id=claim.client_id,
            client_mode=claim.client_mode,
            address=claim.address,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An approved device. `approved_by` is `person` or `policy`; platform and family are pinned as they were at the approval."""

    device_id: str
    public_key: str
    about: About
    created_ms: int
    approved_ms: int
    approved_by: str
    roles: dict[str, Role]
    generation: int
    label: str | None = None
    """What a person calls it."""

    @property
    def live_roles(self) -> tuple[str, ...]:
        """The roles that were not revoked."""
        return tuple(sorted(name for name, role in self.roles.items() if role.revoked_ms is None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A device that waits for a person; what was asked under one id never changes."""

    request_id: str
    device_id: str
    public_key: str
    role: str
    scopes: tuple[str, ...]
    reason: PairingReason
    about: About
    network: str
    created_ms: int
    refreshed_ms: int

    @property
    def expires_ms(self) -> int:
        """Until when it waits."""
        return min(self.refreshed_ms + PENDING_MS, self.created_ms + LONGEST_PENDING_MS)


def new_token(now_ms: int, scopes: tuple[str, ...] | None, generation: int) -> tuple[str, Token]:
    """A fresh token: its text, which is nowhere kept on disk, and what is kept."""
    text = secrets.token_urlsafe(_TOKEN_BYTES)
    return text, Token(digest_of(text), scopes, now_ms, generation)


def state_of(device: Device | None) -> dict[str, Any] | None:
    """A device as the audit log digests it."""
    if device is None:
        return None
    roles = {
        name: {
            "scopes": list(role.scopes),
            "revoked": role.revoked_ms,
            "tokens": [token.digest.hex() for token in role.tokens],
        }
        for name, role in device.roles.items()
    }
    return {"id": device.device_id, "label": device.label, "platform": device.about.platform, "roles": roles}


def digest_of(text: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def printable(text: str) -> str:
    """What of a text a terminal or a page can show as it is."""
    return "".join(char for char in text if char.isprintable()).strip()


def _narrower(held: tuple[str, ...] | None, limit: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if limit is None or held is None:
        return held if limit is None else limit
    return narrowed(held, limit)


def _short(text: str | None) -> str | None:
    # People read it in terminals and pages, and everybody who lists devices is sent it.
    return printable(text or "")[:_LONGEST_TEXT] or None
