"""An agent with a scope of providers sees the models of those alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import Config
from openclaw_plugins.agents.plan import choose_models, missing_models, plan_agent
from tests.plugins.agents.fakes import FakeProviders, model

HOME = Path("/state")
PROVIDERS = FakeProviders([model("a/1"), model("b/1"), model("b/2")])


def plan(providers: list[str] | None, **entry: Any) -> Any:
    return plan_agent(Config.model_validate({"agents": {"entries": {"main": {"providers": providers, **entry}}}}), "main", HOME)


def test_the_first_model_is_one_of_a_permitted_provider() -> None:
    assert [info.ref for info in choose_models(plan(None), None, PROVIDERS).ready] == ["a/1"]
    assert [info.ref for info in choose_models(plan(["b"]), None, PROVIDERS).ready] == ["b/1"]


def test_an_agent_without_any_provider_is_told_so() -> None:
    chain = choose_models(plan([]), None, PROVIDERS)
    assert (chain.ready, chain.doubtful) == ((), ())
    assert chain.problems == ("agents.entries.main.providers leaves agent 'main' no provider; add one",)


@pytest.mark.parametrize("requested", ["a/1", None])
def test_a_model_of_another_provider_is_refused_by_name(requested: str | None) -> None:
    of_agent = plan(["b"]) if requested else plan(["b"], model="a/1")
    chain = choose_models(of_agent, requested, PROVIDERS)
    assert chain.ready == ()
    assert "add 'a' to agents.entries.main.providers" in chain.problems[0]
    assert "agent 'main' may not use \"a/1\"" in chain.problems[0]


def test_fallbacks_of_other_providers_are_left_out_and_reported() -> None:
    of_agent = plan(["b"], model={"primary": "b/2", "fallbacks": ["a/1", "b/1"]})
    assert [info.ref for info in choose_models(of_agent, None, PROVIDERS).ready] == ["b/2", "b/1"]
    (line,) = missing_models([of_agent], PROVIDERS)
    assert 'may not use "a/1"' in line
