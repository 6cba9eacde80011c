"""Which address a URL really means, and whether it may be connected to. Pure.

A URL is read once, by the parser that also writes the request, and rebuilt from what was read: nothing else is connected to.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from yarl import URL

from openclaw_kernel.api import ToolError

_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]")
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*)(?:\.[a-z0-9_-]+)*")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

_REFUSED_4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",  # metadata of one cloud, on an address that is public elsewhere
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_REFUSED_PORTS: Final = frozenset(
    # Where something else than the web listens, which might take a request for its own protocol: the list browsers keep.
    map(
        int,
        "1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119 123 135 137 139 143"
        " 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989 990 993 995 1719 1720 1723 2049 3659"
        " 4045 4190 5060 5061 6000 6379 6566 6665 6666 6667 6668 6669 6679 6697 10080".split(),
    )
)
_GLOBAL_6: Final = ipaddress.IPv6Network("2000::/3")
_REFUSED_6: Final = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")),
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request goes. `address` is set where the host is one; `trusted` where the owner listed it."""

    url: URL
    host: str
    port: int
    address: str | None
    trusted: bool


def read_url(text: str, *, trusted: Collection[str] = ()) -> Place:
    """Return the place a URL means; raise `ToolError` for one that cannot be fetched. `trusted` holds `host:port`."""
    text = text.strip()
    if _UNSAFE.search(text):
        raise ToolError("the url holds a space, a control character or a backslash; percent-encode it")
    try:
        url = URL(text)
        port = url.port
        raw_host = url.raw_host
    except ValueError as error:
        raise ToolError(f"the url cannot be read: {error}") from error
    if url.scheme not in ("http", "https"):
        raise ToolError(f"only http and https are fetched, not {url.scheme or 'a url without a scheme'}")
    if "@" in url.raw_authority:
        raise ToolError("a url with a user name or password is not fetched; leave them out")
    if not raw_host or not port:
        raise ToolError("the url names no host or no port; write it like https://example.org/page")
    host, address = _canonical(raw_host)
    is_trusted = f"{host}:{port}" in trusted
    if port in _REFUSED_PORTS and not is_trusted:
        raise ToolError(f"port {port} is not a web server's; nothing is fetched from it")
    return Place(
        url=url.with_host(host).with_fragment(None),
        host=host,
        port=port,
        address=address,
        trusted=is_trusted,
    )


def _canonical(raw: str) -> tuple[str, str | None]:
    """Return the host in its one form, and the address if it is one in any of its spellings."""
    host = raw.lower().rstrip(".")
    if ":" in host and "%" not in host:
        try:
            address = str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise ToolError(f"the host {raw!r} is not an address") from error
        return address, address
    if not _NAME.fullmatch(host):
        raise ToolError(f"the host {raw!r} is not a name")
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return host, None
    try:
        # The old spellings (127.1, 0x7f.1, 2130706433), as resolvers still read them.
        address = socket.inet_ntoa(socket.inet_aton(host))
    except OSError as error:
        raise ToolError(f"the host {raw!r} is not an address") from error
    return address, address


def refusal(address: str) -> str | None:
    """Return why an address may not be connected to, None for a public one."""
    ip = ipaddress.ip_address(address)
    public = _is_public_4(ip) if isinstance(ip, ipaddress.IPv4Address) else _is_public_6(ip)
    return None if public else f"{address} is not a public address"


def _is_public_4(ip: ipaddress.IPv4Address) -> bool:
    return ip.is_global and not any(ip in network for network in _REFUSED_4)


def _is_public_6(ip: ipaddress.IPv6Address) -> bool:
    """Judge addresses that carry an IPv4 address by that one."""
    if ip.scope_id is not None:
        return False
    low = int(ip) & 0xFFFF_FFFF
    embedded = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(low) if ip in _NAT64 else None)
    if embedded is not None:
        return _is_public_4(embedded)
    if (int(ip) >> 32) & 0xFFFF_FFFF in _ISATAP and not _is_public_4(ipaddress.IPv4Address(low)):
        return False
    return ip in _GLOBAL_6 and ip.is_global and not any(ip in network for network in _REFUSED_6)
