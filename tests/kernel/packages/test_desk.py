"""Who may change plugins, and how many changes wait."""

from __future__ import annotations

import asyncio

import pytest

from openclaw_kernel.api.audit import AuditOrigin
from openclaw_kernel.api.config import Change
from openclaw_kernel.api.errors import Forbidden, Unavailable
from openclaw_kernel.api.plugins import Plugins
from openclaw_kernel.packages.desk import MOST_WAITING
from openclaw_kernel.testing import StartGateway

BY_OWNER = Change(origin=AuditOrigin(actor="owner", surface="cli"))
BY_AGENT = Change(origin=AuditOrigin(actor="agent:main", surface="turn"), by_agent=True)


async def test_nothing_of_it_is_for_agents(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({}) as gateway:
        plugins = gateway.service(Plugins)
        for attempt in (
            plugins.set_enabled("webchat", BY_AGENT, enabled=False),
            plugins.reload("webchat", BY_AGENT),
            plugins.refresh(BY_AGENT),
            plugins.install("/some.whl", BY_AGENT, index=False),
            plugins.upgrade("webchat", None, BY_AGENT, index=True),
            plugins.remove("webchat", BY_AGENT),
        ):
            with pytest.raises(Forbidden, match="no agent may change them"):
                await attempt


async def test_few_changes_wait_also_of_those_that_come_at_once(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({}) as gateway:
        plugins = gateway.service(Plugins)
        told = await asyncio.gather(*(plugins.refresh(BY_OWNER) for _ in range(MOST_WAITING + 3)), return_exceptions=True)
        assert [type(one) for one in told if isinstance(one, BaseException)] == [Unavailable] * 3
        assert (await plugins.refresh(BY_OWNER)).plugins == []


async def test_every_installed_plugin_is_an_entry_with_its_state(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({}) as gateway:
        entries = {entry.id: entry for entry in gateway.service(Plugins).entries()}
        assert (entries["webchat"].state, entries["webchat"].bundled, entries["webchat"].restart) == ("started", True, None)
        assert entries["routing"].summary


async def test_a_plugin_is_disabled_and_enabled_by_the_config(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({}) as gateway:
        told = await gateway.call("plugins.setEnabled", {"pluginId": "web-tools", "enabled": False})

        assert (told["plugin"]["state"], told["restartRequired"]) == ("disabled", False)
        assert "web-tools" in (gateway.home / "openclaw.yaml").read_text()
        assert gateway.plugin("web-tools").reason == "plugins.entries.web-tools.enabled is false"
        told = await gateway.call("plugins.setEnabled", {"pluginId": "web-tools", "enabled": True})
        assert (told["plugin"]["state"], told["restartRequired"]) == ("enabled", False)
