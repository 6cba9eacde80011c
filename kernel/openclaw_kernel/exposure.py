"""What a start refuses because it would open the door: where the gateway listens against how it knows people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openclaw_config.models import Gateway
from openclaw_kernel.api.strength import SHORTEST, weakness_of_secret
from openclaw_kernel.protocol.origin import is_loopback
from openclaw_kernel.protocol.proxy import read_network

_STRONG: Final = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'


@dataclass(frozen=True, slots=True)
class Refusal:
    """The key that is wrong, what was found there, and the cure."""

    key: str
    found: str
    cure: str


def refusal_of(gateway: Gateway, *, listens_at: str | None = None) -> Refusal | None:
    """Why this configuration may not be served; None where it may. `listens_at` is an address beyond loopback that was given to us."""
    if gateway.mode == "remote":
        found = "remote, which only says where the command line finds a gateway"
        return Refusal("gateway.mode", found, "use local to run one here")
    bind = None if gateway.bind == "loopback" else f"gateway.bind is {gateway.bind}"
    beyond = bind if listens_at is None else f"the socket that was passed listens at {listens_at}"
    return _credential(gateway) or _proxy(gateway) or (None if beyond is None else _beyond_loopback(gateway, beyond))


def _credential(gateway: Gateway) -> Refusal | None:
    auth = gateway.auth
    if auth.mode in {"token", "password"} and not (auth.token if auth.mode == "token" else auth.password):
        return Refusal(f"gateway.auth.{auth.mode}", "not set", f"set it, e.g. to ${{file:gateway.token}}; auth.mode is {auth.mode}")
    return None


def _proxy(gateway: Gateway) -> Refusal | None:
    if gateway.auth.mode != "trusted-proxy":
        return None
    if not gateway.trusted_proxies:
        return Refusal("gateway.trustedProxies", "empty, while gateway.auth.mode is trusted-proxy", "list the address of your proxy")
    settings = gateway.auth.trusted_proxy
    if settings.user_header is None:
        cure = "name the header in which the proxy names the user, e.g. X-Forwarded-User"
        return Refusal("gateway.auth.trustedProxy.userHeader", "not set", cure)
    networks = [read_network(text) for text in gateway.trusted_proxies]
    if not settings.allow_loopback and all(is_loopback(str(network.network_address)) for network in networks):
        cure = "set it to true, which lets every program on this machine name a user; or list a proxy on another machine"
        return Refusal("gateway.auth.trustedProxy.allowLoopback", "false, while all gateway.trustedProxies are on this machine", cure)
    return None


def _beyond_loopback(gateway: Gateway, beyond: str) -> Refusal | None:
    auth = gateway.auth
    if auth.mode == "none":
        return Refusal("gateway.auth.mode", f"none, while {beyond}", "use token or password, or bind to loopback")
    if not (gateway.trusted_proxies or gateway.tls.enabled):
        cure = "set gateway.tls.enabled to true, list the proxy that does TLS in gateway.trustedProxies, or bind to loopback"
        found = gateway.bind if gateway.bind != "loopback" else f"{gateway.bind}, but {beyond}"
        return Refusal("gateway.bind", f"{found}, with nothing that encrypts", cure)
    secret = {"token": auth.token, "password": auth.password}.get(auth.mode)
    weakness = weakness_of_secret(secret.unwrap()) if secret is not None else None
    if weakness is not None:
        cure = f"make one of {SHORTEST} characters or more, e.g. with {_STRONG}, or bind to loopback"
        return Refusal(f"gateway.auth.{auth.mode}", f"{weakness}, while {beyond}", cure)
    return None
