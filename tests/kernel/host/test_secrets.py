"""An agent's tools and providers get what its scope names and nothing else; who got what, and who did not, is written down."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.models import Config
from openclaw_config.secrets import REDACTED, Secret
from openclaw_kernel.api import Forbidden, ModelRequest, ProviderError, Providers, Secrets, ToolContext, Tools, Unavailable
from openclaw_kernel.api.audit import AuditEntry
from openclaw_kernel.audit import table
from openclaw_kernel.audit.records import AuditRow
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.host.secrets import SecretBroker
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_kernel.testing import StartGateway

VALUES = {"github": "value-of-github", "jira": "value-of-jira"}
CONFIG: dict[str, Any] = {
    "secrets": {"entries": VALUES},
    "models": {"providers": {"echo": {}}},
    "agents": {
        "defaults": {"secrets": ["github"]},
        "entries": {"main": {}, "bare": {"secrets": [], "providers": []}, "both": {"secrets": ["jira", "github"]}},
    },
    "plugins": {"entries": {"shell-tool": {"config": {"secretVariables": ["GH_TOKEN=github", "JIRA_TOKEN=jira"], "allowShellLine": True}}}},
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state.sqlite3")
    await store.open({})
    yield store
    await store.close()


@pytest.fixture
async def trail(store: SqliteStore, tmp_path: Path) -> AsyncIterator[AuditTrail]:
    trail = AuditTrail(store, home=tmp_path, now_ms=lambda: 1_000_000)
    await trail.open()
    yield trail
    await trail.close()


def broker(store: SqliteStore, trail: AuditTrail | None) -> SecretBroker:
    return SecretBroker(Config.model_validate(CONFIG), store, trail)


async def rows(store: SqliteStore, trail: AuditTrail) -> list[AuditRow]:
    await trail.settled()
    return await store.read(lambda connection: table.rows_after(connection, 0, 100))


async def test_an_agent_gets_what_its_scope_names(store: SqliteStore, trail: AuditTrail) -> None:
    made = broker(store, trail)
    assert [made.names(agent) for agent in ("main", "bare", "both", "ghost")] == [["github"], [], ["github", "jira"], []]
    secret = await made.lease("main", "github", plugin_id="shell-tool", purpose="variable GH_TOKEN of a command")
    assert secret == Secret("value-of-github")
    (row,) = await rows(store, trail)
    assert (row.action, row.outcome, row.actor, row.subject) == ("secret.read", "done", "agent:main", "secret:github")
    assert json.loads(row.details) == {"plugin": "shell-tool", "purpose": "variable GH_TOKEN of a command"}


@pytest.mark.parametrize(
    ("agent", "name"),
    [("main", "jira"), ("bare", "github"), ("ghost", "github"), ("", "github"), ("main", ""), ("main", "GITHUB"), ("main", "github ")],
)
async def test_asking_for_another_is_denied_by_name_and_written_down(store: SqliteStore, trail: AuditTrail, agent: str, name: str) -> None:
    with pytest.raises(Forbidden, match="is not in the scope of agent") as denied:
        await broker(store, trail).lease(agent, name, plugin_id="p", purpose="x")
    assert denied.value.details == {"code": "SECRET_NOT_IN_SCOPE", "secret": name, "agentId": agent}
    (row,) = await rows(store, trail)
    assert (row.action, row.outcome, row.actor, row.subject) == ("secret.denied", "refused", f"agent:{agent}", f"secret:{name}")
    assert row.reason == "the agent's scope does not name it"


class FullTrail(AuditTrail):
    """An audit log that takes no row any more."""

    def append(self, connection: sqlite3.Connection, entry: AuditEntry) -> int:
        raise sqlite3.OperationalError("database or disk is full")


async def test_a_secret_that_cannot_be_written_down_is_not_handed_out(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no audit log"):
        await broker(store, None).lease("main", "github", plugin_id="p", purpose="x")
    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        await broker(store, FullTrail(store, home=tmp_path, now_ms=lambda: 1)).lease("main", "github", plugin_id="p", purpose="x")


async def test_a_provider_outside_the_scope_is_denied(store: SqliteStore, trail: AuditTrail) -> None:
    made = broker(store, trail)
    assert made.permits_provider("main", "echo", "echo")
    assert not made.permits_provider("bare", "echo", "echo")
    assert not made.permits_provider("ghost", "echo", "echo")
    assert [(row.action, row.actor, row.subject) for row in await rows(store, trail)] == [
        ("secret.denied", "agent:bare", "provider:echo"),
        ("secret.denied", "agent:ghost", "provider:echo"),
    ]


# --- in a whole gateway ---------------------------------------------------------------------------------------------------


def context(agent: str, workspace: Path) -> ToolContext:
    return ToolContext(agent_id=agent, session_key="s", run_id="r", call_id="c", workspace=workspace)


@pytest.mark.parametrize(
    ("agent", "variables"), [("main", ["GH_TOKEN"]), ("both", ["GH_TOKEN", "JIRA_TOKEN"]), ("bare", []), ("ghost", [])]
)
async def test_a_command_sees_the_secrets_of_its_agent_and_the_model_reads_none(
    openclaw_gateway: StartGateway, tmp_path: Path, agent: str, variables: list[str]
) -> None:
    script = 'printenv > seen; printenv GH_TOKEN; printenv JIRA_TOKEN; printf "%s" "$GH_TOKEN" | wc -c'
    async with openclaw_gateway(CONFIG) as gateway:
        result = await gateway.service(Tools).run("shell", context(agent, tmp_path), {"command": script})
    seen = dict(line.partition("=")[::2] for line in (tmp_path / "seen").read_text().splitlines())
    names = {"GH_TOKEN": "github", "JIRA_TOKEN": "jira"}
    assert {key: value for key, value in seen.items() if key in names} == {key: VALUES[names[key]] for key in variables}
    assert result.text.split() == [*[REDACTED] * len(variables), str(len(VALUES["github"]) if variables else 0)]


async def test_a_tool_cannot_bring_secrets_of_its_own_choice(openclaw_gateway: StartGateway, tmp_path: Path) -> None:
    class Generous:
        def names(self) -> list[str]:
            return ["jira"]

        async def lease(self, name: str, *, purpose: str) -> Secret:
            return Secret("smuggled-value")

    forged = ToolContext(agent_id="bare", session_key="s", run_id="r", call_id="c", workspace=tmp_path, secrets=Generous())
    assert "Generous" not in repr(forged)
    async with openclaw_gateway(CONFIG) as gateway:
        result = await gateway.service(Tools).run("shell", forged, {"command": "printenv JIRA_TOKEN || echo none"})
    assert result.text == "none\n"


async def test_a_provider_is_called_for_agents_whose_scope_names_it_alone(openclaw_gateway: StartGateway) -> None:
    def request(agent: str) -> ModelRequest:
        return ModelRequest(
            model="echo", system="", messages=(), agent_id=agent, session_key="s", session_id="1", run_id="r", workspace=Path()
        )

    async with openclaw_gateway(CONFIG) as gateway:
        assert gateway.service(Secrets).names("both") == ["github", "jira"]
        assert await gateway.ask("hello") == "hello"
        with pytest.raises(ProviderError, match="agent 'bare' may not use provider 'echo'"):
            await anext(gateway.service(Providers).stream("echo", request("bare")))
