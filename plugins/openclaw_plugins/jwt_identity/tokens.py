"""Tokens and keys, pure: what a token says of itself, which key fits it, and whether it holds. The only module that knows PyJWT."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from openclaw_kernel.api import Identity, IdentityRefused
from openclaw_plugins.jwt_identity.settings import Issuer

LONGEST: Final = 16_384
_SMALLEST_RSA_BITS: Final = 2048
_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_REASONS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (jwt.ExpiredSignatureError, "token_expired", "sign in anew, and compare the clocks of gateway and issuer"),
    (jwt.ImmatureSignatureError, "token_not_yet_valid", "compare the clocks of gateway and issuer"),
    (jwt.InvalidIssuedAtError, "token_not_yet_valid", "compare the clocks of gateway and issuer"),
    (jwt.InvalidAudienceError, "audience_mismatch", "the token is for another application; compare audience with the issuer's"),
    (jwt.InvalidIssuerError, "issuer_mismatch", "compare issuer with the iss of the tokens"),
    (jwt.MissingRequiredClaimError, "claim_missing", "let the issuer put exp, iss, aud and the subject into its tokens"),
    (jwt.InvalidSignatureError, "signature_invalid", "the token was not made by this issuer"),
)
_OUT_OF_TIME: Final = frozenset({"token_expired", "token_not_yet_valid"})
_SHOWN_CLAIMS: Final = ("azp", "hd", "amr", "acr")


@dataclass(frozen=True, slots=True)
class Told:
    """What a token says of itself, before anything is checked."""

    text: str
    algorithm: str
    key_id: str | None
    issuer: str | None


@dataclass(frozen=True, slots=True)
class Key:
    """A public key for signatures."""

    key_id: str | None
    kind: str
    algorithm: str | None
    key: Any

    def fits(self, told: Told) -> bool:
        """Tell whether a token of this algorithm may be signed with it."""
        if self.kind != _KEY_TYPES.get(told.algorithm[:2]) or self.algorithm not in {None, told.algorithm}:
            return False
        return self.kind != "EC" or self.key.curve.name == _CURVES.get(told.algorithm)


def peek(text: str) -> Told | None:
    """Read a token without believing it; None where it is none."""
    parts = text.split(".")
    if len(text) > LONGEST or len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        return None
    header, claims = _part(parts[0]), _part(parts[1])
    if header is None or claims is None or "crit" in header:
        return None
    algorithm, key_id, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
        return None
    return Told(text, algorithm, key_id, issuer if isinstance(issuer, str) else None)


def read_keys(document: object) -> list[Key]:
    """The keys of a JWKS document that may sign tokens; raise `ValueError` where it is no such document."""
    items = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise ValueError("it is no JWKS document")
    return [key for item in items if isinstance(item, dict) and (key := _read_key(item)) is not None]


def choose(keys: list[Key], told: Told) -> Key | None:
    """The key that a token names; where it names none, the only one that fits."""
    fitting = [key for key in keys if key.fits(told) and told.key_id in {None, key.key_id}]
    return fitting[0] if len(fitting) == 1 else None


def check(told: Told, key: Key, issuer: Issuer, leeway: float) -> Identity | IdentityRefused:
    """Check signature and claims with a key that fits."""
    try:
        # A time that is no number a clock can show ends here too.
        return _identity(_claims(told, key, issuer, leeway), issuer)
    except (jwt.PyJWTError, OverflowError) as error:
        for kind, reason, cure in _REASONS:
            if isinstance(error, kind):
                # The signature was checked before the clock: who has such a token guessed nothing.
                return IdentityRefused(reason=reason, cure=cure, guess=reason not in _OUT_OF_TIME)
        return IdentityRefused(reason="token_invalid", cure="the token cannot be read; see what sends it")


def _claims(told: Told, key: Key, issuer: Issuer, leeway: float) -> dict[str, Any]:
    return jwt.decode(
        told.text,
        key.key,
        algorithms=list(issuer.algorithms),
        audience=list(issuer.audience),
        issuer=issuer.issuer,
        leeway=leeway,
        options={"require": ["exp", "iss", "aud", issuer.subject_claim]},
    )


def refused_algorithm(told: Told, issuer: Issuer) -> IdentityRefused | None:
    """The refusal of an algorithm that is not accepted, before a key is sought."""
    if told.algorithm in issuer.algorithms:
        return None
    shown = told.algorithm if told.algorithm.isalnum() and len(told.algorithm) < 12 else "this"  # noqa: PLR2004 - longer than the name of any algorithm
    return IdentityRefused(reason="algorithm_refused", cure=f"{shown} is not accepted; see algorithms in the plugin's section")


def _identity(claims: Mapping[str, Any], issuer: Issuer) -> Identity | IdentityRefused:
    subject = claims.get(issuer.subject_claim)
    if not isinstance(subject, str) or not subject:
        return IdentityRefused(reason="claim_missing", cure=f"the claim {issuer.subject_claim} names nobody; set subjectClaim")
    email = claims.get("email")
    verified = claims.get("email_verified") is True or (not issuer.require_email_verified and "email_verified" not in claims)
    groups, name = claims.get(issuer.groups_claim), claims.get(issuer.name_claim)
    return Identity(
        issuer=issuer.issuer,
        subject=subject,
        display_name=name if isinstance(name, str) else None,
        email=email if isinstance(email, str) and email and verified else None,
        groups=tuple(group for group in groups if isinstance(group, str)) if isinstance(groups, list) else (),
        expires_ms=int(float(claims["exp"]) * 1000),
        claims={name: claims[name] for name in _SHOWN_CLAIMS if name in claims},
    )


def _part(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_key(item: dict[str, Any]) -> Key | None:
    kind, key_id, algorithm = item.get("kty"), item.get("kid"), item.get("alg")
    # A secret has no place in a public document, and could be signed with by whoever reads it.
    if kind not in {"RSA", "EC", "OKP"} or item.get("use", "sig") != "sig" or not isinstance(key_id, str | None):
        return None
    try:
        key = jwt.PyJWK(item, algorithm if isinstance(algorithm, str) else None).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, NotImplementedError):
        # PyJWT has no word of its own for a key of the algorithm `none`.
        return None
    if hasattr(key, "private_bytes") or not isinstance(algorithm, str | None):
        return None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _SMALLEST_RSA_BITS:
        return None
    if kind == "EC" and not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    return Key(key_id, kind, algorithm, key)
