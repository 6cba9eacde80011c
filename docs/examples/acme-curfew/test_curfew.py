"""The policy is asked before any other, in a gateway that runs in this process."""

import json
from typing import Any

from openclaw_kernel.api import InboundMessage, Policies, Target, Verdict
from openclaw_kernel.testing import RunningGateway, StartGateway

TARGET = Target(channel="webchat", account_id="default", peer_kind="direct", peer_id="alice")
MESSAGE = InboundMessage(target=TARGET, message_id="1", sender_id="alice", text="hello")


def config(begins: int, ends: int) -> dict[str, Any]:
    return {
        "models": {"providers": {"echo": {}}},
        "plugins": {"entries": {"curfew": {"config": {"begins": begins, "ends": ends}}}},
    }


def decide(gateway: RunningGateway) -> Verdict:
    policies = gateway.service(Policies)
    return policies.admit(MESSAGE, policies.route(MESSAGE)).verdict


async def verdict(openclaw_gateway: StartGateway, begins: int, ends: int) -> Verdict:
    async with openclaw_gateway(config(begins, ends)) as gateway:
        return decide(gateway)


async def test_at_night_a_person_gets_a_hint(openclaw_gateway: StartGateway) -> None:
    assert await verdict(openclaw_gateway, 0, 24) is Verdict.HINT


async def test_by_day_the_next_plugin_decides(openclaw_gateway: StartGateway) -> None:
    assert await verdict(openclaw_gateway, 0, 0) is not Verdict.HINT


async def test_other_hours_are_kept_at_once(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(config(0, 24)) as gateway:
        assert decide(gateway) is Verdict.HINT
        file = gateway.home / "openclaw.yaml"
        saved = json.loads(file.read_text(encoding="utf-8"))
        saved["plugins"]["entries"]["curfew"]["config"] = {"begins": 0, "ends": 0}
        file.write_text(json.dumps(saved), encoding="utf-8")
        await gateway.event("config.changed")
        assert decide(gateway) is not Verdict.HINT
