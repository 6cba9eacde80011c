"""What agents may do and reach, above all those whom strangers can write to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.security.gateway import is_local
from openclaw_plugins.security.names import looks_secret
from openclaw_plugins.security.reach import agent_ids, has_shell, mapping, plugin_settings, reached_by_strangers, texts, tools_of
from openclaw_plugins.security.table import Table, writable_by_others

TABLE: Final = Table()

_METADATA: Final = frozenset({"169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "100.100.100.200"})
_UNBOUNDED: Final = frozenset({"*", "Bash", "Bash(*)", "Write", "Edit", "MultiEdit", "NotebookEdit", "Task"})
"""Tools of the claude command that change things without a pattern that bounds them."""


@TABLE.add("agents.shell.strangers", "strangers reach an agent that runs programs", Severity.CRITICAL)
def shell_strangers(context: CheckContext) -> Iterator[Finding]:
    for agent, ways in reached_by_strangers(context.config).items():
        if has_shell(context.config, agent):
            yield Finding(
                severity=Severity.CRITICAL,
                where=tools_of(context.config, agent)[0],
                evidence=f"agent {agent!r} is offered the tool shell, and {', '.join(ways)} lets everybody write to it",
                cure=f"take shell out of its tools, or close {ways[0]}",
            )


@TABLE.add("agents.shell.unapproved", "an agent runs programs without anybody's approval", Severity.WARN)
def shell_unapproved(context: CheckContext) -> Iterator[Finding]:
    for agent in agent_ids(context.config):
        if has_shell(context.config, agent):
            yield Finding(
                severity=Severity.WARN,
                where=tools_of(context.config, agent)[0],
                evidence=f"agent {agent!r} is offered the tool shell: what a message or a page talks it into is run at once",
                cure="take shell out of its tools, or run the gateway as a user of its own that may do little",
            )


@TABLE.add("agents.shell.line", "the shell tool takes whole command lines", Severity.WARN)
def shell_line(context: CheckContext) -> Iterator[Finding]:
    if plugin_settings(context, "shell-tool").get("allowShellLine") is True:
        yield Finding(
            severity=Severity.WARN,
            where="plugins.entries.shell-tool.config.allowShellLine",
            evidence="it is true: what is quoted wrongly in a line becomes a command",
            cure="set it to false; lists of arguments go on working",
        )


@TABLE.add("agents.shell.environment", "the shell tool hands out secrets of the environment", Severity.CRITICAL)
def shell_environment(context: CheckContext) -> Iterator[Finding]:
    for name in texts(plugin_settings(context, "shell-tool").get("environment")):
        if looks_secret(name):
            yield Finding(
                severity=Severity.CRITICAL,
                where="plugins.entries.shell-tool.config.environment",
                evidence=f"{name} is passed to the commands of every agent with the tool shell",
                cure="put it into secrets.entries, name it in the agent's secrets, and pass it by secretVariables",
            )


@TABLE.add("agents.shell.path", "others may put programs where the shell tool looks for them", Severity.CRITICAL)
def shell_path(context: CheckContext) -> Iterator[Finding]:
    for folder in str(plugin_settings(context, "shell-tool").get("searchPath") or "").split(":"):
        entry = context.look(Path(folder)) if folder else None
        if entry is not None and (writable_by_others(entry) or entry.mode & 0o002):
            yield Finding(
                severity=Severity.CRITICAL,
                where="plugins.entries.shell-tool.config.searchPath",
                evidence=f"{folder} has the mode {entry.mode:04o}: others may put a program there that agents run",
                cure=f"take it out of the list, or chmod go-w {folder}",
            )


@TABLE.add("agents.secrets.strangers", "strangers reach an agent that is handed secrets", Severity.CRITICAL)
def secrets_strangers(context: CheckContext) -> Iterator[Finding]:
    config = context.config
    for agent, ways in reached_by_strangers(config).items():
        entry = config.agents.entries.get(agent)
        own = None if entry is None else entry.secrets
        names = config.agents.defaults.secrets if own is None else own
        if names:
            yield Finding(
                severity=Severity.CRITICAL,
                where="agents.defaults.secrets" if own is None else f"agents.entries.{agent}.secrets",
                evidence=f"tools of agent {agent!r} are handed {', '.join(names)}, and {', '.join(ways)} lets everybody write to it",
                cure=f"give the secrets to an agent of their own, or close {ways[0]}",
            )


@TABLE.add("agents.secrets.everyone", "every agent is handed the same secrets", Severity.WARN)
def secrets_everyone(context: CheckContext) -> Iterator[Finding]:
    agents = context.config.agents
    heirs = [name for name, entry in agents.entries.items() if entry.secrets is None]
    if agents.defaults.secrets and len(heirs) > 1:
        yield Finding(
            severity=Severity.WARN,
            where="agents.defaults.secrets",
            evidence=f"{', '.join(agents.defaults.secrets)} are handed to tools of {', '.join(heirs)}, whether they need them or not",
            cure="name them in agents.entries.<id>.secrets of those that need them",
        )


@TABLE.add("agents.workspace.shared", "agents share a workspace", Severity.WARN)
def workspace_shared(context: CheckContext) -> Iterator[Finding]:
    owners: dict[Path, list[str]] = {}
    for agent in agent_ids(context.config):
        path = _workspace(context, agent)
        if path is not None:
            owners.setdefault(path, []).append(agent)
    for path, agents in owners.items():
        if len(agents) > 1:
            yield Finding(
                severity=Severity.WARN,
                where="agents",
                evidence=f"{', '.join(agents)} all work in {path}: each can tell the others what to do by their files there",
                cure="give each a workspace of its own",
            )


@TABLE.add("agents.workspace.wide", "an agent's workspace holds what is not its own", Severity.CRITICAL)
def workspace_wide(context: CheckContext) -> Iterator[Finding]:
    for agent in agent_ids(context.config):
        path = _workspace(context, agent)
        if path is None:
            continue
        holds = context.home if context.home.is_relative_to(path) else Path.home() if Path.home().is_relative_to(path) else None
        if holds is not None:
            yield Finding(
                severity=Severity.CRITICAL,
                where=f"agents.entries.{agent}.workspace",
                evidence=f"{path} holds {holds}: the agent's tools may change openclaw.yaml and read its secrets there",
                cure="give it a folder of its own",
            )


@TABLE.add("agents.web.private", "the fetch tool reaches into the own network", Severity.CRITICAL)
def web_private(context: CheckContext) -> Iterator[Finding]:
    gateway_port = str(context.config.gateway.port)
    for place in texts(plugin_settings(context, "web-tools").get("allowPrivate")):
        host, _, port = place.rpartition(":")
        own = port == gateway_port and is_local(f"//{host}")
        worst = host.lower() in _METADATA or own
        yield Finding(
            severity=Severity.CRITICAL if worst else Severity.WARN,
            where="plugins.entries.web-tools.config.allowPrivate",
            evidence=f"what a model is talked into may be fetched from {place}, "
            + ("the gateway itself" if own else "which hands out the machine's credentials" if worst else "in the own network"),
            cure="take it out of the list",
        )


@TABLE.add("agents.claude-cli.tools", "the claude command changes things without asking", Severity.CRITICAL)
def claude_tools(context: CheckContext) -> Iterator[Finding]:
    strangers = bool(reached_by_strangers(context.config))
    for name, section in _claude(context):
        found = [tool for tool in texts(section.get("tools")) if tool in _UNBOUNDED or tool.startswith("-")]
        if found:
            yield Finding(
                severity=Severity.CRITICAL if strangers else Severity.WARN,
                where=f"models.providers.{name}.tools",
                evidence=f"{', '.join(found)} may be used without asking: the permission prompt is bypassed"
                + (", and strangers can write to an agent" if strangers else ""),
                cure="list tools with a pattern that bounds them, e.g. Bash(git status *), or none",
            )


@TABLE.add("agents.claude-cli.customizations", "the claude command loads what workspaces bring", Severity.WARN)
def claude_customizations(context: CheckContext) -> Iterator[Finding]:
    for name, section in _claude(context):
        if section.get("customizations") is True:
            yield Finding(
                severity=Severity.WARN,
                where=f"models.providers.{name}.customizations",
                evidence="it is true: hooks and MCP servers of the workspace, which the agent writes itself, are run",
                cure="set it to false",
            )


@TABLE.add("agents.claude-cli.environment", "the claude command is handed secrets of the environment", Severity.WARN)
def claude_environment(context: CheckContext) -> Iterator[Finding]:
    for name, section in _claude(context):
        found = [variable for variable in texts(section.get("environment")) if looks_secret(variable)]
        if found:
            yield Finding(
                severity=Severity.WARN,
                where=f"models.providers.{name}.environment",
                evidence=f"{', '.join(found)} can be read by whatever the program runs",
                cure="take them out of the list",
            )


@TABLE.add("agents.claude-cli.program", "others may replace the claude command", Severity.CRITICAL)
def claude_program(context: CheckContext) -> Iterator[Finding]:
    for name, section in _claude(context):
        command = section.get("command")
        found = shutil.which(str(command)) if command else None
        if found is None:
            continue
        path = Path(found).resolve()
        exposed = [entry for each in (path, path.parent) if (entry := context.look(each)) is not None and writable_by_others(entry)]
        if exposed:
            yield Finding(
                severity=Severity.CRITICAL,
                where=f"models.providers.{name}.command",
                evidence=f"{exposed[0].path} has the mode {exposed[0].mode:04o}: others decide what the gateway runs",
                cure=f"chmod go-w {exposed[0].path}",
            )


@TABLE.add("agents.providers.plain", "a model is asked over an unencrypted connection", Severity.WARN)
def providers_plain(context: CheckContext) -> Iterator[Finding]:
    for name, section in context.config.models.providers.items():
        url = section.get("baseUrl")
        if isinstance(url, str) and url.lower().startswith("http://") and not is_local(url):
            yield Finding(
                severity=Severity.WARN,
                where=f"models.providers.{name}.baseUrl",
                evidence="it begins with http://: conversations and the key can be read on the way",
                cure="give it with https://",
            )


def _claude(context: CheckContext) -> Iterator[tuple[str, dict[str, object]]]:
    for name, section in context.config.models.providers.items():
        if section.get("api", name) == "claude-cli":
            yield name, dict(mapping(section))


def _workspace(context: CheckContext, agent: str) -> Path | None:
    entry = context.config.agents.entries.get(agent)
    named = (None if entry is None else entry.workspace) or context.config.agents.defaults.workspace
    return None if named is None else (context.home / Path(named).expanduser()).resolve()
