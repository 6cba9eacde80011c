"""The kernel's own settings, changed while the gateway runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from openclaw_config.models import Config
from openclaw_kernel.api.errors import InvalidRequest
from openclaw_kernel.live.leaves import KernelLeaves, credential, proxies
from openclaw_kernel.logs import set_level
from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.auth import Refused, Verified, Verifier
from openclaw_kernel.protocol.connect import Credentials
from openclaw_kernel.protocol.connections import OpenConnections
from openclaw_kernel.protocol.limiter import Caller, FailureLimiter
from openclaw_kernel.protocol.pages import PageSessions

CALLER = Caller(address="127.0.0.1", is_loopback=True)


def config(**content: Any) -> Config:
    return Config.model_validate({"gateway": {"auth": {"token": "a" * 32}}, **content})


async def unsaved(_text: str, _entry: Any) -> None:
    """Nothing is kept."""


class Kernel:
    def __init__(self, start: Config) -> None:
        gateway, limiter = start.gateway, FailureLimiter()
        self.verifier = Verifier(gateway.auth, limiter, certificates=gateway.tls.clients)
        self.arrivals = Arrivals(proxies(gateway))
        self.pages = PageSessions(limiter=limiter, now_ms=lambda: 0, save=unsaved, key=credential(gateway.auth), arrivals=self.arrivals)
        self.leaves = KernelLeaves(
            start, verifier=self.verifier, pages=self.pages, arrivals=self.arrivals, open_connections=OpenConnections()
        )

    def lets_in(self, token: str) -> bool:
        verdict = self.verifier.verify(Credentials(token=token), CALLER, 0)
        assert isinstance(verdict, Verified | Refused)
        return isinstance(verdict, Verified)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    yield Kernel(config())
    set_level("info")


def test_another_token_counts_from_the_next_try_on_and_can_be_taken_back(kernel: Kernel) -> None:
    other = config(gateway={"auth": {"token": "b" * 32}})
    epoch = kernel.verifier.epoch
    kernel.leaves.adopt(other)
    assert (kernel.lets_in("a" * 32), kernel.lets_in("b" * 32)) == (False, True)
    assert kernel.verifier.epoch > epoch
    kernel.leaves.adopt(config())
    assert (kernel.lets_in("a" * 32), kernel.lets_in("b" * 32)) == (True, False)


def test_what_changes_nothing_about_who_may_connect_disturbs_no_handshake(kernel: Kernel) -> None:
    epoch = kernel.verifier.epoch
    kernel.leaves.adopt(config(logging={"level": "debug"}))
    assert kernel.verifier.epoch == epoch


def test_proxies_origins_and_the_log_follow(kernel: Kernel) -> None:
    gateway = {"auth": {"token": "a" * 32}, "trustedProxies": ["192.0.2.7"], "controlUi": {"allowedOrigins": ["https://chat.example.org"]}}
    kernel.leaves.adopt(config(gateway=gateway, logging={"level": "debug"}))
    assert (kernel.arrivals.is_proxy("192.0.2.7"), kernel.leaves.allowed_origins) == (True, ["https://chat.example.org"])
    assert logging.getLogger("openclaw.plugin.x").getEffectiveLevel() == logging.DEBUG
    kernel.leaves.adopt(config())
    assert (kernel.arrivals.is_proxy("192.0.2.7"), kernel.leaves.allowed_origins) == (False, [])
    assert logging.getLogger("openclaw.plugin.x").getEffectiveLevel() == logging.INFO


def test_what_a_start_would_refuse_is_refused(kernel: Kernel) -> None:
    with pytest.raises(InvalidRequest, match=r"gateway\.auth\.mode: found none, while gateway\.bind is lan; use token"):
        kernel.leaves.refuse(config(gateway={"bind": "lan", "auth": {"mode": "none"}}))
