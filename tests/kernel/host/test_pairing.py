"""A pairing plugin that fails lets nobody in, and is named. S20."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openclaw_kernel.api import DeviceClaim, DevicePairing, GatewayError, Unavailable
from openclaw_kernel.host import pairing
from openclaw_kernel.host.guard import Guard
from openclaw_kernel.host.pairing import HostedPairing
from openclaw_kernel.host.registry import Registry

CLAIM = DeviceClaim(
    device_id="d",
    public_key="k",
    role="operator",
    scopes=(),
    client_id="cli",
    client_mode="cli",
    platform="linux",
    address="127.0.0.1",
    network="127.0.0.1",
    local_secret=True,
)


class Raising:
    """Raises the same from everything."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def check_token(self, *_: Any) -> Any:
        raise self.error

    def check_setup(self, *_: Any) -> Any:
        raise self.error

    def recall(self, _claim: DeviceClaim) -> Any:
        raise self.error

    async def settle(self, _claim: DeviceClaim) -> Any:
        raise self.error


class Hanging(Raising):
    """Never decides."""

    async def settle(self, _claim: DeviceClaim) -> Any:
        await asyncio.Event().wait()


def hosted(service: object) -> HostedPairing:
    """The service of a plugin, as the handshake gets it."""
    registry = Registry()
    registry.provide("broken", DevicePairing, service)
    found = HostedPairing.of(registry, Guard())
    assert found is not None
    return found


async def outcomes(found: HostedPairing) -> list[GatewayError]:
    """What each of the four raises."""
    raised = []
    for call in (
        lambda: found.check_token("d", "operator", "t", ()),
        lambda: found.check_setup("t", "operator"),
        lambda: found.recall(CLAIM),
    ):
        with pytest.raises(GatewayError) as caught:
            call()
        raised.append(caught.value)
    with pytest.raises(GatewayError) as caught:
        await found.settle(CLAIM)
    return [*raised, caught.value]


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit(1)])
async def test_what_a_pairing_plugin_raises_refuses_the_device_and_names_the_plugin(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    raised = await outcomes(hosted(Raising(error)))
    assert all(isinstance(one, Unavailable) and "plugin broken failed" in one.message for one in raised)
    assert sum("'broken'" in record.message for record in caplog.records) == 4


async def test_what_it_says_in_the_words_of_the_wire_reaches_the_device() -> None:
    said = Unavailable("not yet", retryable=True)
    assert all(one is said for one in await outcomes(hosted(Raising(said))))


async def test_one_that_never_decides_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "SETTLE_SECONDS", 0.05)
    with pytest.raises(Unavailable, match="plugin broken failed"):
        await hosted(Hanging(ValueError())).settle(CLAIM)


def test_without_a_plugin_there_is_no_pairing() -> None:
    assert HostedPairing.of(Registry(), Guard()) is None
