"""The section `plugins.entries.jwt-identity.config`: whose tokens are believed, and where they are found."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from openclaw_kernel.api import PluginSettings

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures with a key pair alone: who can check a token cannot make one."""

GOOGLE_IAP: Final = "https://cloud.google.com/iap"


def is_safe_url(url: str) -> bool:
    """Tell whether keys that come from there prove something: over TLS, or from this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _safe_url(url: str) -> str:
    if not is_safe_url(url):
        raise PydanticCustomError("url", "write it as https://HOST/PATH; what came over plain http proves nothing")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Url = Annotated[str, Field(max_length=2_048), AfterValidator(_safe_url)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Claim = Annotated[str, Field(min_length=1, max_length=128)]


class IssuerSettings(PluginSettings):
    preset: Literal["cloudflare-access", "google-iap", "oidc"] = "oidc"
    """Where the token and its keys are found: `cloudflare-access` (Cf-Access-Jwt-Assertion), `google-iap` (X-Goog-IAP-JWT-Assertion) or
    `oidc` (Authorization: Bearer, and what the issuer publishes of itself)."""
    issuer: Url | None = None
    """The claim `iss`, exactly: for Cloudflare `https://TEAM.cloudflareaccess.com`; not needed for Google's IAP."""
    audience: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    """The claim `aud`: the tag or id of this application at the issuer, one of those listed."""
    header: HeaderName | None = None
    """Another header that has the token, e.g. `X-Forwarded-Access-Token`."""
    jwks_url: Url | None = None
    """Where the issuer's keys are, if not where the preset says."""
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] | None = None
    """Signatures that are accepted; unset means those of the preset."""
    subject_claim: Claim = "sub"
    """The claim with the id of the person, which is never given to another."""
    name_claim: Claim = "name"
    """The claim with a name to show."""
    groups_claim: Claim = "groups"
    """The claim with a list of groups."""
    require_email_verified: bool | None = None
    """Whether an address counts only beside `email_verified: true`; unset means where the preset is `oidc`."""

    @model_validator(mode="after")
    def _has_issuer(self) -> IssuerSettings:
        if self.issuer is None and self.preset != "google-iap":
            raise PydanticCustomError("issuer", "issuer is missing; set the iss of the tokens")
        return self


class JwtIdentitySettings(PluginSettings):
    issuers: list[IssuerSettings] = []
    """Whose tokens are believed; none means that the plugin does nothing."""
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 30
    """How far the issuer's clock may be from ours."""
    keys_seconds: Annotated[int, Field(ge=10, le=86_400)] = 600
    """How long fetched keys are used before they are fetched again."""
    keys_kept_seconds: Annotated[int, Field(ge=0, le=604_800)] = 86_400
    """How much longer they are used while the issuer does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One issuer with everything that its preset says."""

    issuer: str
    audience: tuple[str, ...]
    header: str
    jwks_url: str | None
    """None: as the issuer's own `.well-known/openid-configuration` says."""
    algorithms: tuple[str, ...]
    subject_claim: str
    name_claim: str
    groups_claim: str
    require_email_verified: bool


def resolve(settings: IssuerSettings) -> Issuer:
    """Fill in what the preset says."""
    issuer = (settings.issuer or GOOGLE_IAP).rstrip("/") if settings.preset != "oidc" else settings.issuer or ""
    header, jwks_url, algorithms = {
        "cloudflare-access": ("Cf-Access-Jwt-Assertion", f"{issuer}/cdn-cgi/access/certs", ("RS256",)),
        "google-iap": ("X-Goog-IAP-JWT-Assertion", "https://www.gstatic.com/iap/verify/public_key-jwk", ("ES256",)),
        "oidc": ("Authorization", None, ("RS256", "ES256", "PS256", "EdDSA")),
    }[settings.preset]
    verified = settings.require_email_verified
    return Issuer(
        issuer=issuer,
        audience=tuple(settings.audience),
        header=settings.header or header,
        jwks_url=settings.jwks_url or jwks_url,
        algorithms=tuple(settings.algorithms or algorithms),
        subject_claim=settings.subject_claim,
        name_claim=settings.name_claim,
        groups_claim=settings.groups_claim,
        require_email_verified=settings.preset == "oidc" if verified is None else verified,
    )
