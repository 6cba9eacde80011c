"""What an agent may be handed follows from the config alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openclaw_config.agent_scope import NOTHING, AgentScope, agent_scope
from openclaw_config.load import ConfigError, load
from openclaw_config.models import Config

ENTRIES = {"entries": {"github": "g", "jira": "j"}}


def config(**agents: Any) -> Config:
    """A config with two secrets and two providers."""
    return Config.model_validate({"secrets": ENTRIES, "models": {"providers": {"echo": {}, "openai": {}}}, "agents": agents})


def test_by_default_an_agent_gets_no_secret_and_every_provider() -> None:
    assert agent_scope(config(), "main") == AgentScope()
    assert agent_scope(config(), "main").permits_provider("openai")


def test_what_an_agent_names_replaces_the_defaults() -> None:
    found = config(
        defaults={"secrets": ["github"], "providers": ["echo"]},
        entries={"own": {"secrets": ["jira"], "providers": ["openai"]}, "none": {"secrets": [], "providers": []}, "default": {}},
    )
    assert agent_scope(found, "default") == AgentScope(secrets=frozenset({"github"}), providers=frozenset({"echo"}))
    assert agent_scope(found, "own") == AgentScope(secrets=frozenset({"jira"}), providers=frozenset({"openai"}))
    assert agent_scope(found, "none") == NOTHING
    assert not agent_scope(found, "none").permits_provider("echo")


@pytest.mark.parametrize("agent_id", ["", "ghost", "MAIN", "main "])
def test_an_agent_that_is_not_configured_gets_nothing(agent_id: str) -> None:
    assert agent_scope(config(defaults={"secrets": ["github"]}), agent_id) == NOTHING
    assert agent_scope(config(defaults={"secrets": ["github"]}, entries={"other": {}}), "main") == NOTHING


def test_a_name_that_names_nothing_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "openclaw.yaml"
    path.write_text(
        "secrets: {entries: {github: x}}\nmodels: {providers: {echo: {}}}\nagents:\n  defaults:\n    secrets: [githb]\n"
        "  entries:\n    main:\n      secrets: [els]\n      providers: [ech, vl]\n"
    )
    with pytest.raises(ConfigError) as refused:
        load(path, environment={})
    assert [str(issue) for issue in refused.value.issues] == [
        "openclaw.yaml:5:5: agents.defaults.secrets: names 'githb', which secrets.entries does not have; did you mean 'github'?",
        "openclaw.yaml:8:7: agents.entries.main.secrets: names 'els', which secrets.entries does not have; add it there; there are: github",
        "openclaw.yaml:9:7: agents.entries.main.providers: names 'ech', which models.providers does not have; did you mean 'echo'?",
        "openclaw.yaml:9:7: agents.entries.main.providers: names 'vl', which models.providers does not have; add it there; there are: echo",
    ]
