"""The routing plugin within the gateway."""

from __future__ import annotations

from typing import Any

import pluggy
import pytest

from openclaw_kernel import hookspecs
from openclaw_kernel.api import Config, InboundMessage, Route, Target, hookimpl
from openclaw_plugins.routing.plugin import RoutingPlugin


class Context:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = Config.model_validate(config)
        self.degraded: list[str | None] = []

    def degrade(self, reason: str | None) -> None:
        self.degraded.append(reason)


def message(peer_id: str) -> InboundMessage:
    target = Target(channel="telegram", account_id="default", peer_kind="direct", peer_id=peer_id)
    return InboundMessage(target=target, message_id="1", sender_id=peer_id)


class Stranger:
    @hookimpl
    def openclaw_decide_route(self, message: InboundMessage) -> Route | None:
        if message.target.peer_id != "vip":
            return None
        return Route(agent_id="concierge", session_key="agent:concierge:vip", reason="a guest")


@pytest.mark.parametrize("strangers_first", [True, False])
def test_another_plugin_may_decide_first_and_routing_decides_the_rest(*, strangers_first: bool) -> None:
    manager = pluggy.PluginManager("openclaw")
    manager.add_hookspecs(hookspecs)
    plugins = [Stranger(), RoutingPlugin(Context({}))]  # type: ignore[arg-type]
    for plugin in plugins if strangers_first else reversed(plugins):
        manager.register(plugin)
    manager.check_pending()
    assert manager.hook.openclaw_decide_route(message=message("vip")).agent_id == "concierge"
    assert manager.hook.openclaw_decide_route(message=message("9")).agent_id == "main"


async def test_a_binding_that_cannot_work_is_reported_until_it_is_corrected() -> None:
    context = Context({"bindings": [{"agentId": "ghost", "match": {"channel": "telegram"}}]})
    plugin = RoutingPlugin(context)  # type: ignore[arg-type]
    await plugin.start()
    assert context.degraded == ["bindings.0.agentId: there is no agent 'ghost'; add it under agents.entries or use one of main"]
    context.config = Config.model_validate({"agents": {"entries": {"ghost": {}}}})
    decided = plugin.openclaw_decide_route(message("9"))
    assert decided is not None
    assert decided.agent_id == "ghost"
    assert context.degraded[-1] is None
