"""The kernel's own settings, taken live: who may connect, whom to believe, which pages, the log."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from openclaw_config.load import Loaded
from openclaw_config.models import Config, GatewayAuth
from openclaw_config.models import Gateway as GatewayConfig
from openclaw_kernel.api.errors import InvalidRequest
from openclaw_kernel.exposure import refusal_of
from openclaw_kernel.logs import set_level
from openclaw_kernel.protocol.auth import TRUSTED_PROXY
from openclaw_kernel.protocol.ended import methods_ended
from openclaw_kernel.protocol.proxy import Proxies
from openclaw_kernel.protocol.vouched import SCOPES_HEADER

if TYPE_CHECKING:
    from openclaw_kernel.protocol.arrivals import Arrivals
    from openclaw_kernel.protocol.auth import Verifier
    from openclaw_kernel.protocol.connections import OpenConnections
    from openclaw_kernel.protocol.pages import PageSessions

logger: Final = logging.getLogger("openclaw.gateway")


class KernelLeaves:
    """Implements the engine's `Leaves`. What it works by is as the start left it until the first `adopt`."""

    def __init__(
        self, config: Config, *, verifier: Verifier, pages: PageSessions, arrivals: Arrivals, open_connections: OpenConnections
    ) -> None:
        self._config = config
        self._verifier = verifier
        self._pages = pages
        self._arrivals = arrivals
        self._open = open_connections
        self._there: frozenset[str] = frozenset()
        """Who was connected when the settings that are in force now came."""

    @property
    def allowed_origins(self) -> list[str]:
        """Browser origins beside the gateway's own that may open the WebSocket."""
        return self._config.gateway.control_ui.allowed_origins

    def refuse(self, config: Config) -> None:
        """Raise `InvalidRequest` for what would open the door."""
        refusal = refusal_of(config.gateway)
        if refusal is not None:
            issue = {"path": refusal.key, "message": f"found {refusal.found}; {refusal.cure}"}
            raise InvalidRequest(f"{refusal.key}: found {refusal.found}; {refusal.cure}", details={"issues": [issue]})

    def adopt(self, config: Config) -> None:
        """Work by this from now on."""
        before, self._config = self._config, config
        self._there = self._open.ids()
        gateway = config.gateway
        self._verifier.adopt(gateway.auth, gateway.tls.clients)
        self._pages.adopt(credential(gateway.auth))
        self._arrivals.proxies = proxies(gateway)
        if config.logging.level != before.logging.level:
            set_level(config.logging.level)

    def take_back(self, config: Config) -> None:
        """Work by what was before again: who came in meanwhile, with a credential that was never accepted, is out."""
        tried, there = self._config, self._there
        self.adopt(config)
        self._end(methods_ended(tried.gateway, config.gateway), spared=there)

    def end_connections(self, before: GatewayConfig, after: GatewayConfig) -> None:
        """End the connections whose credential is none any more."""
        self._end(methods_ended(before, after))

    def _end(self, methods: Collection[str], spared: Collection[str] = ()) -> None:
        ended = self._open.end_methods(methods, spared=spared)
        if ended:
            logger.warning("%d connections end, for what they came in with changed", ended)


def proxies(gateway: GatewayConfig) -> Proxies:
    """Whose forwarding headers are believed."""
    settings = gateway.auth.trusted_proxy
    marks = [SCOPES_HEADER, *settings.required_headers, *filter(None, [settings.user_header])] if gateway.auth.mode == TRUSTED_PROXY else ()
    return Proxies(gateway.trusted_proxies, marks=marks)


def credential(auth: GatewayAuth) -> bytes:
    """What the sessions of pages end with when it changes."""
    # Behind a trusted proxy it is what programs of this machine come in with.
    secret = {"token": auth.token, "password": auth.password, TRUSTED_PROXY: auth.token or auth.password}.get(auth.mode)
    return f"{auth.mode}:{secret.unwrap() if secret else ''}".encode("utf-8", "surrogatepass")


def remember(loaded: Loaded) -> None:
    """Keep the secrets of a configuration out of the log, also those in places that are none."""
    from openclaw_config.secrets import Secret

    for value in loaded.secrets:
        Secret(value)
