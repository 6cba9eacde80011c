"""Whose connections end when the settings of who may connect change. Pure."""

from __future__ import annotations

from openclaw_config.models import Gateway, GatewayAuth
from openclaw_config.secrets import Secret
from openclaw_kernel.protocol.auth import CERTIFICATE, IDENTITY, TRUSTED_PROXY

_BY_SECRET = frozenset({"token", "password", "page"})


def methods_ended(before: Gateway, after: Gateway) -> frozenset[str]:
    """Return the methods of `Verified` whose proofs do not hold any more.

    The tokens of devices are no part of the configuration and hold.
    """
    old, new = before.auth, after.auth
    ended: set[str] = set()
    if old.mode != new.mode:
        ended |= {*_BY_SECRET, "none", TRUSTED_PROXY}
    elif _secret(old) != _secret(new):
        ended |= _BY_SECRET
    if (old.trusted_proxy, old.identities, before.trusted_proxies) != (new.trusted_proxy, new.identities, after.trusted_proxies):
        ended.add(TRUSTED_PROXY)
    if old.identities != new.identities:
        ended.add(IDENTITY)
    if before.tls.clients != after.tls.clients:
        ended.add(CERTIFICATE)
    return frozenset(ended)


def _secret(auth: GatewayAuth) -> Secret | None:
    return {"token": auth.token, "password": auth.password, TRUSTED_PROXY: auth.token or auth.password}.get(auth.mode)
