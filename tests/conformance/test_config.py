"""The published reference client reads and writes the configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.method_calls import OF_CONFIG
from tests.conformance.reference_client import ReferenceClient, reference_client
from tests.support import contract
from tests.support.gateway import RunningGateway
from tests.support.ws_client import RequestFailed

pytestmark = pytest.mark.requires("node24", "gateway-client")

STALE = "config changed since last load; re-run config.get and retry"


async def refusal(client: ReferenceClient, method: str, params: dict[str, Any]) -> RequestFailed:
    with pytest.raises(RequestFailed) as failed:
        await client.request(method, params)
    return failed.value


async def test_each_way_to_write_is_in_force_when_it_is_answered_and_told(gateway: RunningGateway) -> None:
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        await client.wait("hello")
        ways: dict[str, Any] = {
            "config.patch": lambda _found: "{session: {mainKey: 'hall'}, /* of JSON5 */}",
            "config.set": lambda found: f"# from a client\n{found['raw']}",
            "config.apply": lambda found: json.dumps({**found["config"], "session": {"mainKey": "room"}}),
        }
        assert ways.keys() == OF_CONFIG
        for method, raw_of in ways.items():
            found = await client.request("config.get")
            assert found["valid"] is True
            answer = await client.request(method, {"raw": raw_of(found), "baseHash": found["hash"]})
            contract.validate_result(method, answer)
            told = await client.event("config.changed", lambda payload, answer=answer: payload["hash"] == answer["hash"])  # type: ignore[misc]
            contract.validate("ConfigChangedEvent", told)
            assert (await client.request("config.get"))["appliedConfigHash"] == answer["hash"]
        last = await client.request("config.get")
        assert last["config"]["session"] == {"mainKey": "room"}
        assert last["raw"].startswith("# from a client\n")
        assert client.kinds().isdisjoint({"gap", "connectError", "paused", "closed"})


async def test_a_conflict_is_known_by_its_words_alone(gateway: RunningGateway) -> None:
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        await client.wait("hello")
        found = await client.request("config.get")
        await client.request("config.patch", {"raw": '{"logging": {"level": "debug"}}', "baseHash": found["hash"]})
        for method in sorted(OF_CONFIG):
            stale = await refusal(client, method, {"raw": "{}", "baseHash": found["hash"]})
            assert (stale.code, stale.error["message"], stale.error.get("details")) == ("INVALID_REQUEST", STALE, None)
        missing = await refusal(client, "config.patch", {"raw": "{}"})
        assert "re-run config.get and retry" in str(missing)
        assert client.kinds().isdisjoint({"gap", "connectError", "paused", "closed"})


async def test_a_config_that_cannot_be_is_refused_with_its_issues(gateway: RunningGateway) -> None:
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        await client.wait("hello")
        found = await client.request("config.get")
        invalid = await refusal(client, "config.patch", {"raw": '{"gateway": {"port": "x"}}', "baseHash": found["hash"]})
        assert [issue["path"] for issue in invalid.error["details"]["issues"]] == ["gateway.port"]
        lookup = await client.request("config.schema.lookup", {"path": "gateway.reload.mode"})
        contract.validate_result("config.schema.lookup", lookup)
        assert lookup["schema"]["enum"] == ["hybrid", "hot", "restart", "off"]
        assert (await client.request("config.get"))["hash"] == found["hash"]
