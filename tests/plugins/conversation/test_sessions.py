"""sessions.*: list, look up, patch, reset, delete, and what subscribers are told."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from openclaw_kernel.api import InvalidRequest, Scope, Sessions
from openclaw_plugins.conversation.methods_changes import delete_scopes, patch_scopes
from openclaw_plugins.conversation.wire import SessionsDeleteParams, SessionsPatchParams
from tests.plugins.conversation.harness import Gate, Harness, TestClient, until


async def keys(harness: Harness, **params: Any) -> list[str]:
    return [row["key"] for row in (await harness.call("sessions.list", None, **params))["sessions"]]


async def test_the_list_shows_the_last_changed_first(harness: Harness) -> None:
    for number, session in enumerate(["one", "two", "main", "agent:other:three"]):
        await harness.ask(f"About {session}", f"k{number}", session)
        await asyncio.sleep(0.003)
    listed = await harness.call("sessions.list", None, includeDerivedTitles=True, includeLastMessage=True)
    assert [row["key"] for row in listed["sessions"]] == [
        "agent:other:three",
        "agent:main:main",
        "agent:main:two",
        "agent:main:one",
    ]
    first = listed["sessions"][0]
    assert first["derivedTitle"] == "About agent:other:three"
    assert first["lastMessagePreview"] == "you said: About agent:other:three"
    assert (first["agentId"], first["status"], first["kind"]) == ("other", "done", "direct")
    assert (first["modelProvider"], first["model"]) == ("echo", "echo-1")
    assert listed["totalCount"] == 4
    assert listed["defaults"] == {"modelProvider": "echo", "model": "echo-1", "contextTokens": 8000}
    plain = (await harness.call("sessions.list"))["sessions"][0]
    assert "derivedTitle" not in plain
    assert "lastMessagePreview" not in plain


async def test_the_list_comes_in_pages(harness: Harness) -> None:
    for number in range(5):
        await harness.ask("hi", f"k{number}", f"s{number}")
        await asyncio.sleep(0.003)
    page = await harness.call("sessions.list", None, limit=2)
    assert (page["count"], page["hasMore"], page["nextOffset"], page["limitApplied"]) == (2, True, 2, 2)
    found = [row["key"] for row in page["sessions"]]
    while page["hasMore"]:
        page = await harness.call("sessions.list", None, limit=2, offset=page["nextOffset"])
        found += [row["key"] for row in page["sessions"]]
    assert found == [f"agent:main:s{number}" for number in (4, 3, 2, 1, 0)]
    assert page["nextOffset"] is None


async def test_the_list_can_be_narrowed(harness: Harness) -> None:
    await harness.ask("Pancakes with syrup", "k1", "food")
    await harness.ask("Trains", "k2", "agent:other:travel")
    await harness.ask("global things", "k3", "global")
    await harness.call("sessions.patch", None, key="food", label="Kitchen", pinned=True, boardFace="dashboard")
    assert await keys(harness, agentId="other") == ["agent:other:travel"]
    assert await keys(harness, label="Kitchen") == ["agent:main:food"]
    assert await keys(harness, search="PANCAKES") == ["agent:main:food"]
    assert await keys(harness, search="100%_") == []
    assert await keys(harness, boardFace="dashboard") == ["agent:main:food"]
    assert "global" not in await keys(harness)
    assert "global" in await keys(harness, includeGlobal=True)
    assert await keys(harness, activeMinutes=1, agentId="main") == ["agent:main:food"]
    assert await keys(harness, creatorId="somebody") == []
    harness.runtime.known.remove("other")
    assert await keys(harness, configuredAgentsOnly=True) == ["agent:main:food"]
    assert len(await keys(harness, sortBy="lastInteractionAt", requireLastInteraction=True)) == 2


async def test_an_archived_session_is_shown_only_when_asked_for(harness: Harness) -> None:
    await harness.ask("hi", "k1", "old")
    await harness.ask("hi", "k2", "new")
    patched = await harness.call("sessions.patch", None, key="old", archived=True)
    assert patched["entry"]["archivedAt"] == patched["entry"]["updatedAt"]
    assert await keys(harness) == ["agent:main:new"]
    assert await keys(harness, archived=True) == ["agent:main:old"]
    assert len(await keys(harness, archived="all")) == 2
    await harness.ask("hi again", "k3", "old")
    assert await keys(harness, archived=True) == []


async def test_the_lists_of_the_control_ui(harness: Harness) -> None:
    await harness.ask("hi", "k1", "old")
    await harness.ask("hi", "k2", "new")
    await harness.ask("hi", "k3", "child")
    await harness.store.write(
        lambda connection: connection.execute(
            "UPDATE conversation_sessions SET spawned_by = 'agent:main:old' WHERE key = 'agent:main:child'"
        )
    )
    assert await keys(harness, sortBy="activity", includePeople=True, includeActivitySummary=True, excludeSubagents=True) == [
        "agent:main:new",
        "agent:main:old",
    ]
    assert await keys(harness, hasBoard=True, archived="all") == []
    assert len(await keys(harness, hasBoard=False)) == 3


async def test_a_patch_is_kept_and_null_clears(harness: Harness) -> None:
    patched = await harness.call(
        "sessions.patch",
        None,
        key="Main",
        label="Home",
        model="echo/echo-2",
        thinkingLevel="high",
        verboseLevel="on",
        icon="🏠",
    )
    assert patched["key"] == "agent:main:main"
    assert patched["resolved"] == {"modelProvider": "echo", "model": "echo-2"}
    entry = patched["entry"]
    assert (entry["label"], entry["thinkingLevel"], entry["verboseLevel"], entry["icon"]) == ("Home", "high", "on", "🏠")
    await harness.restart()
    await harness.ask("hi", "k1")
    turn = harness.runtime.turns[-1]
    assert (turn.model, turn.thinking) == ("echo/echo-2", "high")
    cleared = await harness.call("sessions.patch", None, key="main", label=None, model=None, thinkingLevel=None, verboseLevel=None)
    assert not {"label", "thinkingLevel", "verboseLevel"} & cleared["entry"].keys()
    assert cleared["entry"]["icon"] == "🏠"
    await harness.ask("hi", "k2")
    assert (harness.runtime.turns[-1].model, harness.runtime.turns[-1].thinking) == (None, None)


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({"model": "nope/none"}, "there is no model"),
        ({"thinkingLevel": "deep"}, "no level"),
        ({"expectedSessionId": "another"}, "another session id"),
        ({"expectedPermissionMode": "guarded"}, "not what was expected"),
        ({"label": "Taken"}, "is used by agent:main:second"),
    ],
)
async def test_a_patch_that_cannot_be_changes_nothing(harness: Harness, patch: dict[str, Any], text: str) -> None:
    await harness.ask("hi", "k1")
    await harness.call("sessions.patch", None, key="second", label="Taken")
    with pytest.raises(InvalidRequest, match=text):
        await harness.call("sessions.patch", None, key="main", pinned=True, **patch)
    (row,) = (await harness.call("sessions.list", None, search=":main:main"))["sessions"]
    assert row["pinned"] is False


@pytest.mark.parametrize(
    ("patch", "admin"),
    [
        ({"label": "x", "pinned": True, "model": None, "expectedSessionId": "y"}, False),
        ({"permissionMode": "workspace"}, False),
        ({"permissionMode": "full"}, True),
        ({"execHost": "node"}, True),
        ({"sendPolicy": None}, True),
    ],
)
def test_a_patch_asks_for_the_scope_it_needs(patch: dict[str, Any], *, admin: bool) -> None:
    params = SessionsPatchParams.model_validate({"key": "main", **patch})
    assert tuple(patch_scopes(params)) == ((Scope.ADMIN,) if admin else ())


def test_a_writer_may_delete_only_what_is_archived() -> None:
    assert tuple(delete_scopes(SessionsDeleteParams.model_validate({"key": "x"}))) == (Scope.ADMIN,)
    assert tuple(delete_scopes(SessionsDeleteParams.model_validate({"key": "x", "archivedOnly": True}))) == ()


async def test_a_reset_begins_an_empty_transcript_and_keeps_the_old_one(harness: Harness) -> None:
    await harness.ask("remember", "k1")
    before = (await harness.call("chat.history", None, sessionKey="main"))["sessionId"]
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k2")
    await gate.running("work")
    reset = await harness.call("sessions.reset", None, key="main")
    assert (await harness.events.terminal("k2"))["state"] == "aborted"
    assert reset["entry"]["sessionId"] != before
    assert await harness.texts() == []
    old = await harness.call("chat.history", None, sessionKey="main", sessionId=before)
    assert [message["role"] for message in old["messages"]] == ["user", "assistant", "user", "assistant"]
    gate.let("new")
    await harness.ask("new", "k3")
    assert harness.runtime.turns[-1].history == ()
    assert harness.runtime.turns[-1].session_id == reset["entry"]["sessionId"]


async def test_the_main_session_cannot_be_deleted(harness: Harness) -> None:
    await harness.ask("hi", "k1")
    for key in ("main", "agent:main:main", "agent:other:main"):
        with pytest.raises(InvalidRequest, match="cannot be deleted"):
            await harness.call("sessions.delete", None, key=key)
    assert await harness.texts() != []


async def test_a_deleted_session_is_gone_with_its_transcripts(harness: Harness) -> None:
    await harness.ask("one", "k1", "side")
    await harness.call("sessions.reset", None, key="side")
    await harness.ask("two", "k2", "side")
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("three", "k3", "side")
    await gate.running("three")
    deleted = await harness.call("sessions.delete", None, key="side")
    assert deleted == {"ok": True, "key": "agent:main:side", "deleted": True, "archived": []}
    assert (await harness.events.terminal("k3"))["state"] == "aborted"
    assert await keys(harness) == []
    assert await harness.rows("SELECT count(*) FROM conversation_messages") == [(0,)]
    again = await harness.call("sessions.delete", None, key="side")
    assert again["deleted"] is False
    changed = await harness.events.first("sessions.changed", reason="delete")
    assert changed["sessionKey"] == "agent:main:side"


async def test_a_transcript_can_outlive_its_session(harness: Harness) -> None:
    await harness.ask("one", "k1", "side")
    session_id = (await harness.call("chat.history", None, sessionKey="side"))["sessionId"]
    deleted = await harness.call("sessions.delete", None, key="side", deleteTranscript=False)
    assert deleted["archived"] == [session_id]
    old = await harness.call("chat.history", None, sessionKey="side", sessionId=session_id)
    assert len(old["messages"]) == 2


async def test_only_what_is_archived_is_deleted_when_that_is_asked(harness: Harness) -> None:
    await harness.ask("one", "k1", "side")
    assert not (await harness.call("sessions.delete", None, key="side", archivedOnly=True))["deleted"]
    await harness.call("sessions.patch", None, key="side", archived=True)
    assert (await harness.call("sessions.delete", None, key="side", archivedOnly=True))["deleted"]
    await harness.ask("two", "k2", "side")
    with pytest.raises(InvalidRequest, match="another session id"):
        await harness.call("sessions.delete", None, key="side", expectedSessionId="old")


async def test_a_session_is_found_by_whatever_names_it(harness: Harness) -> None:
    await harness.ask("Pancakes", "k1", "food")
    await harness.call("sessions.patch", None, key="food", label="Kitchen")
    session_id = (await harness.call("sessions.list"))["sessions"][0]["sessionId"]
    expected = {"ok": True, "key": "agent:main:food", "agentId": "main", "displayName": "Kitchen"}
    for selector in (
        {"key": "FOOD"},
        {"key": "agent:main:food"},
        {"sessionId": session_id},
        {"label": "Kitchen"},
        {"shortId": session_id[:8]},
        {"reference": "Kitchen"},
        {"reference": session_id},
        {"reference": "food"},
        {"reference": {"key": "agent:main:food", "slug": "kitchen"}, "agentId": "main"},
    ):
        assert await harness.call("sessions.resolve", None, **selector) == expected
    assert await harness.call("sessions.resolve", None, key="nothing", allowMissing=True) == {"ok": False}
    with pytest.raises(InvalidRequest, match="no session found: nothing"):
        await harness.call("sessions.resolve", None, key="nothing")
    with pytest.raises(InvalidRequest, match="exactly one"):
        await harness.call("sessions.resolve", None, key="food", label="Kitchen")
    with pytest.raises(InvalidRequest, match="no session found"):
        await harness.call("sessions.resolve", None, label="Kitchen", agentId="other")


async def test_previews_show_the_last_texts(harness: Harness) -> None:
    for number in range(4):
        await harness.ask(f"question {number} " + "x" * 50, f"k{number}")
    await harness.call("sessions.patch", None, key="empty", pinned=True)
    result = await harness.call("sessions.preview", None, keys=["main", "empty", "missing"], limit=3, maxChars=20)
    main, empty, missing = result["previews"]
    assert main["key"] == "main"
    assert [item["role"] for item in main["items"]] == ["assistant", "user", "assistant"]
    assert all(len(item["text"]) <= 20 for item in main["items"])
    assert main["items"][1]["text"].startswith("question 3")
    assert (empty["status"], missing["status"]) == ("empty", "missing")


async def test_messages_of_a_session_can_be_read_and_the_session_described(harness: Harness) -> None:
    await harness.ask("hi", "k1", "side")
    got = await harness.call("sessions.get", None, key="side", limit=1)
    assert [message["role"] for message in got["messages"]] == ["assistant"]
    with pytest.raises(InvalidRequest, match="key: is missing"):
        await harness.call("sessions.get")
    described = await harness.call("sessions.describe", None, key="side", includeLastMessage=True)
    assert described["session"]["lastMessagePreview"] == "you said: hi"
    assert await harness.call("sessions.describe", None, key="nothing") == {"session": None}


async def test_subscribers_are_told_of_changes_once_they_have_quietened(harness: Harness) -> None:
    client = TestClient()
    assert await harness.call("sessions.subscribe", client) == {"subscribed": True}
    listed = await harness.call("sessions.subscribe", client, limit=5)
    assert listed["list"]["sessions"] == []
    subscribed = await harness.call("sessions.messages.subscribe", client, key="Side")
    assert subscribed == {"subscribed": True, "key": "agent:main:side"}
    assert client.topics == {"sessions", "session:agent:main:side"}
    for number in range(5):
        await harness.ask("hi", f"k{number}", "side")
    changed = await harness.events.first("sessions.changed")
    assert changed["session"]["key"] == "agent:main:side"
    await until(lambda: harness.events.of("sessions.changed")[-1]["session"].get("lastRunId") == "k4")
    assert len(harness.events.of("sessions.changed")) <= 2
    sent = next(sent for sent in harness.events.sent if sent.event == "sessions.changed")
    assert sent.options["topics"] == ("sessions",)
    await harness.call("sessions.messages.unsubscribe", client, key="side")
    await harness.call("sessions.unsubscribe", client)
    assert client.topics == set()


async def test_the_live_state_is_shown(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    assert (await harness.call("sessions.list"))["sessions"][0]["status"] == "running"
    gate.let("work")
    await harness.events.terminal("k1")
    assert (await harness.call("sessions.list"))["sessions"][0]["status"] == "done"


async def test_the_summary_needs_no_disk(harness: Harness) -> None:
    for number in range(12):
        await harness.ask("hi", f"k{number}", f"s{number}")
    await harness.ask("hi", "other", "agent:other:x")

    def check() -> None:
        service = harness.services[Sessions]
        everything, other = service.summary(), service.summary("other")
        assert (everything.count, other.count) == (13, 1)
        assert len(everything.recent) == 10
        assert everything.recent[0]["key"] == "agent:other:x"
        assert set(everything.recent[0]) == {"key", "updatedAt", "age"}
        assert service.summary("nobody").count == 0

    check()
    await harness.restart()
    check()


async def test_the_service_describes_and_sets_models(harness: Harness) -> None:
    service = harness.services[Sessions]
    fresh = await service.describe("main")
    assert (fresh["key"], fresh["model"]) == ("agent:main:main", "echo-1")
    await service.set_model("main", "echo/echo-2")
    assert (await service.describe("main"))["model"] == "echo-2"
    with pytest.raises(InvalidRequest):
        await service.set_model("main", "nope")
    await service.set_model("main", None)
    assert (await service.describe("main"))["model"] == "echo-1"
    first = await service.new_session("main")
    assert first != await service.new_session("main")


async def test_a_hundred_thousand_sessions_are_listed_by_index(harness: Harness) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        now = harness.now_ms()
        connection.executemany(
            "INSERT INTO conversation_sessions (key, agent_id, session_id, kind, chat_type, created_ms, updated_ms)"
            " VALUES (?, 'main', ?, 'direct', 'direct', ?, ?)",
            ((f"agent:main:s{number}", f"id-{number}", now, now - number) for number in range(100_000)),
        )

    await harness.store.write(fill)
    for params, index in (({}, "newest"), ({"agentId": "main"}, "agent")):
        page = await harness.call("sessions.list", None, limit=50, **params)
        assert page["totalCount"] == 100_000
        assert page["sessions"][0]["key"] == "agent:main:s0"
        where = "archived = 0 AND kind <> 'global'" + (" AND agent_id = 'main'" if params else "")
        plan = await harness.rows(
            f"EXPLAIN QUERY PLAN SELECT key FROM conversation_sessions WHERE {where} ORDER BY updated_ms DESC, key LIMIT 50"  # noqa: S608
        )
        assert f"conversation_sessions_{index}" in str(plan)
        assert "USE TEMP B-TREE FOR ORDER BY" not in str(plan)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sessions.patch", {"key": "agent:nobody:x", "pinned": True}),
        ("sessions.reset", {"key": "agent:nobody:x"}),
        ("chat.inject", {"sessionKey": "agent:nobody:x", "message": "hi"}),
    ],
)
async def test_no_session_begins_under_an_agent_that_is_not_there(harness: Harness, method: str, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="unknown agent id"):
        await harness.call(method, None, **params)
    assert await harness.rows("SELECT count(*) FROM conversation_sessions") == [(0,)]


async def test_a_session_of_an_agent_that_is_gone_can_be_changed_and_deleted(harness: Harness) -> None:
    await harness.ask("hi", "k1", "agent:other:x")
    harness.runtime.known = ["main"]
    assert (await harness.call("sessions.patch", None, key="agent:other:x", label="old"))["entry"]["label"] == "old"
    assert (await harness.call("sessions.delete", None, key="agent:other:x"))["deleted"] is True


async def test_settings_of_a_session_are_bounded(harness: Harness) -> None:
    with pytest.raises(InvalidRequest, match="keep them under"):
        await harness.call("sessions.patch", None, key="main", icon="x" * 40_000)
    assert await harness.rows("SELECT count(*) FROM conversation_sessions") == [(0,)]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sessions.list", {"search": "%" * 100_000}),
        ("sessions.list", {"search": "\x00"}),
        ("sessions.list", {"search": "' OR 1=1 --"}),
        ("sessions.list", {"label": "' OR 1=1 --"}),
        ("sessions.list", {"agentId": "' OR 1=1 --"}),
        ("sessions.list", {"spawnedBy": "x' --"}),
        ("sessions.list", {"offset": (1 << 53) - 1, "activeMinutes": (1 << 53) - 1}),
    ],
)
async def test_a_hostile_filter_finds_nothing_and_breaks_nothing(harness: Harness, method: str, params: dict[str, Any]) -> None:
    await harness.ask("hi", "k1")
    assert (await harness.call(method, None, **params))["sessions"] == []


@pytest.mark.parametrize("search", ["100%", "a_c", "back\\slash"])
async def test_wildcards_in_a_search_mean_themselves(harness: Harness, search: str) -> None:
    await harness.ask(search, "k1", "one")
    await harness.ask("100 abc backslash", "k2", "two")
    assert await keys(harness, search=search) == ["agent:main:one"]


async def test_numbers_too_large_to_be_places_are_refused_or_lead_nowhere(harness: Harness) -> None:
    await harness.ask("hi", "k1")
    page = await harness.call("chat.history", None, sessionKey="main")
    session_id = page["sessionId"]
    with pytest.raises(InvalidRequest, match="less than or equal"):
        await harness.call("chat.history", None, sessionKey="main", offset=(1 << 64) - 1)
    digits = "9" * 5000
    assert (await harness.call("chat.history", None, sessionKey="main", cursor=f"{session_id}:{digits}"))["kind"] == "reset"
    with pytest.raises(InvalidRequest, match="not in this transcript"):
        await harness.call("chat.history", None, sessionKey="main", messageId=f"{session_id}-{digits}")


async def test_a_key_that_its_agent_makes_too_long_is_refused(harness: Harness) -> None:
    with pytest.raises(InvalidRequest, match="too long"):
        await harness.send("hi", "k1", "x" * 512)
    assert await harness.states() == []


async def test_every_setting_can_be_set_and_cleared(harness: Harness) -> None:
    values: dict[str, Any] = {
        "label": "L",
        "icon": "i",
        "color": "red",
        "category": "c",
        "boardFace": "dashboard",
        "statusNote": "n",
        "attention": "key",
        "archived": True,
        "pinned": True,
        "unread": True,
        "thinkingLevel": "high",
        "fastMode": "auto",
        "toolOverrides": {"a": 1},
        "verboseLevel": "on",
        "sendPolicy": "deny",
        "groupActivation": "always",
        "model": "echo/echo-2",
    }
    for name, value in values.items():
        entry = (await harness.call("sessions.patch", None, key="main", **{name: value}))["entry"]
        assert name == "model" or entry[name] == value
        entry = (await harness.call("sessions.patch", None, key="main", **{name: None}))["entry"]
        assert name == "model" or not entry.get(name)
    (row,) = (await harness.call("sessions.list"))["sessions"]
    assert (row["modelProvider"], row["model"]) == ("echo", "echo-1")
