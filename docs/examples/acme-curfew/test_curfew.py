"""The policy is asked before any other, in a gateway that runs in this process."""

from openclaw_kernel.api import InboundMessage, Policies, Target, Verdict
from openclaw_kernel.testing import StartGateway

TARGET = Target(channel="webchat", account_id="default", peer_kind="direct", peer_id="alice")
MESSAGE = InboundMessage(target=TARGET, message_id="1", sender_id="alice", text="hello")


async def verdict(openclaw_gateway: StartGateway, begins: int, ends: int) -> Verdict:
    config = {
        "models": {"providers": {"echo": {}}},
        "plugins": {"entries": {"curfew": {"config": {"begins": begins, "ends": ends}}}},
    }
    async with openclaw_gateway(config) as gateway:
        policies = gateway.service(Policies)
        return policies.admit(MESSAGE, policies.route(MESSAGE)).verdict


async def test_at_night_a_person_gets_a_hint(openclaw_gateway: StartGateway) -> None:
    assert await verdict(openclaw_gateway, 0, 24) is Verdict.HINT


async def test_by_day_the_next_plugin_decides(openclaw_gateway: StartGateway) -> None:
    assert await verdict(openclaw_gateway, 0, 0) is not Verdict.HINT
