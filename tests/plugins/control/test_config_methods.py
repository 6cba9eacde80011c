"""config.set, patch, apply and plan over a running gateway: on the wire as clients know them, in force when they return."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.load import Loaded
from openclaw_config.secrets import REDACTED
from openclaw_kernel.configuration.view import ConfigView
from openclaw_kernel.live.config import RESTART_DELAY_SECONDS
from openclaw_kernel.testing import CallFailed, RunningGateway, run_gateway

SECRET = "not-to-be-seen-7b1c"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway with the echo model and a secret."""
    async with run_gateway(tmp_path, {"models": {"providers": {"echo": {}}}, "secrets": {"entries": {"one": SECRET}}}) as running:
        yield running


async def change(gateway: RunningGateway, method: str, raw: Any, **more: Any) -> dict[str, Any]:
    text = raw if isinstance(raw, str) else json.dumps(raw)
    found = await gateway.call("config.get")
    answer: dict[str, Any] = await gateway.call(method, {"raw": text, "baseHash": found["hash"], **more})
    return answer


async def test_a_patch_is_in_the_file_and_in_force_when_it_is_answered(gateway: RunningGateway, tmp_path: Path) -> None:
    file = tmp_path / "openclaw.yaml"
    file.write_text(f"# by hand\n{file.read_text()}")
    answer = await change(gateway, "config.patch", "{session: {mainKey: 'hall'}, /* JSON5 */}")
    assert (answer["ok"], answer["changedPaths"]) == (True, ["session.mainKey"])
    units = {unit["unit"]: (unit["outcome"], unit["waits"]) for unit in answer["units"]}
    assert units["kernel"] == ("hot", False)
    assert answer["config"]["session"] == {"mainKey": "hall"}
    assert (answer["restart"], answer["sentinel"]["persisted"]) == (None, False)
    assert answer["sentinel"]["payload"]["stats"] == {"mode": "config.patch", "root": None, "requiresRestart": False}
    found = await gateway.call("config.get")
    assert found["hash"] == found["appliedConfigHash"] == answer["hash"]
    assert file.read_text().startswith("# by hand\n")
    assert SECRET in file.read_text()
    assert SECRET not in json.dumps([answer, found])
    told = [frame["payload"] for frame in gateway.transcript if frame.get("event") == "config.changed"]
    assert (told[-1]["path"], told[-1]["hash"]) == (str(file), answer["hash"])


async def test_what_was_read_can_be_sent_back_as_a_whole_without_change(gateway: RunningGateway) -> None:
    found = await gateway.call("config.get")
    for method, raw in (("config.set", found["raw"]), ("config.apply", found["raw"]), ("config.set", json.dumps(found["config"]))):
        answer = await gateway.call(method, {"raw": raw, "baseHash": found["hash"]})
        assert answer == {"ok": True, "noop": True, "changedPaths": [], "path": found["path"], "config": found["config"]}


async def test_a_stale_or_missing_hash_is_told_in_the_words_clients_know_and_shown_beside(gateway: RunningGateway) -> None:
    found = await gateway.call("config.get")
    await change(gateway, "config.patch", {"session": {"mainKey": "hall"}})
    with pytest.raises(CallFailed) as stale:
        await gateway.call("config.patch", {"raw": '{"session": {"mainKey": "room"}}', "baseHash": found["hash"]})
    assert stale.value.error == {"code": "INVALID_REQUEST", "message": "config changed since last load; re-run config.get and retry"}
    frame = next(frame for frame in reversed(gateway.transcript) if frame.get("ok") is False)
    diff = [{"path": "session.mainKey", "base": None, "theirs": "hall", "yours": "room", "conflict": True}]
    assert frame["payload"] == {"diff": diff}
    with pytest.raises(CallFailed) as missing:
        await gateway.call("config.set", {"raw": "{}"})
    assert missing.value.error == {"code": "INVALID_REQUEST", "message": "config base hash required; re-run config.get and retry"}


@pytest.mark.parametrize(
    ("method", "raw", "named"),
    [
        ("config.patch", {"gateway": {"port": "x"}}, "gateway.port"),
        ("config.patch", {"unheard": 1}, "unheard"),
        ("config.set", "gateway: [", "openclaw.yaml:1"),
        ("config.apply", "{}", "lose more than half"),
        ("config.patch", {"secrets": {"entries": {"two": REDACTED}}}, "secrets.entries.two"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    gateway: RunningGateway, tmp_path: Path, method: str, raw: Any, named: str
) -> None:
    before = (tmp_path / "openclaw.yaml").read_bytes()
    padding = {"agents": {"entries": {f"agent-{number}": {"name": "somebody with a long name"} for number in range(20)}}}
    if named.startswith("lose"):
        await change(gateway, "config.patch", padding)
        before = (tmp_path / "openclaw.yaml").read_bytes()
    with pytest.raises(CallFailed, match=named) as refused:
        await change(gateway, method, raw)
    assert refused.value.error["code"] == "INVALID_REQUEST"
    if method == "config.patch" and "secrets" not in named:
        assert named in [issue["path"] for issue in refused.value.error["details"]["issues"]]
    assert (tmp_path / "openclaw.yaml").read_bytes() == before


async def test_a_plan_says_what_would_happen_and_nothing_does(gateway: RunningGateway) -> None:
    found = await gateway.call("config.get")
    plan = await gateway.call("config.plan", {"patch": '{"gateway": {"port": 1}}'})
    assert (plan["outcome"], plan["changed"]) == ("process", ["gateway.port"])
    whole = await gateway.call("config.plan", {"raw": found["raw"]})
    assert (whole["outcome"], whole["changed"], whole["units"]) == ("none", [], [])
    assert (await gateway.call("config.get"))["hash"] == found["hash"]


async def test_patches_are_limited_and_sets_are_not(gateway: RunningGateway) -> None:
    found = await gateway.call("config.get")
    params = {"raw": "{}", "baseHash": found["hash"]}
    for _ in range(30):
        await gateway.call("config.patch", params)
    with pytest.raises(CallFailed, match=r"rate limit exceeded for config\.patch; retry after \d+s") as limited:
        await gateway.call("config.patch", params)
    error = limited.value.error
    assert (error["code"], error["retryable"], error["details"]) == ("UNAVAILABLE", True, {"method": "config.patch", "limit": "30 per 60s"})
    await gateway.call("config.apply", {**params, "raw": found["raw"]})
    for _ in range(31):
        await gateway.call("config.set", {**params, "raw": found["raw"]})


async def test_the_schema_of_one_key_says_what_a_change_does_and_what_is_below(gateway: RunningGateway) -> None:
    port = await gateway.call("config.schema.lookup", {"path": "gateway.port"})
    assert (port["path"], port["reloadKind"], port["children"]) == ("gateway.port", "restart", [])
    assert port["schema"]["maximum"] == 65535
    auth = await gateway.call("config.schema.lookup", {"path": "gateway.auth"})
    children = {child["key"]: child for child in auth["children"]}
    assert (children["token"]["path"], children["token"]["hint"]["sensitive"]) == ("gateway.auth.token", True)
    assert children["trustedProxy"]["hasChildren"] is True
    assert children["mode"]["type"] == "string"
    agent = await gateway.call("config.schema.lookup", {"path": "agents.entries"})
    assert [child["key"] for child in agent["children"]] == ["*"]
    assert (await gateway.call("config.schema.lookup", {"path": "agents.entries.main.name"}))["reloadKind"] == "hot"


async def test_a_change_that_needs_a_restart_says_when_and_remembers_whom_to_tell(gateway: RunningGateway) -> None:
    more = {"sessionKey": "agent:main:main", "note": "moved", "restartDelayMs": 3_600_000}
    answer = await change(gateway, "config.patch", {"gateway": {"controlUi": {"basePath": "/below"}}}, **more)
    assert (answer["restart"]["delayMs"], answer["restart"]["coalesced"]) == (3_600_000, False)
    payload = answer["sentinel"]["payload"]
    assert (answer["sentinel"]["persisted"], payload["kind"], payload["sessionKey"]) == (True, "config-patch", "agent:main:main")
    assert (payload["message"], payload["stats"]["requiresRestart"]) == ("moved", True)
    again = await change(gateway, "config.patch", {"gateway": {"controlUi": {"basePath": "/other"}}})
    assert again["restart"]["coalesced"] is True


async def test_a_delay_counts_also_where_the_answer_takes_longer_than_the_gateway_waits(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = ConfigView.snapshot

    async def slow(view: ConfigView, accepted: Loaded) -> Mapping[str, Any]:
        await asyncio.sleep(RESTART_DELAY_SECONDS + 0.2)
        return await snapshot(view, accepted)

    monkeypatch.setattr(ConfigView, "snapshot", slow)
    answer = await change(gateway, "config.patch", {"gateway": {"controlUi": {"basePath": "/below"}}}, restartDelayMs=3_600_000)
    assert (answer["restart"]["delayMs"], answer["restart"]["coalesced"]) == (3_600_000, False)
