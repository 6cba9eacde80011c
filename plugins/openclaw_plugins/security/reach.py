"""Who can write to which agent, from the access keys of the channels; the same reading as that of the plugin admission. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openclaw_kernel.api import CheckContext, Config

ANYONE: Final = "*"
ONLY_AGENT: Final = "main"
SHELL: Final = "shell"


@dataclass(frozen=True, slots=True)
class Account:
    """One account of a channel: where its keys stand, and its section with what it takes from above."""

    channel: str
    key: tuple[str, ...]
    section: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The key with dots."""
        return ".".join(self.key)

    def own(self, name: str) -> tuple[str, ...]:
        """Where a key of the account stands: its own, or that of the channel which it takes it from."""
        return (*self.key, name)

    @property
    def open_dm(self) -> bool:
        """Whether everybody may write in private."""
        return self.section.get("dmPolicy") == "open" and ANYONE in texts(self.section.get("allowFrom"))

    def groups(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The groups that are listed, each with what it takes from `*`."""
        groups = mapping(self.section.get("groups"))
        general = mapping(groups.get(ANYONE))
        for name, rule in groups.items():
            yield str(name), {**general, **mapping(rule)}

    @property
    def hears_groups(self) -> bool:
        """Whether any group is heard."""
        policy = self.section.get("groupPolicy", "allowlist")
        return policy == "open" or (policy == "allowlist" and bool(mapping(self.section.get("groups"))))

    @property
    def open_groups(self) -> bool:
        """Whether there may be a group in which everybody is heard."""
        if not self.hears_groups:
            return False
        if any(ANYONE in texts(rule.get("allowFrom")) for _, rule in self.groups()):
            return True
        senders = self.section.get("groupAllowFrom")
        return ANYONE in texts(senders) if senders is not None else self.section.get("groupPolicy") == "open"


def accounts(config: Config) -> Iterator[Account]:
    """Every account of every channel that is not disabled."""
    for channel, section in config.channels.items():
        if section.get("enabled") is False:
            continue
        yield Account(channel, ("channels", channel), section)
        for name, own in mapping(section.get("accounts")).items():
            if mapping(own).get("enabled") is not False:
                merged = {**{key: value for key, value in section.items() if key != "accounts"}, **mapping(own)}
                yield Account(channel, ("channels", channel, "accounts", str(name)), merged)


def agent_ids(config: Config) -> list[str]:
    """All agents."""
    return list(config.agents.entries) or [ONLY_AGENT]


def reached_by_strangers(config: Config) -> dict[str, list[str]]:
    """The agents whom people can write to whom nobody named, with the keys that let them in."""
    reached: dict[str, list[str]] = {}
    for account in accounts(config):
        if not (account.open_dm or account.open_groups):
            continue
        bound = {binding.agent_id for binding in config.bindings if binding.match.channel == account.channel}
        for agent in {*bound, _default(config)}:
            reached.setdefault(agent, []).append(account.where)
    return reached


def tools_of(config: Config, agent: str) -> tuple[str, tuple[str, ...]]:
    """The tools that an agent is offered by name, and the key that says so."""
    entry = config.agents.entries.get(agent)
    own = None if entry is None else entry.tools
    tools, key = (config.agents.defaults.tools, "agents.defaults.tools") if own is None else (own, f"agents.entries.{agent}.tools")
    return f"{key}.allow", tuple(name for name in tools.allow or () if name not in tools.deny)


def has_shell(config: Config, agent: str) -> bool:
    """Whether an agent may run programs."""
    entry = config.plugins.entries.get("shell-tool")
    return (entry is None or entry.enabled) and SHELL in tools_of(config, agent)[1]


def plugin_settings(context: CheckContext, plugin_id: str) -> Mapping[str, Any]:
    """A plugin's section as it is written; empty where it is disabled."""
    entry = context.config.plugins.entries.get(plugin_id)
    return {} if entry is None or not entry.enabled else entry.config


def mapping(value: object) -> Mapping[str, Any]:
    """A mapping; anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def texts(value: object) -> list[str]:
    """The items of a list as text; YAML makes numbers of numeric ids."""
    return [str(item) for item in value] if isinstance(value, list) else []


def _default(config: Config) -> str:
    entries = config.agents.entries
    return next((name for name, entry in entries.items() if entry.default), next(iter(entries), ONLY_AGENT))
