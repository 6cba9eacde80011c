"""Where the gateway listens, and how it knows people."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openclaw_kernel.api import CheckContext, Finding, Fix, SecretSlot, Severity, WriteFile
from openclaw_plugins.security.table import Table

TABLE: Final = Table()

_ADMIN: Final = "operator.admin"
_NARROW: Final = {4: 24, 6: 64}
"""Networks with a shorter prefix are more than the proxies of one place."""


@TABLE.add("gateway.bind.open", "the gateway listens on every address", Severity.CRITICAL)
def bind_open(context: CheckContext) -> Iterator[Finding]:
    gateway = context.config.gateway
    if gateway.bind == "loopback":
        return
    if gateway.auth.mode == "none":
        severity, why = Severity.CRITICAL, "and asks nobody for a credential"
    elif not (gateway.tls.enabled or gateway.trusted_proxies):
        severity, why = Severity.CRITICAL, "and nothing encrypts what is sent"
    else:
        severity, why = Severity.INFO, "where everybody in reach can try a credential"
    yield Finding(
        severity=severity,
        where="gateway.bind",
        evidence=f"it is {gateway.bind}: the gateway listens on every address, {why}",
        cure="set gateway.bind to loopback and reach it through a proxy or a tunnel, or keep a firewall before it",
    )


@TABLE.add("gateway.auth.none", "no credential is asked for", Severity.CRITICAL)
def auth_none(context: CheckContext) -> Iterator[Finding]:
    if context.config.gateway.auth.mode != "none":
        return
    others = len(context.machine.login_users) > 1
    yield Finding(
        severity=Severity.CRITICAL if others or context.config.gateway.bind != "loopback" else Severity.WARN,
        where="gateway.auth.mode",
        evidence=f"it is none: every program of {'every user' if others else 'every kind'} on this machine is let in as its owner",
        cure="set it to token",
    )


@TABLE.add("gateway.auth.weak", "the gateway's secret is easily guessed", Severity.CRITICAL, fixes=True)
def auth_weak(context: CheckContext) -> Iterator[Finding]:
    gateway = context.config.gateway
    for slot in context.secrets:
        if slot.key[:2] != ("gateway", "auth") or slot.weakness is None:
            continue
        name = str(slot.key[-1])
        yield Finding(
            severity=Severity.WARN if gateway.bind == "loopback" else Severity.CRITICAL,
            where=".".join(map(str, slot.key)),
            evidence=f"the {name} is {slot.weakness}",
            cure='make another, e.g. with python3 -c "import secrets; print(secrets.token_urlsafe(32))", and restart the gateway',
            fix=_another(context, slot) if name == "token" else None,
        )


def _another(context: CheckContext, slot: SecretSlot) -> Fix | None:
    path = None if slot.target is None else context.home / Path(slot.target).expanduser()
    if slot.kind != "file" or path is None or ".." in path.parts or not path.is_relative_to(context.home):
        return None
    told = "a new random token of 43 characters in place of the one that is there (neither is shown)"
    return Fix(
        summary="make a new token",
        changes=(WriteFile(path=path, text=f"{secrets.token_urlsafe(32)}\n", told=told),),
        consequence="after the next restart programs with the old token and pages that are signed in are cut off; paired devices are not",
    )


@TABLE.add("gateway.pairing.local", "devices of this machine are approved without a person", Severity.WARN)
def pairing_local(context: CheckContext) -> Iterator[Finding]:
    gateway, users = context.config.gateway, context.machine.login_users
    if gateway.pairing.local != "auto" or len(users) < 2:  # noqa: PLR2004 - one is the owner
        return
    yield Finding(
        severity=Severity.WARN if gateway.auth.mode == "none" else Severity.INFO,
        where="gateway.pairing.local",
        evidence=f"it is auto, and {len(users)} people can log in here: who of them gets at the gateway's secret has a device at once",
        cure="set gateway.pairing.local to ask",
    )


@TABLE.add("gateway.proxies.wide", "too many are believed to be proxies", Severity.CRITICAL)
def proxies_wide(context: CheckContext) -> Iterator[Finding]:
    gateway = context.config.gateway
    for index, text in enumerate(gateway.trusted_proxies):
        network = ipaddress.ip_network(text, strict=False)
        if network.prefixlen >= _NARROW[network.version]:
            continue
        yield Finding(
            severity=Severity.CRITICAL if gateway.auth.mode == "trusted-proxy" else Severity.WARN,
            where=f"gateway.trustedProxies.{index}",
            evidence=f"{text} is {network.num_addresses} addresses, each of which may say for whom it speaks",
            cure="list the proxy's own address",
        )


@TABLE.add("gateway.proxies.loopback", "every program of this machine may speak as a proxy", Severity.INFO)
def proxies_loopback(context: CheckContext) -> Iterator[Finding]:
    found = [text for text in context.config.gateway.trusted_proxies if ipaddress.ip_network(text, strict=False).is_loopback]
    if found:
        yield Finding(
            severity=Severity.INFO,
            where="gateway.trustedProxies",
            evidence=f"{found[0]} is this machine: every program on it can give its requests another address, for limits and the log",
            cure="run the proxy on another machine, or let nobody else run programs here",
        )


@TABLE.add("gateway.trusted-proxy.loopback", "every program of this machine may name a user", Severity.WARN)
def trusted_loopback(context: CheckContext) -> Iterator[Finding]:
    auth = context.config.gateway.auth
    if auth.mode == "trusted-proxy" and auth.trusted_proxy.allow_loopback:
        yield Finding(
            severity=Severity.WARN,
            where="gateway.auth.trustedProxy.allowLoopback",
            evidence="it is true: every program on this machine can name any user, tools of agents included",
            cure="run the proxy on another machine and set it to false, or require a header that only the proxy knows",
        )


@TABLE.add("gateway.trusted-proxy.headers", "the proxy proves nothing beside its address", Severity.WARN)
def trusted_headers(context: CheckContext) -> Iterator[Finding]:
    auth = context.config.gateway.auth
    if auth.mode == "trusted-proxy" and not auth.trusted_proxy.required_headers:
        yield Finding(
            severity=Severity.WARN,
            where="gateway.auth.trustedProxy.requiredHeaders",
            evidence="none is required: whoever speaks from the proxy's address, past its sign-on, can name any user",
            cure="name a header that the proxy sets after its sign-on and removes from what clients send",
        )


@TABLE.add("gateway.trusted-proxy.users", "everybody whom the proxy names is let in", Severity.WARN)
def trusted_users(context: CheckContext) -> Iterator[Finding]:
    auth = context.config.gateway.auth
    limited = any(grant.issuer == "trusted-proxy" for grant in auth.identities)
    if auth.mode == "trusted-proxy" and auth.trusted_proxy.allow_users is None and not limited:
        yield Finding(
            severity=Severity.WARN,
            where="gateway.auth.trustedProxy.allowUsers",
            evidence="it is not set: everybody who can sign on at the proxy may do everything here",
            cure="list the users, or say in gateway.auth.identities what those of the issuer trusted-proxy may do",
        )


@TABLE.add("gateway.identities.wide", "an identity map covers everybody of an issuer", Severity.CRITICAL)
def identities_wide(context: CheckContext) -> Iterator[Finding]:
    for index, grant in enumerate(context.config.gateway.auth.identities):
        if grant.subject != "*":
            continue
        yield Finding(
            severity=Severity.CRITICAL if _ADMIN in grant.scopes else Severity.WARN,
            where=f"gateway.auth.identities.{index}",
            evidence=f"everybody whom {grant.issuer} names may do {', '.join(grant.scopes)}",
            cure="name subjects, or a group of the issuer",
        )


@TABLE.add("gateway.identities.email", "people are known by an address that may become somebody else's", Severity.INFO)
def identities_email(context: CheckContext) -> Iterator[Finding]:
    for index, grant in enumerate(context.config.gateway.auth.identities):
        if grant.email is not None and _ADMIN in grant.scopes:
            yield Finding(
                severity=Severity.INFO,
                where=f"gateway.auth.identities.{index}.email",
                evidence="who has this address at the issuer may do everything, and addresses are given to others",
                cure="name the subject, the issuer's id of the person",
            )


@TABLE.add("gateway.origins.any", "pages of every origin may open the WebSocket", Severity.CRITICAL)
def origins_any(context: CheckContext) -> Iterator[Finding]:
    for index, origin in enumerate(context.config.gateway.control_ui.allowed_origins):
        if origin in {"*", "null"}:
            yield Finding(
                severity=Severity.CRITICAL,
                where=f"gateway.controlUi.allowedOrigins.{index}",
                evidence=f"it is {origin!r}: every page that somebody opens in a browser here may try the gateway",
                cure="list the origins of your own pages, e.g. https://chat.example.org",
            )


@TABLE.add("gateway.origins.plain", "a page that is sent unencrypted may open the WebSocket", Severity.WARN)
def origins_plain(context: CheckContext) -> Iterator[Finding]:
    for index, origin in enumerate(context.config.gateway.control_ui.allowed_origins):
        if origin.lower().startswith("http://") and not is_local(origin):
            yield Finding(
                severity=Severity.WARN,
                where=f"gateway.controlUi.allowedOrigins.{index}",
                evidence=f"{origin} is sent unencrypted: whoever is on its way puts another page in its place",
                cure="serve the page over https, and list that",
            )


@TABLE.add("gateway.tls.missing", "credentials leave this machine unencrypted", Severity.WARN)
def tls_missing(context: CheckContext) -> Iterator[Finding]:
    gateway = context.config.gateway
    outside = [text for text in gateway.trusted_proxies if not ipaddress.ip_network(text, strict=False).is_loopback]
    if gateway.bind != "loopback" and not gateway.tls.enabled and outside:
        yield Finding(
            severity=Severity.WARN,
            where="gateway.tls.enabled",
            evidence=f"it is false: between the proxy ({outside[0]}) and this machine everything is sent in plain text",
            cure="set gateway.tls.enabled to true, and let the proxy speak https to it",
        )


@TABLE.add("gateway.tls.clients", "a client certificate grants everything by a name", Severity.WARN)
def tls_clients(context: CheckContext) -> Iterator[Finding]:
    for index, client in enumerate(context.config.gateway.tls.clients):
        if client.fingerprint is None and _ADMIN in client.scopes:
            yield Finding(
                severity=Severity.WARN,
                where=f"gateway.tls.clients.{index}",
                evidence="whoever the authority of caPath gives a certificate with this name may do everything",
                cure="name the certificate by its fingerprint, or give it fewer scopes",
            )


def tls_paths(context: CheckContext) -> tuple[Path, Path]:
    """Certificate and key, given or made by the gateway."""
    tls = context.config.gateway.tls
    folder = context.home / "tls"
    certificate = folder / "gateway-cert.pem" if tls.cert_path is None else context.home / Path(tls.cert_path).expanduser()
    key = folder / "gateway-key.pem" if tls.key_path is None else context.home / Path(tls.key_path).expanduser()
    return certificate, key


def is_local(url: str) -> bool:
    """Whether a URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
