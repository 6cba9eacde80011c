"""Which browser pages may talk to the gateway, and who counts as a direct local peer."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

_FORWARDED: Final = (
    "x-original-",
    "x-envoy-",
    "x-arr-",
    "x-azure-",
    "cf-",
    "fly-",
    "fastly-",
    "ngrok-",
    "tailscale-",
    "via",
)
"""How the names of headers begin that proxies and tunnels add."""
_FORWARDING_WORDS: Final = ("forward", "proxy", "client-ip", "clientip", "real-ip", "remote-", "originating-")
"""What such names have in them, whoever's they are."""
_LOCAL_NAMES: Final = frozenset({"localhost"})
_PRIVATE_SUFFIXES: Final = (".local", ".ts.net")


def is_loopback(address: str) -> bool:
    """Tell whether an IP address is loopback, IPv4-mapped ones included."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def forwarding_headers(headers: Iterable[str]) -> tuple[str, ...]:
    """Those of these names, in lower case, that proxies and tunnels add."""
    return tuple(sorted({name.lower() for name in headers if _is_forwarding(name)}))


def is_direct_local(address: str, headers: Mapping[str, str]) -> bool:
    """Tell whether the peer is loopback itself, with nobody forwarding for somebody else.

    Who asked for another host than this machine came through something that says nothing of itself.
    """
    if not is_loopback(address) or forwarding_headers(headers):
        return False
    host = headers.get("Host")
    return host is not None and is_loopback_host(host)


def _is_forwarding(name: str) -> bool:
    plain = name.lower().replace("_", "-")
    return plain.startswith(_FORWARDED) or any(word in plain for word in _FORWARDING_WORDS)


def _is_private_host(host: str) -> bool:
    if host in _LOCAL_NAMES or host.endswith(_PRIVATE_SUFFIXES):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_private or ip.is_link_local


def origin_allowed(origin: str, host_header: str | None, allowed: Collection[str], *, local_peer: bool, secure: bool = False) -> bool:
    """Decide on a browser's Origin.

    Allowed are the exact origins of `gateway.controlUi.allowedOrigins` (`*` for any), the page's own host where that host is local or
    private or was reached over TLS (any other public name that resolves here may be a rebinding attack; with TLS its certificate would
    not fit), and a loopback page of this machine. `secure` tells that the browser came over TLS to `host_header`; its own page is then
    an https one, for an http one of that name can be anybody's on the way.
    """
    if "*" in allowed or origin.rstrip("/") in {entry.rstrip("/") for entry in allowed}:
        return True
    try:
        parts = urlsplit(origin)
        host = parts.hostname
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or not host or parts.path or parts.query or parts.username is not None:
        return False
    netloc = f"[{host}]" if ":" in host else host
    written = netloc if port is None else f"{netloc}:{port}"
    if host_header is None:
        return False
    if secure:
        own = parts.scheme == "https" and written == host_header.lower().removesuffix(":443")
    else:
        own = written == host_header.lower() and _is_private_host(host)
    if own:
        return True
    return local_peer and (host in _LOCAL_NAMES or is_loopback(host)) and is_loopback_host(host_header)


def is_loopback_host(host_header: str) -> bool:
    """Tell whether a Host header names this machine by a name of loopback."""
    try:
        host = urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return False
    return host in _LOCAL_NAMES or is_loopback(host)
