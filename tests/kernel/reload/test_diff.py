"""What differs between two configs, and keeping parts of the one that runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_config.models import Config
from openclaw_config.secrets import Secret
from openclaw_kernel.reload.diff import changed_paths, hold, named


def config(**content: Any) -> Config:
    return Config.model_validate(content)


def agents(model: Any) -> Config:
    return config(agents={"defaults": {"model": model}})


def secret(value: str) -> Config:
    return config(secrets={"entries": {"a": Secret(value)}})


def groups(value: int) -> Config:
    return config(channels={"t": {"groups": {-100: {"a": value}}}})


def provider(*models: dict[str, Any]) -> Config:
    return config(models={"providers": {"x": {"models": list(models)}}})


LARGER = {"id": "small-1.5", "maxTokens": 11}
MODELS = "models.providers.x.models"
SMALL, LARGE = {"id": "small-1.5", "maxTokens": 10}, {"id": "large", "maxTokens": 20}

TABLE = [
    ("nothing changed", config(), config(), ()),
    ("a default that is written out", config(), config(gateway={"port": 18789}), ()),
    ("a leaf", config(), config(gateway={"port": 1}), ("gateway.port",)),
    ("two leaves, sorted", config(), config(logging={"level": "debug"}, gateway={"port": 1}), ("gateway.port", "logging.level")),
    ("an empty section that appears", config(), config(channels={"irc": None}), ("channels.irc",)),
    ("a section that appears", config(), config(channels={"irc": {"nick": "x", "tls": True}}), ("channels.irc.nick", "channels.irc.tls")),
    ("a section that vanishes", config(channels={"irc": {"nick": "x"}}), config(), ("channels.irc.nick",)),
    ("a section that is emptied", config(channels={"irc": {"nick": "x"}}), config(channels={"irc": {}}), ("channels.irc.nick",)),
    ("null in place of nothing", config(channels={"irc": {"nick": None}}), config(channels={"irc": {}}), ()),
    ("a number in place of true", config(channels={"irc": {"tls": 1}}), config(channels={"irc": {"tls": True}}), ("channels.irc.tls",)),
    ("a list without ids is one value", config(), config(gateway={"trustedProxies": ["10.0.0.1"]}), ("gateway.trustedProxies",)),
    ("an entry of a list by its id", provider(SMALL, LARGE), provider(LARGER, LARGE), (f"{MODELS}.small-1.5.maxTokens",)),
    ("an entry that is gone", provider(SMALL, LARGE), provider(SMALL), (f"{MODELS}.large.id", f"{MODELS}.large.maxTokens")),
    ("another order of entries", provider(SMALL, LARGE), provider(LARGE, SMALL), (MODELS,)),
    ("an agent that says nothing of itself", config(), config(agents={"entries": {"a": {}}}), ("agents.entries.a",)),
    ("an agent that comes", config(), config(agents={"entries": {"a": {"name": "A"}}}), ("agents.entries.a.name",)),
    ("a text that becomes a mapping", agents("a/b"), agents({"primary": "a/b"}), ("agents.defaults.model",)),
    ("another secret behind the same reference", secret("1"), secret("2"), ("secrets.entries.a",)),
    ("the same secret", secret("1"), secret("1"), ()),
    ("keys that are numbers", groups(1), groups(2), ("channels.t.groups.-100.a",)),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_changed_leaves_are_named(before: Config, after: Config, expected: tuple[str, ...]) -> None:
    assert named(changed_paths(before, after)) == expected
    assert set(named(changed_paths(after, before))) == set(expected)


entries = st.builds(lambda name, more: {"id": name, "v": more}, st.sampled_from(["p", "q"]), st.integers(0, 2))
sections = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.lists(entries, max_size=2, unique_by=lambda entry: entry["id"]),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c.d"]), inner, max_size=3),
    max_leaves=6,
)
configs = st.builds(
    lambda channels, port: config(channels=channels, gateway={"port": port}),
    st.dictionaries(st.sampled_from(["x", "y"]), st.dictionaries(st.sampled_from(["a", "b"]), sections, max_size=2), max_size=2),
    st.integers(1, 2),
)


@given(configs, configs)
def test_nothing_differs_where_all_that_changed_is_held(before: Config, after: Config) -> None:
    assert changed_paths(hold(after, before, changed_paths(before, after)), before) == []
    assert changed_paths(hold(after, before, ()), after) == []


def test_a_held_section_that_vanished_stays_whole() -> None:
    running = config(channels={"irc": {"nick": "x", "rooms": {"a": 1}}})
    candidate = config(channels={"telegram": {}})
    held = hold(candidate, running, [path for path in changed_paths(running, candidate) if path[:2] == ("channels", "irc")])
    assert held.channels == {"telegram": {}, "irc": {"nick": "x", "rooms": {"a": 1}}}


def test_a_held_leaf_of_a_model_is_the_running_one_and_its_neighbours_are_not() -> None:
    held = hold(config(gateway={"port": 2, "bind": "lan"}), config(gateway={"port": 1}), [("gateway", "port")])
    assert (held.gateway.port, held.gateway.bind) == (1, "lan")
