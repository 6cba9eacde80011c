"""What a changed key does to whom: the kernel's own rules here, those of plugins from their manifests. Pure; the longest prefix wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from openclaw_kernel.api.config import ReloadOutcome
from openclaw_kernel.reload.diff import Path

ANY: Final = "*"
"""In a prefix: any one key."""
CONTAINERS: Final[tuple[Path, ...]] = (("channels",), ("models", "providers"), ("plugins", "entries"))
"""Where plugins have their sections, each its own."""

NONE, HOT, UNIT, PROCESS = ReloadOutcome.NONE, ReloadOutcome.HOT, ReloadOutcome.UNIT, ReloadOutcome.PROCESS


@dataclass(frozen=True, slots=True)
class Rule:
    """What a change below a prefix does, and why."""

    prefix: Path
    outcome: ReloadOutcome
    reason: str

    def covers(self, path: Path) -> bool:
        """Whether the path is the prefix or lies below it."""
        return len(self.prefix) <= len(path) and all(own in {ANY, key} for own, key in zip(self.prefix, path, strict=False))

    @property
    def is_shared(self) -> bool:
        """Whether the prefix is where sections of several plugins are: then it speaks of the plugin's own alone."""
        return any(self.prefix in {container, (*container, ANY)} for container in CONTAINERS)


class Rules:
    """The rules of one unit."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        # A key that is named says more than any.
        self._rules = sorted(rules, key=lambda rule: (len(rule.prefix), [key != ANY for key in rule.prefix]), reverse=True)

    @classmethod
    def of_manifest(cls, table: Mapping[str, ReloadOutcome | str]) -> Rules:
        """Read the table `[reload]` of a manifest."""
        return cls(
            Rule(tuple(prefix.split(".")), ReloadOutcome(outcome), f'its manifest says "{prefix}" = "{ReloadOutcome(outcome).value}"')
            for prefix, outcome in table.items()
        )

    @classmethod
    def of_plugin(cls, plugin_id: str, table: Mapping[str, ReloadOutcome | str], *, section: str, isolated: bool) -> Rules:
        """Read the table `[reload]` of a plugin's manifest; one with a process of its own was handed its section with its start."""
        entry = ("plugins", "entries", plugin_id)
        where = [Rule((*entry, "isolation"), UNIT, "it moves to where it is to run"), Rule((*entry, "limits"), NONE, "it has no process")]
        if not isolated:
            # Where a plugin runs is the kernel's to say, whatever its manifest says of it.
            own_words = [rule for rule in cls.of_manifest(table).rules if not any(each.covers(rule.prefix) for each in where)]
            return cls([*own_words, *where])
        handed = "its process is handed its settings when it starts"
        own = [tuple(section.split(".")), entry, (*entry, "limits"), (*entry, "isolation")]
        return cls(Rule(prefix, UNIT, handed) for prefix in own)

    @property
    def rules(self) -> Sequence[Rule]:
        """All of them, those that say most first."""
        return self._rules

    def of(self, path: Path, *, is_own: bool = True) -> Rule | None:
        """Return the rule that decides a path, None where none covers it. `is_own`: it lies in a section of the unit."""
        return next((rule for rule in self._rules if rule.covers(path) and (is_own or not rule.is_shared)), None)


_TABLE: Final[Mapping[str, tuple[ReloadOutcome, str]]] = MappingProxyType(
    {
        "gateway.mode": (NONE, "only the command line reads it"),
        "gateway.port": (PROCESS, "the port is opened once, at the start"),
        "gateway.bind": (PROCESS, "the address is opened once, at the start"),
        "gateway.trustedProxies": (HOT, "whom to believe is asked for each request"),
        "gateway.auth": (HOT, "the next request is checked against it; whose credential changed is disconnected"),
        "gateway.tls": (PROCESS, "whether the port speaks TLS, and from which files, is settled when it is opened"),
        "gateway.tls.clients": (HOT, "the next handshake is checked against it; whose grant changed is disconnected"),
        "gateway.pairing": (HOT, "the next device is judged by it"),
        "gateway.reload": (HOT, "the next edit is taken by it"),
        "gateway.controlUi.enabled": (NONE, "the chat page reads it"),
        "gateway.controlUi.allowedOrigins": (HOT, "the next page is compared with it"),
        "gateway.controlUi.basePath": (PROCESS, "every route is mounted below it when the port is opened"),
        "agents": (HOT, "the next turn reads it"),
        "bindings": (HOT, "the next message is routed by it"),
        "session": (HOT, "the next message reads it"),
        "secrets": (HOT, "the next call that is handed a secret gets the new one"),
        "plugins.enabled": (HOT, "the plugins themselves are started or stopped"),
        "plugins.callTimeoutSeconds": (HOT, "the next call of a plugin has it"),
        "logging.level": (HOT, "the next record is judged by it"),
    }
)

KERNEL: Final = Rules(Rule(tuple(prefix.split(".")), outcome, reason) for prefix, (outcome, reason) in _TABLE.items())
"""The kernel's own. What is not here, and no plugin declares, needs a restart."""
