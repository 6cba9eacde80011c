"""From the keys of the reference's configuration to ours: which key becomes which, and which have no place here.

What stands below a key that is taken goes through as it is. What our schema refuses of it is left behind afterwards, with the
schema's own reason; so this table names what is called otherwise, not everything that is alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openclaw_kernel.importing.report import Report
from openclaw_kernel.importing.secrets import NotTaken, Vault

Path = tuple[str, ...]

_BINDS: Final = {"loopback": "loopback", "lan": "lan"}
_SCOPES: Final = frozenset({"main", "per-peer", "per-channel-peer", "per-account-channel-peer"})
_IGNORED: Final = frozenset({"$schema", "meta", "wizard"})
"""What the reference writes for itself."""
_ELSEWHERE: Final = {
    "auth": "logins are made anew: openclaw-kernel auth login, or a key in models.providers",
    "cron": "there are no schedules here yet",
    "hooks": "there are no webhooks for agents here yet",
    "skills": "there are no skills here; what agents read in their workspaces was copied",
    "browser": "there is no browser tool here",
    "messages": "how answers look is set by channel here",
    "tools": "tools are given by agent: agents.defaults.tools, agents.entries.<id>.tools",
    "secrets": "secrets that the configuration uses were taken one by one",
    "env": "variables that the configuration uses were put in where they are used",
    "plugins": "plugins of the reference do not run here",
}
_GATEWAY: Final = {
    ("port",): ("port",),
    ("trustedProxies",): ("trustedProxies",),
    ("auth", "mode"): ("auth", "mode"),
    ("auth", "token"): ("auth", "token"),
    ("auth", "password"): ("auth", "password"),
    ("auth", "trustedProxy"): ("auth", "trustedProxy"),
    ("controlUi", "enabled"): ("controlUi", "enabled"),
    ("controlUi", "allowedOrigins"): ("controlUi", "allowedOrigins"),
    ("controlUi", "basePath"): ("controlUi", "basePath"),
    ("reload", "mode"): ("reload", "mode"),
    ("reload", "debounceMs"): ("reload", "debounceMs"),
    ("tls",): ("tls",),
    ("token",): ("auth", "token"),
    ("mode",): ("mode",),
}
_AGENT: Final = {
    "name": "name",
    "default": "default",
    "identity": "identity",
    "model": "model",
    "timeoutSeconds": "timeoutSeconds",
    "contextTokens": "contextTokens",
    "thinkingDefault": "thinking",
    "thinkingLevel": "thinking",
}
_IDENTITY: Final = frozenset({"name", "emoji", "avatar"})


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value for openclaw.yaml, where it comes from, and how it was changed on the way."""

    where: Path
    value: Any
    source: Path
    why: str | None = None


class Mapper:
    """Makes leaves of a configuration, and reports what has no place."""

    def __init__(self, vault: Vault, report: Report) -> None:
        self._vault = vault
        self._report = report

    def leaves(self, config: Mapping[str, Any]) -> Iterator[Leaf]:
        """Yield every value that may be taken."""
        sections: dict[str, Callable[[Any], Iterator[Leaf]]] = {
            "gateway": self._gateway,
            "agents": self._agents,
            "bindings": self._bindings,
            "session": self._session,
            "channels": self._channels,
            "models": self._models,
            "logging": self._logging,
        }
        for key, value in config.items():
            if key in sections:
                yield from sections[key](value)
            elif key not in _IGNORED:
                self._report.leave(key, _ELSEWHERE.get(key, "there is nothing like it here"))

    def value(self, value: Any, where: Path, source: Path) -> Iterator[Leaf]:
        """Yield the leaves of a tree that goes through as it is, its secrets as references."""
        try:
            if isinstance(value, Mapping) and value.keys() >= {"source", "id"}:
                text, why = self._vault.reference(value, where)
                yield Leaf(where, text, source, why)
            elif isinstance(value, Mapping):
                for key, item in value.items():
                    yield from self.value(item, (*where, str(key)), (*source, str(key)))
            elif isinstance(value, list):
                yield Leaf(where, [self._item(item, where) for item in value], source)
            elif isinstance(value, str):
                found, changed = self._vault.text(value, where)
                yield Leaf(where, found, source, changed)
            elif value is not None:
                yield Leaf(where, value, source)
        except NotTaken as error:
            self._report.leave(".".join(source), str(error))

    def _item(self, value: Any, where: Path) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self._item(item, (*where, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self._item(item, where) for item in value]
        return self._vault.text(value, where)[0] if isinstance(value, str) else value

    def _gateway(self, section: Any) -> Iterator[Leaf]:
        for source, target in _GATEWAY.items():
            found = _at(section, source)
            if found is not None:
                yield from self.value(found, ("gateway", *target), ("gateway", *source))
        bind = _at(section, ("bind",))
        if isinstance(bind, str) and bind in _BINDS:
            yield Leaf(("gateway", "bind"), _BINDS[bind], ("gateway", "bind"))
        known = {source[0] for source in _GATEWAY} | {"bind"} - {"auth", "controlUi", "reload"}
        for key in _mapping(section):
            if key not in known:
                self._report.leave(f"gateway.{key}", "there is nothing like it here")
        if isinstance(bind, str) and bind not in _BINDS:
            self._report.leave("gateway.bind", f"it is {bind}; here it is loopback or lan")
        for outer in ("auth", "controlUi", "reload"):
            taken = {source[1] for source in _GATEWAY if source[0] == outer and len(source) > 1}
            for key in _mapping(_at(section, (outer,))):
                if key not in taken:
                    self._report.leave(f"gateway.{outer}.{key}", "there is nothing like it here")

    def _agents(self, section: Any) -> Iterator[Leaf]:
        defaults = _mapping(_at(section, ("defaults",)))
        yield from self._agent(defaults, ("agents", "defaults"), ("agents", "defaults"))
        for source, agent_id, entry in agent_entries(section):
            yield from self._agent(entry, ("agents", "entries", agent_id), source, is_entry=True)
        for key in _mapping(section):
            if key not in {"defaults", "list", "entries"}:
                self._report.leave(f"agents.{key}", "there is nothing like it here")

    def _agent(self, entry: Mapping[str, Any], where: Path, source: Path, *, is_entry: bool = False) -> Iterator[Leaf]:
        if is_entry and not any(key in entry for key in _AGENT):
            yield Leaf(where, {}, source)
        for key, value in entry.items():
            origin = (*source, str(key))
            if key in {"id", "workspace"}:
                # The id is the key here, and the workspace is copied.
                continue
            if key == "identity":
                kept = {name: item for name, item in _mapping(value).items() if name in _IDENTITY}
                yield from self.value(kept, (*where, "identity"), origin)
                self._leave_others(value, _IDENTITY, origin)
            elif key == "tools":
                names = {name: item for name, item in _mapping(value).items() if name in {"allow", "deny"}}
                yield from self.value(names, (*where, "tools"), origin)
                self._leave_others(value, names.keys(), origin)
            elif key == "model" and isinstance(value, Mapping):
                yield from self.value({name: value[name] for name in ("primary", "fallbacks") if name in value}, (*where, "model"), origin)
                self._leave_others(value, {"primary", "fallbacks"}, origin)
            elif key in _AGENT and (is_entry or key not in {"name", "default"}):
                renamed = _AGENT[key]
                for leaf in self.value(value, (*where, renamed), origin):
                    yield leaf if renamed == key else Leaf(leaf.where, leaf.value, leaf.source, leaf.why or f"is called {renamed} here")
            else:
                self._report.leave(".".join(origin), "there is nothing like it here")

    def _bindings(self, section: Any) -> Iterator[Leaf]:
        taken = []
        for position, entry in enumerate(section if isinstance(section, list) else []):
            binding, where = _mapping(entry), f"bindings.{position}"
            if binding.get("type") not in {None, "route"}:
                self._report.leave(where, f"it is of the type {binding.get('type')!r}, and there are only routes here")
                continue
            match = dict(_mapping(binding.get("match")))
            peer = dict(_mapping(match.get("peer")))
            if peer:
                peer["kind"] = {"dm": "direct", "room": "channel"}.get(str(peer.get("kind")), peer.get("kind"))
                match["peer"] = {"kind": peer["kind"], "id": str(peer.get("id"))}
            ours: dict[str, Any] = {"agentId": str(binding.get("agentId", "")).lower(), "match": match}
            scope = _mapping(binding.get("session")).get("dmScope")
            if scope in _SCOPES:
                ours["session"] = {"dmScope": scope}
            for key in binding:
                if key not in {"agentId", "match", "session", "type", "comment"}:
                    self._report.leave(f"{where}.{key}", "there is nothing like it here")
            taken.append(ours)
        if taken:
            yield Leaf(("bindings",), taken, ("bindings",))

    def _session(self, section: Any) -> Iterator[Leaf]:
        for key, value in _mapping(section).items():
            if key in {"dmScope", "mainKey", "identityLinks"}:
                yield from self.value(value, ("session", key), ("session", key))
            elif not (key == "scope" and value == "per-sender"):
                self._report.leave(f"session.{key}", "there is nothing like it here")

    def _channels(self, section: Any) -> Iterator[Leaf]:
        for channel, settings in _mapping(section).items():
            if channel in {"defaults", "webchat"}:
                self._report.leave(f"channels.{channel}", "each channel has its own settings here")
                continue
            yield from self._account(_mapping(settings), ("channels", channel), ("channels", channel))

    def _account(self, settings: Mapping[str, Any], where: Path, source: Path) -> Iterator[Leaf]:
        for key, value in settings.items():
            origin = (*source, str(key))
            if key == "accounts":
                for name, own in _mapping(value).items():
                    yield from self._account(_mapping(own), (*where, "accounts", str(name)), (*origin, str(name)))
            elif key == "streaming":
                mode = _mapping(value).get("mode") if isinstance(value, Mapping) else value
                if mode in {False, "off"}:
                    yield Leaf((*where, key), "off", origin)
                elif mode in {True, "partial", "block", "progress"}:
                    yield Leaf((*where, key), "partial", origin, None if mode == "partial" else "partial is the nearest to it here")
            elif key == "tokenFile":
                yield from self._token_file(value, (*where, "botToken"), origin)
            else:
                yield from self.value(value, (*where, str(key)), origin)

    def _token_file(self, value: Any, where: Path, origin: Path) -> Iterator[Leaf]:
        from pathlib import Path as File

        try:
            text = File(str(value)).expanduser().read_text(encoding="utf-8").strip()
            yield Leaf(where, self._vault.put(text, where), origin, "moved into a file of its own")
        except (OSError, UnicodeDecodeError, NotTaken):
            self._report.leave(".".join(origin), "the file with the token cannot be read")

    def _models(self, section: Any) -> Iterator[Leaf]:
        for key, value in _mapping(section).items():
            if key == "providers":
                yield from self.value(value, ("models", "providers"), ("models", "providers"))
            else:
                self._report.leave(f"models.{key}", "there is nothing like it here")

    def _logging(self, section: Any) -> Iterator[Leaf]:
        for key, value in _mapping(section).items():
            if key == "level":
                level = {"warn": "warning", "trace": "debug", "fatal": "error", "silent": "error"}.get(str(value), value)
                yield Leaf(("logging", "level"), level, ("logging", "level"), None if level == value else f"it was {value}")
            else:
                self._report.leave(f"logging.{key}", "there is nothing like it here")

    def _leave_others(self, value: Any, taken: Any, source: Path) -> None:
        for key in _mapping(value):
            if key not in taken:
                self._report.leave(".".join((*source, str(key))), "there is nothing like it here")


def agent_entries(section: Any) -> Iterator[tuple[Path, str, Mapping[str, Any]]]:
    """Yield each agent: where it stands, its id, and its entry; the reference had a list of them, and has a mapping."""
    listed = _at(section, ("list",))
    for position, entry in enumerate(listed if isinstance(listed, list) else []):
        agent_id = str(_mapping(entry).get("id", "")).lower()
        if agent_id:
            yield ("agents", "list", str(position)), agent_id, _mapping(entry)
    for name, entry in _mapping(_at(section, ("entries",))).items():
        yield ("agents", "entries", str(name)), str(name).lower(), _mapping(entry)


def _at(node: Any, where: Path) -> Any:
    for part in where:
        node = _mapping(node).get(part)
    return node


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
