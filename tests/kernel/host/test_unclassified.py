"""A gateway in which anything does not say who may have it does not start, and names it."""

from __future__ import annotations

import pytest

from tests.kernel.host.distributions import Distributions
from tests.support.gateway import StartGateway

PLUGIN = """
class Methods:
    @rpc("acme.get", scope={method}, result=str)
    def get(self, call):
        '''Get it.'''
        return "it"

class ThePlugin:
    settings = None

    def __init__(self, context):
        pass

    @hookimpl
    def openclaw_register_methods(self, registrar):
        registrar.add_methods(Methods())
        registrar.add_events([EventSpec(name="{event}", scope={scope}, doc="It rang.")])
"""
WHOLE = {"method": "Scope.READ", "event": "acme.rang", "scope": "Scope.READ"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "()"}, "method 'acme.get' of plugin 'acme' has no scope; name one in @rpc"),
        ({"scope": "None"}, "event 'acme.rang' of plugin 'acme' has no scope; name one in EventSpec"),
        ({"event": "exec.approval.requested"}, "event 'exec.approval.requested' of plugin 'acme' is for 'operator.read'"),
    ],
)
async def test_what_is_not_classified_ends_the_start_with_78(
    change: dict[str, str], named: str, distributions: Distributions, start_gateway: StartGateway
) -> None:
    distributions.add("acme", PLUGIN.format(**WHOLE | change))
    gateway = await start_gateway(env={"PYTHONPATH": str(distributions.folder)}, wait=False)
    gateway.expect_log("acme")
    assert await gateway.wait_ended() == 78
    assert any(named in line.text for line in gateway.lines), gateway.tail()


async def test_the_same_classified_starts(distributions: Distributions, start_gateway: StartGateway) -> None:
    distributions.add("acme", PLUGIN.format(**WHOLE))
    await start_gateway(env={"PYTHONPATH": str(distributions.folder)})
