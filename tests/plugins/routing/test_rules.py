"""Golden tables and properties of the routing function."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_kernel.api import Config, InboundMessage, PeerKind, Target
from openclaw_plugins.routing.rules import default_agent_id, problems, route


def config(
    bindings: list[dict[str, Any]] | None = None,
    *,
    agents: tuple[str, ...] = ("main", "work", "home", "play"),
    session: dict[str, Any] | None = None,
) -> Config:
    return Config.model_validate(
        {"agents": {"entries": {name: {} for name in agents}}, "bindings": bindings or [], "session": session or {}}
    )


def message(
    peer_id: str = "123",
    *,
    kind: PeerKind = "direct",
    channel: str = "telegram",
    account: str = "default",
    thread: str | None = None,
    extra: dict[str, Any] | None = None,
) -> InboundMessage:
    target = Target(channel=channel, account_id=account, peer_kind=kind, peer_id=peer_id, thread_id=thread)
    return InboundMessage(target=target, message_id="1", sender_id="123", text="hi", extra=extra or {})


def binding(agent: str, **match: Any) -> dict[str, Any]:
    return {"agentId": agent, "match": {"channel": "telegram", **match}}


PEER = binding("work", peer={"kind": "group", "id": "-5"})
ANY_GROUP = binding("home", peer={"kind": "group", "id": "*"})
ROLES = binding("play", guildId="g1", roles=["admin", "owner"])
GUILD = binding("work", guildId="g1")
TEAM = binding("home", teamId="t1")
ACCOUNT = binding("play", accountId="bot2")
ANY_ACCOUNT = binding("work", accountId="*")
DEFAULT_ACCOUNT = binding("home")
IN_GUILD = {"guildId": "g1", "teamId": "t1", "roles": ["owner"]}


@pytest.mark.parametrize(
    ("bindings", "incoming", "agent", "reason"),
    [
        ([ANY_GROUP, PEER], message("-5", kind="group"), "work", "bindings.1 (peer)"),
        ([ANY_GROUP, PEER], message("-6", kind="group"), "home", "bindings.0 (any peer)"),
        ([PEER], message("-5", kind="channel"), "work", "bindings.0 (peer)"),
        ([PEER], message("-5", kind="direct"), "main", "no binding matches: default agent main"),
        ([PEER], message("-55", kind="group"), "main", "no binding matches: default agent main"),
        (
            [ANY_GROUP, PEER],
            message("-9", kind="group", extra={"parentPeerId": "-5"}),
            "work",
            "bindings.1 (parent peer)",
        ),
        ([ANY_GROUP, GUILD], message("-9", kind="group", extra=IN_GUILD), "home", "bindings.0 (any peer)"),
        ([GUILD, ROLES], message("-9", kind="group", extra=IN_GUILD), "play", "bindings.1 (guild and roles)"),
        ([GUILD, ROLES], message("-9", kind="group", extra={"guildId": "g1"}), "work", "bindings.0 (guild)"),
        ([TEAM, GUILD], message("-9", kind="group", extra=IN_GUILD), "work", "bindings.1 (guild)"),
        ([ACCOUNT, ANY_ACCOUNT, TEAM], message(extra=IN_GUILD), "home", "bindings.2 (team)"),
        ([ANY_ACCOUNT, ACCOUNT], message(account="bot2"), "play", "bindings.1 (account)"),
        ([ANY_ACCOUNT, DEFAULT_ACCOUNT], message(), "home", "bindings.1 (account)"),
        ([DEFAULT_ACCOUNT], message(account="bot2"), "main", "no binding matches: default agent main"),
        ([DEFAULT_ACCOUNT, ANY_ACCOUNT], message(account="bot2"), "work", "bindings.1 (channel)"),
        ([ANY_ACCOUNT], message(channel="slack"), "main", "no binding matches: default agent main"),
        ([binding("work"), binding("home")], message(), "work", "bindings.0 (account)"),
        (
            [binding("work", guildId="g1", peer={"kind": "group", "id": "-5"})],
            message("-5", kind="group"),
            "main",
            None,
        ),
        (
            [binding("work", guildId="7")],
            message("-5", kind="group", extra={"guildId": 7}),
            "work",
            "bindings.0 (guild)",
        ),
    ],
)
def test_the_most_specific_binding_decides(
    bindings: list[dict[str, Any]], incoming: InboundMessage, agent: str, reason: str | None
) -> None:
    decided = route(incoming, config(bindings))
    assert decided.agent_id == agent
    if reason is not None:
        assert decided.reason == reason


@pytest.mark.parametrize(
    ("session", "incoming", "key"),
    [
        ({}, message(), "agent:main:main"),
        ({"mainKey": "lobby"}, message(), "agent:main:lobby"),
        ({"dmScope": "per-peer"}, message("Bob"), "agent:main:direct:bob"),
        ({"dmScope": "per-channel-peer"}, message("Bob"), "agent:main:telegram:direct:bob"),
        ({"dmScope": "per-account-channel-peer"}, message("Bob", account="B2"), "agent:main:telegram:b2:direct:bob"),
        ({"dmScope": "per-peer"}, message(""), "agent:main:direct:unknown"),
        ({}, message("-5", kind="group"), "agent:main:telegram:group:-5"),
        ({}, message("-5", kind="channel"), "agent:main:telegram:channel:-5"),
        ({}, message("-5", kind="group", thread="7"), "agent:main:telegram:group:-5:thread:7"),
        ({}, message("!Room:example.org", kind="group"), "agent:main:telegram:group:!room:example.org"),
        ({"dmScope": "per-peer"}, message("9", thread="7"), "agent:main:direct:9:thread:7"),
    ],
)
def test_the_session_key_follows_kind_and_scope(session: dict[str, Any], incoming: InboundMessage, key: str) -> None:
    assert route(incoming, config(session=session)).session_key == key


def test_a_peer_id_that_looks_like_a_thread_is_another_session_than_the_thread() -> None:
    forged = route(message("-5:thread:7", kind="group"), config()).session_key
    real = route(message("-5", kind="group", thread="7"), config()).session_key
    assert forged != real


LINKS = {"alice": ["telegram:123", "irc:Alice"], "bob": ["77"]}


@pytest.mark.parametrize(
    ("scope", "incoming", "key"),
    [
        ("per-peer", message("123"), "agent:main:direct:alice"),
        ("per-peer", message("Alice", channel="irc"), "agent:main:direct:alice"),
        ("per-peer", message("alice", channel="irc2"), "agent:main:direct:alice"),
        ("per-peer", message("123", channel="irc"), "agent:main:direct:123"),
        ("per-channel-peer", message("77", channel="irc"), "agent:main:irc:direct:bob"),
        ("main", message("123"), "agent:main:main"),
        ("per-peer", message("123", kind="group"), "agent:main:telegram:group:123"),
    ],
)
def test_identity_links_replace_the_peer_of_direct_messages_only(scope: str, incoming: InboundMessage, key: str) -> None:
    assert route(incoming, config(session={"dmScope": scope, "identityLinks": LINKS})).session_key == key


def test_a_binding_may_have_its_own_direct_message_scope() -> None:
    bound = {**binding("work"), "session": {"dmScope": "per-peer"}}
    decided = route(message("9"), config([bound], session={"dmScope": "main"}))
    assert decided.session_key == "agent:work:direct:9"


def test_a_binding_to_an_unknown_agent_falls_through_and_says_so() -> None:
    settled = config([binding("ghost"), binding("work", accountId="*")], agents=("main", "work"))
    decided = route(message(), settled)
    assert decided.agent_id == "work"
    assert "bindings.0 skipped: there is no agent ghost" in decided.reason
    assert problems(settled) == ["bindings.0.agentId: there is no agent 'ghost'; add it under agents.entries or use one of main, work"]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [({}, "main"), ({"b": {}, "a": {}}, "b"), ({"b": {}, "a": {"default": True}}, "a")],
)
def test_the_default_agent_is_flagged_else_first_else_main(entries: dict[str, Any], expected: str) -> None:
    settled = Config.model_validate({"agents": {"entries": entries}})
    assert default_agent_id(settled) == expected
    assert route(message(), settled).agent_id == expected


@pytest.mark.parametrize(
    ("extra", "agent", "key"),
    [
        ({"sessionKey": "agent:work:telegram:group:-5"}, "work", "agent:work:telegram:group:-5"),
        ({"sessionKey": "Agent:Work:Main"}, "work", "agent:work:lobby"),
        ({"sessionKey": "main"}, "main", "agent:main:lobby"),
        ({"sessionKey": "notes"}, "main", "agent:main:notes"),
        ({"sessionKey": "notes", "agentId": "work"}, "work", "agent:work:notes"),
        ({"sessionKey": "agent:work:main", "agentId": "home"}, "work", "agent:work:lobby"),
        ({"agentId": "home"}, "home", "agent:home:lobby"),
        ({"sessionKey": "agent:ghost:main"}, "ghost", "agent:ghost:lobby"),
        ({}, "main", "agent:main:lobby"),
    ],
)
def test_a_webchat_client_chooses_its_session(extra: dict[str, Any], agent: str, key: str) -> None:
    decided = route(message(channel="webchat", extra=extra), config(session={"mainKey": "lobby"}))
    assert (decided.agent_id, decided.session_key) == (agent, key)


def test_a_chat_channel_cannot_choose_a_session_by_its_facts() -> None:
    decided = route(message("9", kind="group", extra={"sessionKey": "agent:work:main", "agentId": "work"}), config())
    assert (decided.agent_id, decided.session_key) == ("main", "agent:main:telegram:group:9")


identifiers = st.text(max_size=20)
facts = st.dictionaries(
    st.sampled_from(["guildId", "teamId", "roles", "parentPeerId", "sessionKey", "agentId"]),
    st.one_of(st.none(), identifiers, st.integers(), st.booleans(), st.lists(identifiers, max_size=3)),
)
kinds = st.sampled_from(["direct", "group", "channel"])
peers = st.one_of(st.sampled_from(["-5", "123", "*"]), identifiers)
matches = st.fixed_dictionaries(
    {"channel": st.sampled_from(["telegram", "webchat", "irc"])},
    optional={
        "accountId": st.sampled_from(["*", "default", "bot2"]),
        "peer": st.fixed_dictionaries({"kind": kinds, "id": peers}),
        "guildId": identifiers,
        "teamId": identifiers,
        "roles": st.lists(identifiers, max_size=2),
    },
)
bindings = st.lists(st.fixed_dictionaries({"agentId": st.sampled_from(["main", "work", "ghost"]), "match": matches}), max_size=5)
scopes = st.sampled_from(["main", "per-peer", "per-channel-peer", "per-account-channel-peer"])
messages = st.builds(
    message,
    peers,
    kind=kinds,
    channel=st.sampled_from(["telegram", "webchat", "irc"]),
    account=st.sampled_from(["default", "bot2", ""]),
    thread=st.one_of(st.none(), identifiers),
    extra=facts,
)


@settings(max_examples=300, deadline=None)
@given(incoming=messages, bound=bindings, scope=scopes)
def test_every_message_gets_one_route_and_always_the_same(incoming: InboundMessage, bound: list[dict[str, Any]], scope: str) -> None:
    first = route(incoming, config(bound, session={"dmScope": scope}))
    assert first == route(incoming, config(bound, session={"dmScope": scope}))
    assert first.session_key.startswith(f"agent:{first.agent_id}:")
    assert first.session_key == first.session_key.lower()
    assert first.reason
    if incoming.target.channel != "webchat":
        assert first.agent_id in ("main", "work")
