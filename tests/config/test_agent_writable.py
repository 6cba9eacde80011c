"""What an agent may write is what is marked, leaf by leaf: everything else is refused, also what nobody has thought of yet."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import create_model

from openclaw_config.describe import schema_of
from openclaw_config.models import Config
from openclaw_config.schema_paths import agent_refusals, is_marked, leaves_of, new_references, node_at, parts_of

SCHEMA = schema_of(Config)
LEAVES = dict(leaves_of(SCHEMA))
OWN_KEY = "someone"

MARKED = {
    ("agents", "entries", "*", "name"),
    ("agents", "entries", "*", "identity", "name"),
    ("agents", "entries", "*", "identity", "emoji"),
}


def tree_with(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A tree that says this there; nothing else."""
    tree: Any = value
    for part in reversed(path):
        tree = {OWN_KEY if part == "*" else part: tree}
    return dict(tree)


def holders_of(path: tuple[str, ...]) -> dict[str, Any]:
    """A tree in which everything above the leaf is there already."""
    tree: dict[str, Any] = tree_with(path[:-1], {})
    return tree


def test_the_leaves_are_those_of_the_whole_file() -> None:
    assert len(LEAVES) > 60
    assert {("gateway", "auth", "token"), ("gateway", "tls", "clients"), ("logging", "level"), ("secrets", "entries", "*")} <= LEAVES.keys()


def test_what_an_agent_may_write_is_known_by_name() -> None:
    assert {path for path, node in LEAVES.items() if is_marked(node)} == MARKED


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_each_leaf_is_open_to_agents_only_where_it_is_marked(path: tuple[str, ...]) -> None:
    key = ".".join(OWN_KEY if part == "*" else part for part in path)
    refused = [] if path in MARKED else [key]
    before, after, other = holders_of(path), tree_with(path, "new"), tree_with(path, "other")
    assert agent_refusals(SCHEMA, before, after) == refused
    assert agent_refusals(SCHEMA, other, after) == refused
    assert agent_refusals(SCHEMA, after, before) == refused
    assert agent_refusals(SCHEMA, after, copy.deepcopy(after)) == []


def test_a_leaf_that_is_added_without_a_mark_is_closed_to_agents() -> None:
    wider = create_model("Wider", __base__=Config, fresh=(str, "x"))
    assert agent_refusals(wider.model_json_schema(by_alias=True), {}, {"fresh": "y"}) == ["fresh"]


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ({}, {"unheard": {"of": 1}}, ["unheard"]),
        ({}, {"channels": {"telegram": {"botToken": "x"}}}, ["channels.telegram"]),
        ({"channels": {"irc": {"nick": "a"}}}, {"channels": {"irc": {"nick": "b"}}}, ["channels.irc.nick"]),
        ({}, {"agents": {"entries": {"other": {"name": "x"}}}}, ["agents.entries.other"]),
        ({"agents": {"entries": {"main": {"name": "x"}}}}, {"agents": {"entries": {}}}, ["agents.entries.main"]),
        ({"agents": {"entries": {"main": {"name": "x"}}}}, {}, ["agents.entries.main"]),
        (
            {"agents": {"entries": {"main": {"name": "x"}}}},
            {"agents": {"entries": {"main": {"name": "y", "tools": {"allow": ["shell"]}}}}},
            ["agents.entries.main.tools.allow"],
        ),
        ({"agents": {"entries": {"main": {"name": "x"}}}}, {"agents": {"entries": {"main": 5}}}, ["agents.entries.main"]),
        ({"agents": {"entries": {"main": {}}}}, {"agents": {"entries": {"main": {"identity": {"emoji": "x"}}}}}, []),
        *(
            ({"agents": {"entries": {"main": {}}}}, {"agents": {"entries": {"main": {"name": value}}}}, ["agents.entries.main.name"])
            for value in ("${HOME}", "my ${HOME}", "${exec:/bin/true}", {"$include": "token"}, ["x"])
        ),
        ({"agents": {"entries": {"main": {"name": "${HOME}"}}}}, {"agents": {"entries": {"main": {"name": "x"}}}}, []),
    ],
)
def test_no_way_round_by_what_stands_above(before: dict[str, Any], after: dict[str, Any], refused: list[str]) -> None:
    assert agent_refusals(SCHEMA, before, after) == refused


@pytest.mark.parametrize(
    ("after", "keys"),
    [
        ({"a": {"b": "${exec:/bin/true}"}}, ["a.b"]),
        ({"a": {"b": ["plain", {"c": "${HOME}"}]}}, ["a.b"]),
        ({"a": {"b": {"$include": "other.yaml"}}}, ["a.b.$include"]),
        ({"a": {"b": 1, "c": "$HOME {x}", "kept": "${env:KEPT}"}}, []),
        ({}, []),
    ],
)
def test_references_that_a_change_puts_in_are_told_by_their_keys(after: dict[str, Any], keys: list[str]) -> None:
    assert new_references({"a": {"kept": "${env:KEPT}"}}, after) == keys


@pytest.mark.parametrize(
    ("path", "parts"), [("gateway.port", ("gateway", "port")), ("bindings[0].agentId", ("bindings", "0", "agentId")), ("/a/b", ("a", "b"))]
)
def test_a_path_is_read_as_clients_write_it(path: str, parts: tuple[str, ...]) -> None:
    assert parts_of(path) == parts


def test_a_node_is_found_through_references_lists_and_keys_of_the_file_s_own() -> None:
    assert node_at(SCHEMA, ("bindings", "0", "match", "peer", "id"))["type"] == "string"
    assert node_at(SCHEMA, ("agents", "entries", "main", "timeoutSeconds"))["description"].startswith("Overrides")
    assert node_at(SCHEMA, ("gateway", "nothing")) is None
