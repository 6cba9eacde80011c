"""Who may change plugins, and how many changes wait."""

from __future__ import annotations

import pytest

from openclaw_kernel.api.audit import AuditOrigin
from openclaw_kernel.api.config import Change
from openclaw_kernel.api.errors import Forbidden
from openclaw_kernel.api.plugins import Plugins
from openclaw_kernel.testing import StartGateway

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


async def test_every_installed_plugin_is_an_entry_with_its_state(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({}) as gateway:
        entries = {entry.id: entry for entry in gateway.service(Plugins).entries()}
        assert (entries["webchat"].state, entries["webchat"].bundled, entries["webchat"].restart) == ("started", True, None)
        assert entries["routing"].summary
