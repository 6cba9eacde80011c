"""What the config says of an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import Config, Usage
from openclaw_plugins.agents.cost import cost_usd, sum_costs
from openclaw_plugins.agents.plan import choose_models, plan_agent
from tests.plugins.agents.fakes import FakeProviders, model

HOME = Path("/state")


def plan(agents: dict[str, Any], agent_id: str = "main") -> Any:
    return plan_agent(Config.model_validate({"agents": agents}), agent_id, HOME)


def test_without_agents_there_is_main_with_the_defaults() -> None:
    main = plan({})
    assert (main.id, main.is_default, main.model, main.fallbacks) == ("main", True, None, ())
    assert (main.timeout_seconds, main.max_tool_rounds) == (600, 16)
    assert main.workspace == HOME / "workspace" / "main"
    assert plan({}, "other") is None


def test_an_agent_overrides_the_defaults_one_by_one() -> None:
    agents = {
        "defaults": {"model": {"primary": "a/1", "fallbacks": ["b/2"]}, "timeoutSeconds": 10, "tools": {"deny": ["x"]}},
        "entries": {
            "main": {},
            "work": {
                "model": "c/3",
                "timeoutSeconds": 20,
                "maxToolRounds": 0,
                "thinking": "high",
                "tools": {"allow": ["shell"]},
                "identity": {"name": "Worker", "emoji": "W"},
            },
        },
    }
    main, work = plan(agents), plan(agents, "work")
    assert (main.model, main.fallbacks, main.timeout_seconds, main.deny) == ("a/1", ("b/2",), 10, {"x"})
    assert main.model_key == "agents.defaults.model"
    assert (work.model, work.fallbacks, work.timeout_seconds, work.max_tool_rounds) == ("c/3", (), 20, 0)
    assert (work.model_key, work.thinking, work.name, work.emoji) == ("agents.entries.work.model", "high", "Worker", "W")
    assert (work.allow, work.deny) == ({"shell"}, frozenset())


@pytest.mark.parametrize(
    ("agents", "agent_id", "folder"),
    [
        ({"entries": {"work": {}}}, "work", "/state/workspace/work"),
        ({"entries": {"work": {"workspace": "/own"}}}, "work", "/own"),
        ({"entries": {"work": {"workspace": "own"}}}, "work", "/state/own"),
        ({"defaults": {"workspace": "/shared"}, "entries": {"main": {}, "work": {}}}, "main", "/shared"),
        ({"defaults": {"workspace": "/shared"}, "entries": {"main": {}, "work": {}}}, "work", "/shared-work"),
    ],
)
def test_every_agent_has_a_folder_of_its_own(agents: dict[str, Any], agent_id: str, folder: str) -> None:
    assert plan(agents, agent_id).workspace == Path(folder)


MODELS = [model("a/1"), model("a/2"), model("b/3")]


@pytest.mark.parametrize(
    ("agents", "requested", "problems", "chosen"),
    [
        ({}, None, {}, ["a/1"]),
        ({}, None, {"a": "no key"}, ["b/3"]),
        ({"defaults": {"model": "b/3"}}, None, {}, ["b/3"]),
        ({"defaults": {"model": "b"}}, None, {}, ["b/3"]),
        ({"defaults": {"model": {"primary": "b/3", "fallbacks": ["a/2", "b/3"]}}}, None, {}, ["b/3", "a/2"]),
        ({"defaults": {"model": {"primary": "b/3", "fallbacks": ["a/2"]}}}, "a/1", {}, ["a/1", "a/2"]),
        ({"defaults": {"model": {"primary": "b/3", "fallbacks": ["a/2"]}}}, None, {"b": "no key"}, ["a/2", "b/3"]),
        ({}, None, {"a": "no key", "b": "no key"}, ["a/1", "b/3"]),
        ({"defaults": {"model": {"primary": "x/9", "fallbacks": ["a/2"]}}}, None, {}, ["a/2"]),
        ({"defaults": {"model": "x/9"}}, None, {}, []),
    ],
)
def test_the_chain_is_what_was_asked_for_and_the_fallbacks_those_in_doubt_last(
    agents: dict[str, Any], requested: str | None, problems: dict[str, str], chosen: list[str]
) -> None:
    chain = choose_models(plan(agents), requested, FakeProviders(MODELS, problems))
    assert [info.ref for info in (*chain.ready, *chain.doubtful)] == chosen
    assert {info.provider for info in chain.doubtful} <= set(problems)
    assert bool(chain.problems) == ("x/9" in str(agents))


def test_a_cost_is_only_known_where_every_price_needed_is() -> None:
    priced = model(input_price=3.0, output_price=15.0, cache_read_price=0.3)
    usage = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=1_000_000)
    assert cost_usd(priced, usage) == pytest.approx(3.0 + 1.5 + 0.3)
    assert cost_usd(priced, Usage(cache_write_tokens=1)) is None
    assert cost_usd(model(), Usage()) == 0
    assert cost_usd(model(), Usage(input_tokens=1)) is None
    assert (sum_costs([1.0, 2.0]), sum_costs([1.0, None]), sum_costs([])) == (3.0, None, None)
