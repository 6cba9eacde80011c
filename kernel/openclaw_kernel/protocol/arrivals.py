"""The arrival of each HTTP request, found out once and kept with the request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from aiohttp import web

from openclaw_kernel.protocol.limiter import network_of
from openclaw_kernel.protocol.proxy import HOPS, Arrival, Proxies, Said

logger = logging.getLogger("openclaw.protocol")

_ARRIVAL: Final = web.RequestKey("openclaw_arrival", Arrival)


_LOGGED: Final = 64
_NAMES: Final = 8
_LONGEST_NAME: Final = 48
_WORDS: Final = {
    Said.UNTRUSTED: "it is not in gateway.trustedProxies; if it is your proxy, list it there, else ask yourself who that is",
    Said.GARBAGE: "a hop on the way is no address; let the proxy set X-Forwarded-For itself",
    Said.HIDDEN: "a hop on the way hides its client; let every proxy of yours name it",
    Said.TOO_LONG: f"there are more than {HOPS} hops",
    Said.CONTRADICTION: "X-Forwarded-* and Forwarded contradict each other; let the proxy set one and remove the other",
}


class Complaints:
    """Puts into the log what forwarding headers were not believed, once for each network and fault; strangers cannot fill it."""

    def __init__(self) -> None:
        self._known: set[tuple[str, Said]] = set()

    def __call__(self, arrival: Arrival) -> None:
        """Take note of one request."""
        key = (network_of(arrival.peer), arrival.said)
        if key in self._known or len(self._known) >= _LOGGED:
            return
        self._known.add(key)
        names = ", ".join(shown_names(arrival))
        logger.warning("%s sends %s, which is ignored: %s", arrival.peer, names, _WORDS.get(arrival.said, arrival.said.value))


def shown_names(arrival: Arrival) -> list[str]:
    """The names of the headers that were not believed, as many and as much of them as one looks at: strangers choose them."""
    return [name[:_LONGEST_NAME] for name in arrival.ignored[:_NAMES]]


class Arrivals:
    """Tells where requests come from. `notice` is told of each whose forwarding headers were not believed."""

    def __init__(self, proxies: Proxies | None = None, notice: Callable[[Arrival], None] = lambda _arrival: None) -> None:
        self.proxies = Proxies() if proxies is None else proxies
        """Whom to believe; another may be put in its place at any time."""
        self._notice = notice

    def is_proxy(self, address: str) -> bool:
        """Whether whoever speaks from there is believed now."""
        return self.proxies.knows(address)

    def of(self, request: web.Request) -> Arrival:
        """Where this request comes from."""
        known: Arrival | None = request.get(_ARRIVAL)
        if known is not None:
            return known
        arrival = self.proxies.arrival(request.remote or "unknown", request.headers, secure=request.secure)
        request[_ARRIVAL] = arrival
        if arrival.ignored:
            self._notice(arrival)
        return arrival

    def as_seen_by_client(self, request: web.Request) -> web.Request:
        """The request with the address of its client, and with the scheme and host that the client used."""
        arrival = self.of(request)
        if not arrival.trusted:
            return request
        scheme = "https" if arrival.secure else "http"
        return request.clone(remote=arrival.address, scheme=scheme, host=arrival.host or request.host)
