"""Where a request comes from: its peer, and what the proxies that the owner trusts say of the client behind it. No I/O.

What is found here is counted by the limits and written into the log; it proves nothing and grants nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from openclaw_kernel.protocol.limiter import Caller
from openclaw_kernel.protocol.origin import forwarding_headers, is_direct_local

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Headers: TypeAlias = Sequence[tuple[str, str]]
"""Names in lower case with their values, in the order in which they came."""

HOPS: Final = 32
"""How many proxies one behind the other are followed."""
_PAIRS: Final = 8 * HOPS
"""How much of one Forwarded header is read: it can only be read from the left, where strangers write."""
_LOOPBACK: Final[tuple[Network, ...]] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_HOST: Final = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_OBFUSCATED: Final = re.compile(r"unknown|_[A-Za-z0-9._-]+", re.IGNORECASE)
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a word of RFC 9110
_PAIR: Final = re.compile(rf'\s*(?P<name>{_TOKEN})=(?:(?P<token>{_TOKEN})|"(?P<quoted>(?:[^"\\]|\\.)*)")\s*(?P<end>[;,]|$)')


class Said(StrEnum):
    """What came of the forwarding headers."""

    NOTHING = "nothing"
    """None that name a client were sent; the peer is the client, or a proxy that says nothing."""
    UNTRUSTED = "untrusted-peer"
    """They were sent by somebody who is no trusted proxy, and ignored."""
    CLIENT = "client"
    """Trusted proxies named the client."""
    GARBAGE = "garbage-hop"
    """A hop on the way is no address."""
    HIDDEN = "hidden-hop"
    """A proxy on the way hides who is behind it: `unknown`, `_name`, or no `for`."""
    TOO_LONG = "too-many-hops"
    CONTRADICTION = "contradiction"
    """X-Forwarded-* and Forwarded tell of different clients; neither is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Where a request comes from, as far as that is known."""

    peer: str
    """The other end of the socket."""
    address: str
    """What counts for limits and the log: the client's address, or the last one on the way to it that is certain."""
    said: Said = Said.NOTHING
    trusted: bool = False
    """Whether the peer is a proxy that the owner trusts."""
    direct_local: bool = False
    """Whether the client is a program on this machine, with nobody between."""
    host: str | None = None
    """The host that the client asked for, with its port where it named one."""
    secure: bool = False
    """Whether the client came over TLS, to us or to a trusted proxy."""
    ignored: tuple[str, ...] = ()
    """The forwarding headers that were not believed."""

    @property
    def is_crowd(self) -> bool:
        """Whether the address is that of a proxy which does not say who is behind it."""
        return self.trusted and self.said is not Said.CLIENT

    def caller(self, origin: str | None) -> Caller:
        """Whom the limiter counts against."""
        return Caller(self.address, self.direct_local, origin, self.is_crowd)


@dataclass(frozen=True, slots=True)
class _Hop:
    """Who a proxy says spoke to it, and how; `address` is None where that is not told, or no address."""

    said: Said
    address: Address | None = None
    proto: str | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    said: Said
    address: Address
    proto: str | None
    host: str | None


class Proxies:
    """The proxies that the owner trusts: `gateway.trustedProxies`.

    A network that is wider than loopback does not cover it: that a program on this machine is a proxy has to be said on purpose.
    `marks` are further headers that only a proxy sends.
    """

    def __init__(self, networks: Iterable[str] = (), *, loopback: bool = False, marks: Iterable[str] = ()) -> None:
        self._networks = [read_network(text) for text in networks]
        if loopback:
            self._networks += _LOOPBACK
        self._marks = frozenset(name.lower() for name in marks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def knows(self, peer: str) -> bool:
        """Tell whether a peer is a trusted proxy."""
        address = read_address(peer)
        return address is not None and self.trust(address)

    def trust(self, address: Address) -> bool:
        """Tell whether an address is that of a trusted proxy."""
        return any(
            address in network and (not address.is_loopback or network.is_loopback)
            for network in self._networks
            if network.version == address.version
        )

    def arrival(self, peer: str, headers: Mapping[str, str], *, secure: bool = False) -> Arrival:
        """Find out where a request comes from. `headers` may hold a name several times, `secure` tells whether we spoke TLS."""
        marks = self._marks.intersection(map(str.lower, headers)) if self._marks else ()
        forwarded = tuple(sorted({*forwarding_headers(headers), *marks}))
        host = headers.get("Host")
        address = read_address(peer)
        if address is None or not self.trust(address):
            said = Said.UNTRUSTED if forwarded else Said.NOTHING
            local = not forwarded and is_direct_local(peer, headers)
            return Arrival(peer=peer, address=peer, said=said, direct_local=local, host=host, secure=secure, ignored=forwarded)
        if not forwarded:
            local = is_direct_local(peer, headers)
            return Arrival(peer=peer, address=str(address), trusted=True, direct_local=local, host=host, secure=secure)
        found = self._follow(address, [(name.lower(), value) for name, value in headers.items()])
        believed = found.said in {Said.CLIENT, Said.NOTHING}
        return Arrival(
            peer=peer,
            address=str(found.address),
            said=found.said,
            trusted=True,
            host=found.host or host,
            secure=secure if found.proto is None else found.proto == "https",
            ignored=() if believed else forwarded,
        )

    def _follow(self, peer: Address, headers: Headers) -> _Found:
        older, newer = _x_forwarded(headers), _forwarded(headers)
        ways = [self._walk(peer, hops) for hops in (older, newer) if hops is not None]
        if not ways:
            return _Found(Said.NOTHING, peer, *_x_said(headers))
        first, last = ways[0], ways[-1]
        if (first.said, first.address) != (last.said, last.address):
            return _Found(Said.CONTRADICTION, peer, None, None)
        proto, host = last.proto, last.host
        if older is not None:
            x_proto, x_host = _x_said(headers)
            if _differ(proto, x_proto) or _differ(host, x_host):
                return _Found(Said.CONTRADICTION, peer, None, None)
            proto, host = proto or x_proto, host or x_host
        return _Found(last.said, last.address, proto, host)

    def _walk(self, peer: Address, hops: Iterable[_Hop]) -> _Found:
        """Follow hops, the nearest first, for as long as the one who speaks is trusted; no further ones are read."""
        certain = peer
        proto = host = None
        for number, hop in enumerate(hops):
            if number == HOPS:
                return _Found(Said.TOO_LONG, certain, None, None)
            if hop.address is None:
                return _Found(hop.said, certain, None, None)
            certain, proto, host = hop.address, hop.proto, hop.host
            if not self.trust(certain):
                break
        return _Found(Said.CLIENT, certain, proto, host)


def read_address(text: str) -> Address | None:
    """An IP address without its zone; an IPv4 address that is written as IPv6 is an IPv4 address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def read_network(text: str) -> Network:
    """A network in CIDR notation, or one address; raise `ValueError`."""
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    return network if mapped is None else ipaddress.ip_network((mapped, max(0, network.prefixlen - 96)), strict=False)


def values_of(headers: Headers, name: str) -> list[str]:
    """Every value of a header, one per line that carried it."""
    return [value for key, value in headers if key == name]


def _x_forwarded(headers: Headers) -> Iterator[_Hop] | None:
    lines = values_of(headers, "x-forwarded-for")
    return (_hop(text) for line in reversed(lines) for text in reversed(line.split(","))) if lines else None


def _x_said(headers: Headers) -> tuple[str | None, str | None]:
    proto, host = values_of(headers, "x-forwarded-proto"), values_of(headers, "x-forwarded-host")
    # More than one value: it is not known whose is whose.
    return _proto(proto[0]) if len(proto) == 1 else None, _host(host[0]) if len(host) == 1 else None


def _forwarded(headers: Headers) -> Iterator[_Hop] | None:
    lines = values_of(headers, "forwarded")
    return (hop for line in reversed(lines) for hop in reversed(_elements(line))) if lines else None


def _elements(line: str) -> list[_Hop]:
    """The elements of one Forwarded header (RFC 7239), the last one nearest to us; what cannot be read is a garbage hop."""
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    position = 0
    for _ in range(_PAIRS):
        match = _PAIR.match(line, position)
        if match is None or match["name"].lower() in pairs:
            # What stands to the right of it can no longer be told apart from what is written inside it.
            return [_Hop(Said.GARBAGE)]
        quoted = match["quoted"]
        pairs[match["name"].lower()] = match["token"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = match.end()
        if match["end"] != ";":
            node = pairs.get("for")
            hop = _Hop(Said.HIDDEN) if node is None else _hop(node)
            hops.append(_Hop(hop.said, hop.address, _proto(pairs.get("proto")), _host(pairs.get("host"))))
            pairs = {}
        if match["end"] == "":
            return hops
    return [_Hop(Said.TOO_LONG)]


def _hop(text: str) -> _Hop:
    text = text.strip()
    if _OBFUSCATED.fullmatch(text.partition(":")[0]):
        return _Hop(Said.HIDDEN)
    if text.startswith("["):
        node, bracket, port = text[1:].partition("]")
        fits = bool(bracket) and ":" in node and (not port or (port[0] == ":" and _is_port(port[1:])))
    elif text.count(":") == 1:
        node, _, port = text.partition(":")
        fits = _is_port(port)
    else:
        node, fits = text, True
    address = read_address(node) if fits else None
    return _Hop(Said.GARBAGE if address is None else Said.CLIENT, address)


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None or _OBFUSCATED.fullmatch(text) is not None


def _proto(text: str | None) -> str | None:
    proto = (text or "").strip().lower()
    # nginx calls a WebSocket by the scheme of its upgrade, others by its own.
    return {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(proto)


def _host(text: str | None) -> str | None:
    host = (text or "").strip()
    return host.lower() if _HOST.fullmatch(host) else None


def _differ(one: str | None, other: str | None) -> bool:
    return None not in {one, other} and one != other
