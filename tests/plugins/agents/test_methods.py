"""What clients are told of agents, models, tools and usage, held to the protocol's contract."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from openclaw_kernel.api import InvalidRequest, RetryClass, Scope, Tool, ToolContext, ToolResult
from openclaw_kernel.api.methods import Method, methods_of
from openclaw_plugins.agents.methods import AgentMethods
from openclaw_plugins.agents.plugin import AgentsPlugin
from openclaw_plugins.agents.runtime import Runtime
from tests.plugins.agents.fakes import NOW_MS, FakeContext, FakeGateway, FakeProviders, FakeSessions, FakeTools, model
from tests.support import contract

DAY_MS = 86_400_000


class NoParams(BaseModel):
    pass


async def nothing(context: ToolContext, params: NoParams) -> ToolResult:
    return ToolResult(text="")


def tool(name: str, group: str, *, enabled: bool = True) -> Tool[NoParams]:
    return Tool(
        name=name,
        label=name.title(),
        description=f"does {name}",
        params=NoParams,
        run=nothing,
        retry_class=RetryClass.PURE,
        timeout_seconds=1,
        group=group,
        enabled=enabled,
    )


class SourcedTools(FakeTools):
    def source(self, name: str) -> str:
        return {"fetch": "web-tools", "shell": "shell-tool"}.get(name, "stranger")


def row(day: int, *, agent: str = "main", cost: float | None = 0.5) -> dict[str, Any]:
    return {
        "startedMs": NOW_MS - day * DAY_MS,
        "sessionKey": f"agent:{agent}:main",
        "agentId": agent,
        "provider": "fake",
        "model": "one",
        "input": 10,
        "output": 5,
        "cacheRead": 2,
        "cacheWrite": 1,
        "costUsd": cost,
    }


class Surface:
    """The methods as the gateway calls them: params parsed, results checked against both declarations."""

    def __init__(self, home: Path, config: Mapping[str, Any] | None = None, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self.sessions = FakeSessions(rows)
        providers = FakeProviders(
            [model("fake/one", images=True, reasoning=True), model("sick/two", context_window=None)], {"sick": "no key; set one"}
        )
        tools = SourcedTools(tool("fetch", "web"), tool("shell", "runtime", enabled=False), tool("odd", "plugin"))
        self.context = FakeContext(
            home,
            config,
            providers=providers,
            tools=tools,
            sessions=self.sessions,
            gateway=FakeGateway("web-tools", "shell-tool"),
        )
        self.runtime = Runtime(self.context)  # type: ignore[arg-type]
        owner = AgentMethods(self.context, self.runtime)  # type: ignore[arg-type]
        self.methods: dict[str, Method] = {method.name: method for method in methods_of(owner)}

    async def call(self, name: str, **params: Any) -> Any:
        method = self.methods[name]
        assert method.params is not None
        contract.validate_params(name, params)
        result = method.handler(None, method.params.model_validate(params))
        if hasattr(result, "__await__"):
            result = await result
        TypeAdapter(method.result).validate_python(result, strict=True, extra="forbid")
        contract.validate_result(name, result)
        return result


CONFIG = {
    "agents": {
        "defaults": {"model": {"primary": "fake/one", "fallbacks": ["sick/two"]}},
        "entries": {"main": {}, "work": {"identity": {"name": "Worker", "emoji": "W"}, "default": True, "thinking": "low"}},
    },
    "session": {"mainKey": "lobby"},
}


def test_every_method_can_be_read_with_the_read_scope(tmp_path: Path) -> None:
    methods = Surface(tmp_path).methods
    assert sorted(methods) == [
        *("agent.identity.get", "agents.list", "models.list", "tools.catalog", "usage.cost", "usage.status"),
    ]
    assert all(method.scopes == {Scope.READ} for method in methods.values())


async def test_agents_are_listed_with_their_identity_and_models(tmp_path: Path) -> None:
    listed = await Surface(tmp_path, CONFIG).call("agents.list")
    assert (listed["defaultId"], listed["mainKey"], listed["scope"]) == ("work", "lobby", "per-sender")
    assert listed["agents"][1] == {
        "id": "work",
        "name": "Worker",
        "identity": {"name": "Worker", "emoji": "W"},
        "workspace": str(tmp_path / "workspace" / "work"),
        "model": {"primary": "fake/one", "fallbacks": ["sick/two"]},
        "thinkingDefault": "low",
    }


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, {"agentId": "work", "name": "Worker", "nameSource": "config", "emoji": "W"}),
        ({"agentId": "main"}, {"agentId": "main", "name": "Molty", "nameSource": "workspace", "avatar": "pic.png"}),
        ({"sessionKey": "agent:main:telegram:group:1"}, {"agentId": "main", "name": "Molty"}),
        ({"sessionKey": "lobby"}, {"agentId": "work"}),
    ],
)
async def test_an_agent_presents_itself(tmp_path: Path, params: dict[str, Any], expected: dict[str, Any]) -> None:
    folder = tmp_path / "workspace" / "main"
    folder.mkdir(parents=True)
    (folder / "IDENTITY.md").write_text("- Name: Molty\n- Avatar: pic.png\n")
    surface = Surface(tmp_path, CONFIG)
    await surface.runtime.start()
    shown = await surface.call("agent.identity.get", **params)
    assert shown.items() >= expected.items()


async def test_an_agent_that_is_not_there_is_refused_with_its_id(tmp_path: Path) -> None:
    surface = Surface(tmp_path)
    for name in ("agent.identity.get", "models.list", "tools.catalog"):
        with pytest.raises(InvalidRequest) as caught:
            await surface.call(name, agentId="ghost")
        assert caught.value.details == {"code": "UNKNOWN_AGENT_ID", "agentId": "ghost"}
        contract.validate("UnknownAgentIdErrorDetails", caught.value.details)


async def test_models_are_listed_with_what_they_can(tmp_path: Path) -> None:
    listed = await Surface(tmp_path).call("models.list")
    assert listed["models"] == [
        {
            "id": "one",
            "name": "one",
            "provider": "fake",
            "available": True,
            "reasoning": True,
            "supportsTools": True,
            "input": ["text", "image"],
            "contextWindow": 32_000,
        },
        {
            "id": "two",
            "name": "two",
            "provider": "sick",
            "available": False,
            "reasoning": False,
            "supportsTools": True,
            "input": ["text"],
        },
    ]


async def test_configured_models_are_those_that_agents_name(tmp_path: Path) -> None:
    config = {"agents": {"entries": {"main": {"model": "sick/two"}, "work": {"model": "x/y"}}}}
    surface = Surface(tmp_path, config)
    listed = await surface.call("models.list", view="configured")
    assert [row["id"] for row in listed["models"]] == ["two"]
    assert (await surface.call("models.list", agentId="work"))["models"] == []
    assert len((await Surface(tmp_path).call("models.list", view="configured"))["models"]) == 2


async def test_tools_are_grouped_by_kind_and_those_of_strangers_by_plugin(tmp_path: Path) -> None:
    surface = Surface(tmp_path, {"agents": {"defaults": {"tools": {"deny": []}}}})
    catalog = await surface.call("tools.catalog")
    assert catalog["agentId"] == "main"
    assert [(group["id"], group["source"]) for group in catalog["groups"]] == [
        ("runtime", "core"),
        ("web", "core"),
        ("plugin:stranger", "plugin"),
    ]
    shell = catalog["groups"][0]["tools"][0]
    assert (shell["optional"], shell["defaultProfiles"]) == (True, [])
    assert catalog["groups"][1]["tools"][0]["defaultProfiles"] == ["coding", "full"]
    core = await surface.call("tools.catalog", includePlugins=False)
    assert [group["id"] for group in core["groups"]] == ["runtime", "web"]


async def test_tools_denied_to_the_agent_are_not_in_its_catalogue(tmp_path: Path) -> None:
    catalog = await Surface(tmp_path, {"agents": {"defaults": {"tools": {"deny": ["fetch"]}}}}).call("tools.catalog")
    assert "web" not in [group["id"] for group in catalog["groups"]]


async def test_usage_status_says_what_stops_a_provider(tmp_path: Path) -> None:
    status = await Surface(tmp_path).call("usage.status")
    assert status["updatedAt"] == NOW_MS
    assert [(row["provider"], row.get("error")) for row in status["providers"]] == [("fake", None), ("sick", "no key; set one")]


async def test_usage_is_summed_by_day(tmp_path: Path) -> None:
    rows = [row(0), row(0, cost=None), row(1), row(40)]
    report = await Surface(tmp_path, rows=rows).call("usage.cost")
    assert report["days"] == 30
    assert [day["date"] for day in report["daily"]] == ["2023-11-13", "2023-11-14"]
    assert report["daily"][1]["totalTokens"] == 36
    assert report["daily"][1]["missingCostEntries"] == 1
    assert (report["totals"]["input"], report["totals"]["totalCost"]) == (30, 1.0)


async def test_usage_can_be_asked_for_days_an_offset_and_an_agent(tmp_path: Path) -> None:
    surface = Surface(tmp_path, {"agents": {"entries": {"main": {}, "work": {}}}}, [row(0), row(1, agent="work"), row(2)])
    report = await surface.call("usage.cost", startDate="2023-11-13", endDate="2023-11-14", agentId="work")
    assert (report["days"], report["totals"]["input"]) == (2, 10)
    report = await surface.call("usage.cost", days=1, mode="specific", utcOffset="UTC+2")
    # At the instant of NOW_MS, 22:13 UTC, the next day has begun there.
    assert [day["date"] for day in report["daily"]] == ["2023-11-15"]
    for params in ({"startDate": "2023-11-14", "endDate": "2023-11-13"}, {"mode": "specific", "utcOffset": "soon"}):
        with pytest.raises(InvalidRequest):
            await surface.call("usage.cost", **params)


@pytest.mark.parametrize(
    "params",
    [
        {"startDate": "0001-01-01"},
        {"endDate": "9999-12-31"},
        {"startDate": "2020-01-01", "endDate": "2023-01-01"},
        {"startDate": "2023-11-15"},
        {"mode": "specific", "utcOffset": "UTC+15"},
    ],
)
async def test_a_report_over_days_that_cannot_be_is_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await Surface(tmp_path).call("usage.cost", **params)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
async def test_days_of_the_gateway_begin_at_its_midnight_in_summer_and_winter(tmp_path: Path) -> None:
    # In the night to 29 October 2023 the clocks went back there: that day had 25 hours, the one before began in summer time.
    borders = {"2023-10-28": "2023-10-27T22:00", "2023-10-29": "2023-10-28T22:00", "2023-10-30": "2023-10-29T23:00"}
    rows = []
    for text in borders.values():
        start = round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)
        rows += [{**row(0), "startedMs": start}, {**row(0), "startedMs": start - 1}]
    report = await Surface(tmp_path, rows=rows).call("usage.cost", startDate="2023-10-28", endDate="2023-10-30", mode="gateway")
    assert [(day["date"], day["input"]) for day in report["daily"]] == [("2023-10-28", 20), ("2023-10-29", 20), ("2023-10-30", 10)]


async def test_the_plugin_offers_the_runtime_its_unit_and_the_methods(tmp_path: Path) -> None:
    offered: dict[str, Any] = {}

    class Registrar:
        def provide(self, kind: type, service: object) -> None:
            offered[kind.__name__] = service

        def add_unit(self, unit: object) -> None:
            offered["unit"] = unit

        def add_methods(self, owner: object) -> None:
            offered["methods"] = len(methods_of(owner))

    plugin = AgentsPlugin(FakeContext(tmp_path))  # type: ignore[arg-type]
    plugin.openclaw_register_services(Registrar())  # type: ignore[arg-type]
    plugin.openclaw_register_methods(Registrar())  # type: ignore[arg-type]
    assert offered["AgentRuntime"] is offered["unit"]
    assert offered["methods"] == 6
    await offered["unit"].start()
    assert (tmp_path / "workspace" / "main" / "AGENTS.md").is_file()


async def test_a_workspace_that_cannot_be_made_degrades_and_recovers(tmp_path: Path) -> None:
    surface = Surface(tmp_path)
    (tmp_path / "workspace").write_text("in the way")
    await surface.runtime.start()
    assert surface.context.degraded[-1] is not None
    assert "agents.entries.main.workspace" in surface.context.degraded[-1]
    (tmp_path / "workspace").unlink()
    await surface.runtime.start()
    assert surface.context.degraded[-1] is None
