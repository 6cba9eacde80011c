"""One strict schema of the whole config: it says of a file what the gateway says, and knows what may stand in a file besides."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field

from openclaw_config.composed import OPEN, SECRET, Section, compose, for_files, hints_of
from openclaw_config.describe import schema_of
from openclaw_config.home import DEFAULT_FILE
from openclaw_config.schema_paths import children_of, node_at
from openclaw_config.secrets import Secret
from openclaw_config.source import parse


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Account(Strict):
    bot: str
    """Who writes."""


class ChatSettings(Strict):
    token: Secret | None = None
    """Opens it."""
    accounts: dict[str, Account] = {}
    """By name."""
    limit: Annotated[int, Field(ge=1, le=9)] = 3
    """How many."""


class ModelSettings(Strict):
    api_key: Secret | None = Field(default=None, alias="apiKey")
    """Opens it."""


SECTIONS = (
    Section(id="chat", kind="channel", schema=schema_of(ChatSettings)),
    Section(id="plain", kind="channel", schema=None),
    Section(id="other", kind="channel", schema=OPEN),
    Section(id="llm", kind="provider", schema=schema_of(ModelSettings), apis=["llm-completions"], ids=["cloud"]),
    Section(id="echo", kind="provider", schema=None),
    Section(id="local", kind="provider", schema=None),
    Section(id="tool", kind="plugin", schema=schema_of(ChatSettings)),
)
WHOLE = compose(SECTIONS)
OF_FILE = for_files(WHOLE, comment="a comment")


def faults(schema: Mapping[str, Any], document: Any) -> list[str]:
    """Where a document is not as the schema wants it."""
    return sorted(".".join(map(str, error.absolute_path)) for error in Draft202012Validator(schema).iter_errors(document))


@pytest.mark.parametrize("schema", [WHOLE, OF_FILE])
def test_it_is_a_schema_of_the_draft_that_it_names(schema: Mapping[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    names = {f"#/$defs/{name}" for name in schema["$defs"]}
    assert set(references(schema)) <= names


def references(node: Any) -> Iterator[str]:
    """Every reference in a schema."""
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for item in node.values():
            yield from references(item)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def test_the_default_file_is_as_the_schema_of_files_wants_it() -> None:
    assert faults(OF_FILE, parse("openclaw.yaml", DEFAULT_FILE)) == []


VALID: dict[str, Any] = {
    "gateway": {"port": 1, "auth": {"mode": "none"}},
    "channels": {"chat": {"token": "x", "accounts": {"one": {"bot": "b"}}, "enabled": False}, "plain": {}, "other": {"anything": 1}},
    "models": {"providers": {"llm": {"apiKey": "k"}, "cloud": {}, "mine": {"api": "llm-completions", "apiKey": "k"}, "echo": {}}},
    "plugins": {"entries": {"tool": {"config": {"limit": 9}}, "chat": {"enabled": False}}},
    "bindings": [{"agentId": "main", "match": {"channel": "chat"}}],
}


@pytest.mark.parametrize("schema", [WHOLE, OF_FILE])
def test_what_is_valid_passes(schema: Mapping[str, Any]) -> None:
    assert faults(schema, VALID) == []


@pytest.mark.parametrize(
    ("where", "value", "fault"),
    [
        (("gatway",), {}, ""),
        (("gateway", "prot"), 1, "gateway"),
        (("gateway", "port"), 65_536, "gateway.port"),
        (("gateway", "port"), [], "gateway.port"),
        (("gateway", "bind"), "wan", "gateway.bind"),
        (("channels", "caht"), {}, "channels"),
        (("channels", "plain", "token"), "x", "channels.plain"),
        (("channels", "chat", "limit"), 10, "channels.chat.limit"),
        (("channels", "chat", "accounts", "one", "bot"), 3, "channels.chat.accounts.one.bot"),
        (("models", "providers", "llm", "apiKei"), "x", "models.providers.llm"),
        (("models", "providers", "mine", "apiKei"), "x", "models.providers.mine"),
        (("models", "providers", "mine", "api"), "nobody", "models.providers.mine.api"),
        (("models", "providers", "nobodys"), {}, "models.providers.nobodys"),
        (("models", "providers", "cloud", "api"), "echo", None),
        (("plugins", "entries", "tool", "config", "limti"), 1, "plugins.entries.tool.config"),
        (("plugins", "entries", "tol"), {}, "plugins.entries"),
        (("bindings", 0, "agentId"), None, "bindings.0.agentId"),
    ],
)
@pytest.mark.parametrize("schema", [WHOLE, OF_FILE], ids=["whole", "of a file"])
def test_what_is_wrong_is_refused_where_it_stands(
    schema: Mapping[str, Any], where: tuple[str | int, ...], value: Any, fault: str | None
) -> None:
    document: Any = copy.deepcopy(VALID)
    holder = document
    for part in where[:-1]:
        holder = holder[part]
    holder[where[-1]] = value
    assert faults(schema, document) == ([] if fault is None else [fault])


@pytest.mark.parametrize(
    "document",
    [
        {"gateway": {"port": "${PORT}", "bind": "${env:BIND}", "auth": {"token": "${file:t}"}}},
        {"gateway": None, "channels": {"chat": None}, "logging": {"level": None}},
        {"$include": "a.yaml", "gateway": {"$include": ["b.yaml", "c.yaml"]}, "bindings": {"$include": "d.yaml"}},
        {"bindings": [{"$include": "binding.yaml", "agentId": "main"}]},
        {"$schema": "./openclaw.schema.json", "channels": {"chat": {"accounts": {"$include": "a.yaml"}}}},
        {"models": {"providers": {"llm": {"$include": "llm.yaml"}}}},
    ],
)
def test_a_file_may_hold_references_includes_and_empty_sections(document: Any) -> None:
    assert faults(OF_FILE, document) == []
    assert faults(WHOLE, document) != []


def test_an_include_names_files_and_nothing_else_makes_up_for_a_missing_key() -> None:
    assert faults(OF_FILE, {"gateway": {"$include": 3}}) == ["gateway.$include"]
    assert faults(OF_FILE, {"bindings": [{"agentId": "main"}]}) == ["bindings.0"]


def test_every_key_is_described_and_secrets_are_marked() -> None:
    for where in ("gateway.port", "channels.chat.limit", "plugins.entries.tool.config.token", "models.providers.llm.apiKey"):
        assert node_at(WHOLE, where.split("."))["description"], where
    assert node_at(WHOLE, ("channels", "chat", "token"))[SECRET] is True
    assert SECRET not in node_at(WHOLE, ("channels", "chat", "limit"))
    assert {"gateway.auth.token", "channels.chat.token", "models.providers.llm.apiKey", "secrets.entries.*"} <= hints_of(WHOLE).keys()


def test_an_entry_of_an_own_id_is_looked_up_as_its_plugins_own() -> None:
    assert list(children_of(WHOLE, node_at(WHOLE, ("models", "providers", "cloud")))) == ["enabled", "api", "apiKey"]
    assert "apiKey" in children_of(WHOLE, node_at(WHOLE, ("models", "providers", "anything")))
