"""Agents and who reaches them: names in the configuration that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.doctor.table import ONLY_AGENT, Table, mapping, texts

TABLE: Final = Table()

_ANYONE: Final = "*"


@TABLE.add("agents.model", "an agent's model is of a provider that is not configured", Severity.CRITICAL)
def model(context: CheckContext) -> Iterator[Finding]:
    config = context.config
    known = set(config.models.providers)
    places: list[tuple[str, Any]] = [("agents.defaults.model", config.agents.defaults.model)]
    places += [(f"agents.entries.{name}.model", entry.model) for name, entry in config.agents.entries.items()]
    for where, choice in places:
        references = [] if choice is None else [choice] if isinstance(choice, str) else [choice.primary, *choice.fallbacks]
        for position, reference in enumerate(references):
            if reference.partition("/")[0] not in known:
                yield Finding(
                    severity=Severity.CRITICAL if position == 0 else Severity.WARN,
                    where=where,
                    evidence=f"{reference}: there is no such provider; there are: {', '.join(sorted(known)) or 'none'}",
                    cure="write provider/model with one of them, or add it to models.providers",
                )


@TABLE.add("agents.model.unknown", "an agent's model is none that its provider has", Severity.WARN)
def model_unknown(context: CheckContext) -> Iterator[Finding]:
    try:
        told = mapping(context.instruments.call("models.list")).get("models")
    except OSError:
        return
    known = {f"{mapping(row).get('provider')}/{mapping(row).get('id')}" for row in told} if isinstance(told, list) else set()
    providers = {each.partition("/")[0] for each in known}
    config = context.config
    places: list[tuple[str, Any]] = [("agents.defaults.model", config.agents.defaults.model)]
    places += [(f"agents.entries.{name}.model", entry.model) for name, entry in config.agents.entries.items()]
    for where, choice in places:
        reference = choice if isinstance(choice, str) or choice is None else choice.primary
        if reference is None or "/" not in reference or reference in known or reference.partition("/")[0] not in providers:
            continue
        near = ", ".join(sorted(each for each in known if each.startswith(reference.partition("/")[0] + "/"))[:5])
        yield Finding(
            severity=Severity.WARN,
            where=where,
            evidence=f"{reference} is not among the provider's models, e.g. {near}",
            cure="write one of them, or see that the provider has it",
        )


@TABLE.add("agents.bindings", "a binding names an agent or a channel that is not there", Severity.WARN)
def bindings(context: CheckContext) -> Iterator[Finding]:
    agents = list(context.config.agents.entries) or [ONLY_AGENT]
    channels = {*context.config.channels, "webchat"}
    for position, binding in enumerate(context.config.bindings):
        if binding.agent_id not in agents:
            yield Finding(
                severity=Severity.WARN,
                where=f"bindings.{position}.agentId",
                evidence=f"there is no agent {binding.agent_id!r}: the binding is skipped",
                cure=f"add it under agents.entries, or use one of {', '.join(agents)}",
            )
        if binding.match.channel not in channels:
            yield Finding(
                severity=Severity.WARN,
                where=f"bindings.{position}.match.channel",
                evidence=f"there is no section channels.{binding.match.channel}: nothing ever matches",
                cure=f"add it, or use one of {', '.join(sorted(channels))}",
            )


@TABLE.add("agents.default", "several agents are the default", Severity.WARN)
def default(context: CheckContext) -> Iterator[Finding]:
    flagged = [name for name, entry in context.config.agents.entries.items() if entry.default]
    if len(flagged) > 1:
        yield Finding(
            severity=Severity.WARN,
            where="agents.entries",
            evidence=f"{', '.join(flagged)} all have default: true; {flagged[0]} has it",
            cure="leave it with one",
        )


@TABLE.add("agents.workspace", "an agent's files cannot be read or written", Severity.CRITICAL)
def workspace(context: CheckContext) -> Iterator[Finding]:
    config = context.config
    for name in list(config.agents.entries) or [ONLY_AGENT]:
        entry = config.agents.entries.get(name)
        named = (None if entry is None else entry.workspace) or config.agents.defaults.workspace
        path = context.home / (Path(named).expanduser() if named else Path("workspace") / name)
        found = context.look(path.resolve())
        if found is None:
            if named and context.look(path.resolve().parent) is None:
                yield _workspace(name, path, "neither it nor the folder above is there", "make it, or correct the path")
        elif found.kind != "folder":
            yield _workspace(name, path, "it is no folder", "move it away, or name another folder")
        elif found.user_id == context.process.user_id and found.mode & 0o700 != 0o700:  # noqa: PLR2004 - all rights of the owner
            yield _workspace(name, path, f"it has the mode {found.mode:04o}", f"chmod u+rwx {path}")


@TABLE.add("channels.nobody", "nobody may write to a channel", Severity.WARN)
def nobody(context: CheckContext) -> Iterator[Finding]:
    for channel, section in context.config.channels.items():
        if section.get("enabled") is False or "dmPolicy" not in section:
            continue
        allowed = texts(section.get("allowFrom"))
        policy = section["dmPolicy"]
        in_groups = section.get("groupPolicy") == "open" or bool(mapping(section.get("groups")))
        if policy == "allowlist" and not [each for each in allowed if each != _ANYONE] and not in_groups:
            yield Finding(
                severity=Severity.WARN,
                where=f"channels.{channel}.allowFrom",
                evidence="dmPolicy is allowlist, and the list is empty: every message is refused",
                cure="list the ids of the people, which the bot tells a stranger who writes to it",
            )
        elif policy == "open" and _ANYONE not in allowed:
            yield Finding(
                severity=Severity.WARN,
                where=f"channels.{channel}.allowFrom",
                evidence='dmPolicy is open, which needs "*" in allowFrom: only those who are listed are heard',
                cure='add "*", or set dmPolicy to allowlist',
            )


@TABLE.add("channels.groups.nobody", "nobody in a listed group is heard", Severity.WARN)
def groups_nobody(context: CheckContext) -> Iterator[Finding]:
    for channel, section in context.config.channels.items():
        general = mapping(mapping(section.get("groups")).get(_ANYONE)).get("allowFrom")
        senders = section.get("groupAllowFrom", section.get("allowFrom"))
        if section.get("enabled") is False or section.get("groupPolicy", "allowlist") != "allowlist":
            continue
        for name, rule in mapping(section.get("groups")).items():
            own = mapping(rule).get("allowFrom", general)
            if not texts(senders if own is None else own):
                yield Finding(
                    severity=Severity.WARN,
                    where=f"channels.{channel}.groups.{name}",
                    evidence="no sender is listed for it: whoever writes there is not answered",
                    cure=f"list people in channels.{channel}.groupAllowFrom, or in the group's allowFrom",
                )


def _workspace(agent: str, path: Path, evidence: str, cure: str) -> Finding:
    return Finding(severity=Severity.CRITICAL, where=f"agents.entries.{agent}.workspace", evidence=f"{path}: {evidence}", cure=cure)
