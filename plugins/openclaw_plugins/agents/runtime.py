"""The service AgentRuntime: from a turn to its result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from openclaw_kernel.api import AgentInfo, PluginContext, Providers, Tools, Turn, TurnResult, TurnSink
from openclaw_plugins.agents.plan import AgentPlan, agent_ids, choose_models, default_agent_id, missing_models, plan_agent
from openclaw_plugins.agents.prompt import system_prompt
from openclaw_plugins.agents.settings import AgentsSettings
from openclaw_plugins.agents.turn import TurnRun
from openclaw_plugins.agents.workspace import Workspace, WorkspaceText


class Runtime:
    """Implements AgentRuntime over the config in force."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._workspaces: dict[Path, Workspace] = {}
        self._problems: dict[str, str] = {}

    async def start(self) -> None:
        """Make the workspaces that are missing; one that cannot be made degrades the plugin and stops nobody."""
        for agent_id in agent_ids(self._context.config):
            plan = self._plan(agent_id)
            if plan is not None:
                await self._files(plan)

    async def stop(self) -> None:
        """Nothing is held between turns."""

    async def run(self, turn: Turn, sink: TurnSink) -> TurnResult:
        """Answer one message; every failure but cancellation is in the result."""
        plan = self._plan(turn.agent_id)
        if plan is None:
            known = ", ".join(agent_ids(self._context.config))
            return TurnResult(
                status="error",
                text="",
                error=f"there is no agent {turn.agent_id!r}; add it under agents.entries or use one of {known}",
                error_kind="unknown",
            )
        providers = self._context.service(Providers)
        chain = choose_models(plan, turn.model, providers)
        seconds = turn.timeout_seconds or plan.timeout_seconds
        files = await self._files(plan)
        run = TurnRun(
            turn=turn,
            plan=plan,
            sink=sink,
            providers=providers,
            tools=self._context.service(Tools),
            system=lambda tools: self._system(plan, files, turn, tools=tools),
            now_ms=self._context.now_ms,
            logger=self._context.logger,
        )
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                return await run.run(chain, seconds=seconds)
        except TimeoutError:
            if not deadline.expired():
                raise
        await run.record_partial("timeout")
        cure = "ask for less at once" if turn.timeout_seconds else "raise agents.defaults.timeoutSeconds"
        return run.failed(f"the turn took longer than {seconds:g} seconds; {cure}", "timeout", status="timeout")

    def agents(self) -> Sequence[AgentInfo]:
        """Return the configured agents in config order."""
        found = (self.agent(agent_id) for agent_id in agent_ids(self._context.config))
        return tuple(info for info in found if info is not None)

    def agent(self, agent_id: str) -> AgentInfo | None:
        """Return one agent as config and workspace describe it, without I/O."""
        plan = self._plan(agent_id)
        if plan is None:
            return None
        files = self._workspace(plan).latest
        providers = self._context.service(Providers)
        chain = choose_models(plan, None, providers)
        model = next(iter((*chain.ready, *chain.doubtful)), None)
        return AgentInfo(
            id=agent_id,
            name=plan.name or files.name or agent_id,
            is_default=plan.is_default,
            emoji=plan.emoji or files.emoji,
            avatar=plan.avatar or files.avatar,
            workspace=str(plan.workspace),
            model=model.ref if model is not None else plan.model,
            fallbacks=plan.fallbacks,
            context_tokens=plan.context_tokens or (model.context_window if model is not None else None),
            thinking=plan.thinking,
            timeout_seconds=plan.timeout_seconds,
        )

    def problems(self) -> Sequence[str]:
        """Return what keeps agents from answering as configured, a line each, without I/O."""
        if not self._context.config.models.providers:
            return ("models.providers is empty: no agent can answer; add a provider",)
        plans = (self._plan(agent_id) for agent_id in agent_ids(self._context.config))
        return missing_models((plan for plan in plans if plan is not None), self._context.service(Providers))

    def default_agent_id(self) -> str:
        """Return the agent for what no binding claims."""
        return default_agent_id(self._context.config)

    def plan(self, agent_id: str) -> AgentPlan | None:
        """Return what the config says of an agent."""
        return self._plan(agent_id)

    def workspace_text(self, plan: AgentPlan) -> WorkspaceText:
        """Return what the agent's files said when they were last read."""
        return self._workspace(plan).latest

    def _plan(self, agent_id: str) -> AgentPlan | None:
        return plan_agent(self._context.config, agent_id, self._context.home)

    def _workspace(self, plan: AgentPlan) -> Workspace:
        return self._workspaces.setdefault(plan.workspace, Workspace(plan.workspace))

    async def _files(self, plan: AgentPlan) -> WorkspaceText:
        """Read the agent's files; a folder that cannot be made or read leaves a prompt without them, and is reported."""
        workspace = self._workspace(plan)
        try:
            files = await asyncio.to_thread(_prepare, workspace)
        except OSError as error:
            files = workspace.latest
            self._report(plan.id, (_workspace_problem(plan, error),))
        else:
            self._report(plan.id, files.problems)
        return files

    def _report(self, agent_id: str, problems: Sequence[str]) -> None:
        before = self._problems.copy()
        if problems:
            self._problems[agent_id] = "; ".join(problems)
        else:
            self._problems.pop(agent_id, None)
        if self._problems != before:
            self._context.degrade("; ".join(self._problems.values()) or None)

    def _system(self, plan: AgentPlan, files: WorkspaceText, turn: Turn, *, tools: bool) -> str:
        settings = self._context.settings(AgentsSettings)
        return system_prompt(
            name=plan.name or files.name,
            workspace=files,
            file_chars=settings.file_chars,
            total_chars=settings.total_chars,
            tools=tools,
            channel=turn.channel if turn.channel != "webchat" else None,
            now=datetime.fromtimestamp(self._context.now_ms() / 1000).astimezone(),
            extra=turn.extra_system_prompt,
        )


def _prepare(workspace: Workspace) -> WorkspaceText:
    workspace.ensure()
    return workspace.read()


def _workspace_problem(plan: AgentPlan, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"the workspace {plan.workspace} of agent {plan.id} cannot be made: {reason}; correct agents.entries.{plan.id}.workspace"
