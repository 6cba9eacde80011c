"""The admission plugin within the gateway."""

from __future__ import annotations

from typing import Any

from openclaw_kernel.api import Config, InboundMessage, Route, Target, Verdict
from openclaw_plugins.admission.plugin import AdmissionPlugin

ROUTE = Route(agent_id="main", session_key="agent:main:main", reason="test")


class Context:
    def __init__(self, channels: dict[str, Any]) -> None:
        self.degraded: list[str | None] = []
        self.change(channels)

    def change(self, channels: dict[str, Any]) -> None:
        self.config = Config.model_validate({"channels": channels})

    def degrade(self, reason: str | None) -> None:
        self.degraded.append(reason)


def message(sender: str, channel: str = "telegram") -> InboundMessage:
    target = Target(channel=channel, account_id="default", peer_kind="direct", peer_id=sender)
    return InboundMessage(target=target, message_id="1", sender_id=sender)


def verdict(plugin: AdmissionPlugin, incoming: InboundMessage) -> Verdict:
    decided = plugin.openclaw_decide_admission(incoming, ROUTE)
    assert decided is not None
    return decided.verdict


def test_rules_are_read_from_the_config_in_force() -> None:
    context = Context({"telegram": {"botToken": "x", "allowFrom": [1]}})
    plugin = AdmissionPlugin(context)  # type: ignore[arg-type]
    assert verdict(plugin, message("1")) is Verdict.ALLOW
    context.change({"telegram": {"allowFrom": [2]}})
    assert verdict(plugin, message("1")) is Verdict.HINT
    assert verdict(plugin, message("2")) is Verdict.ALLOW


def test_a_channel_without_a_section_lets_nobody_in_but_webchat_does() -> None:
    plugin = AdmissionPlugin(Context({}))  # type: ignore[arg-type]
    decided = plugin.openclaw_decide_admission(message("1", "irc"), ROUTE)
    assert decided is not None
    assert decided.verdict is Verdict.HINT
    assert "channels.irc.allowFrom" in decided.hint
    assert verdict(plugin, message("", "webchat")) is Verdict.ALLOW


async def test_rules_that_cannot_work_degrade_the_plugin_until_they_are_corrected() -> None:
    context = Context({"telegram": {"allowFrom": "1"}, "irc": {"allowFrom": ["2"]}})
    plugin = AdmissionPlugin(context)  # type: ignore[arg-type]
    await plugin.start()
    assert context.degraded[-1] is not None
    assert "channels.telegram.allowFrom" in context.degraded[-1]
    assert verdict(plugin, message("1")) is Verdict.DROP
    assert verdict(plugin, message("2", "irc")) is Verdict.ALLOW
    context.change({"telegram": {"allowFrom": ["1"]}})
    assert verdict(plugin, message("1")) is Verdict.ALLOW
    assert context.degraded[-1] is None
