"""The address that a setup code leads to."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from openclaw_kernel.api import InvalidRequest

_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_ELSEWHERE: Final = ("192.0.2.1", 9)
"""An address that belongs to nobody (RFC 5737): asking for the way there sends nothing."""


@dataclass(frozen=True, slots=True)
class Address:
    """A WebSocket URL, and where it comes from in a word."""

    url: str
    source: str

    @property
    def is_safe(self) -> bool:
        """Whether nobody on the way can read along."""
        parts = urlsplit(self.url)
        return parts.scheme == "wss" or _is_loopback(parts.hostname or "")


def choose(public_url: str | None, own_url: str, *, bind: str) -> Address:
    """The address for a device: what the caller says, else the gateway's own; raise `InvalidRequest` for what is none."""
    if public_url is not None:
        return Address(_websocket(public_url), "request.publicUrl")
    parts = urlsplit(_websocket(own_url))
    host = _own_host() if bind == "lan" else None
    if host is None:
        return Address(urlunsplit(parts), "gateway.bind=loopback")
    return Address(urlunsplit(parts._replace(netloc=f"{host}:{parts.port}")), "gateway.bind=lan")


def _websocket(url: str) -> str:
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRequest(f"publicUrl: found {url[:200]!r}; give an address such as wss://gateway.example.org") from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        text = f"publicUrl: found {url[:200]!r}; give an address such as wss://gateway.example.org, without user, query and fragment"
        raise InvalidRequest(text)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return urlunsplit((scheme, host if port is None else f"{host}:{port}", parts.path.rstrip("/"), "", ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_host() -> str | None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_ELSEWHERE)
            return str(probe.getsockname()[0])
    except OSError:
        return None
