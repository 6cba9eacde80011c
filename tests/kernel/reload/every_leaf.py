"""Every leaf of the composed schema, and another value for each."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from openclaw_config.models import Config, PluginEntry
from openclaw_config.secrets import Secret
from openclaw_kernel.host.discovery import Discovery
from openclaw_kernel.host.loader import load_class

Path = tuple[str, ...]

BASE: Mapping[str, Any] = {
    "gateway": {"port": 0, "auth": {"mode": "token", "token": "v8mQ2xk0T5sWJ3nY7bRd"}, "reload": {"mode": "hot"}},
    "agents": {"entries": {"main": {"default": True}}},
    "session": {"identityLinks": {"alice": ["telegram:1"]}},
    "secrets": {"entries": {"github": "not-a-real-secret"}},
    "channels": {
        # Nothing listens there: it is refused at once, and tried again later.
        "telegram": {
            "botToken": "1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "apiRoot": "http://127.0.0.1:9",
            "groups": {"-100": {}},
            "accounts": {"two": {"botToken": "2:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}},
        },
        "webchat": {},
    },
    "models": {
        "providers": {
            "echo": {},
            "openai": {"apiKey": "x", "baseUrl": "http://127.0.0.1:9/v1", "models": [{"id": "small"}]},
            "anthropic": {"apiKey": "x", "baseUrl": "http://127.0.0.1:9"},
            "claude-cli": {},
            "local": {"preload": False},
        }
    },
    "plugins": {"entries": {}},
}
"""What runs at first: as much as runs without anything else around."""

EXPANDED = {
    ("agents", "entries"): "main",
    ("session", "identityLinks"): None,
    ("secrets", "entries"): None,
    ("gateway", "reload", "units"): None,
}
"""Mappings: the key under which their entries are looked at, None for those that are taken as one value."""

SECTIONS = {("channels",), ("models", "providers"), ("plugins", "entries")}

GRANT = {"issuer": "https://id.example.org", "subject": "*", "scopes": ["operator.read"]}
HOME = "@HOME@"
"""In a value: the state folder."""
OAUTH = {"deviceAuthorizationUrl": "https://id.example.org/d", "tokenUrl": "https://id.example.org/t", "clientId": "gateway"}
BOT = "3:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

VALUES: Mapping[str, Any] = {
    "gateway.port": 18790,
    "gateway.mode": "remote",
    "gateway.trustedProxies": ["192.0.2.7"],
    "gateway.auth.mode": "none",
    "gateway.auth.token": "w9nR3yl1U6tXK4oZ8cSe",
    "gateway.auth.password": "x0oS4zm2V7uYL5pA9dTf",
    "gateway.auth.trustedProxy.userHeader": "X-User",
    "gateway.auth.trustedProxy.requiredHeaders": ["X-Proof"],
    "gateway.auth.trustedProxy.allowUsers": ["alice"],
    "gateway.auth.identities": [GRANT],
    "gateway.tls.certPath": {"certPath": "c.pem", "keyPath": "k.pem"},
    "gateway.tls.keyPath": {"certPath": "c.pem", "keyPath": "k.pem"},
    "gateway.tls.caPath": "ca.pem",
    "gateway.tls.clients": {"caPath": "ca.pem", "clients": [{"san": "DNS:laptop", "scopes": ["operator.read"]}]},
    "gateway.reload.units": {"telegram": "hybrid"},
    "gateway.controlUi.allowedOrigins": ["https://chat.example.org"],
    "gateway.controlUi.basePath": "/claw",
    "agents.entries": {"other": {"name": "Other"}},
    "agents.defaults.model": {"primary": "echo/echo"},
    "agents.defaults.workspace": "elsewhere",
    "agents.defaults.tools.allow": ["fetch"],
    "agents.defaults.tools.deny": ["shell"],
    "agents.defaults.secrets": ["github"],
    "agents.defaults.providers": ["echo"],
    "agents.entries.main.model": "echo/echo",
    "agents.entries.main.maxToolRounds": 7,
    "agents.entries.main.workspace": "elsewhere",
    "agents.entries.main.tools": {"allow": ["fetch"]},
    "agents.entries.main.tools.allow": ["fetch"],
    "agents.entries.main.tools.deny": ["shell"],
    "agents.entries.main.secrets": ["github"],
    "agents.entries.main.providers": ["echo"],
    "bindings": [{"agentId": "main", "match": {"channel": "telegram"}}],
    "session.mainKey": "other",
    "session.identityLinks": {"bob": ["telegram:2"]},
    "secrets.entries": {"github": "another-secret"},
    "secrets.exec.environment": ["HOME"],
}
"""Where the type alone does not tell, by path. A mapping below a model with several keys is merged into that model."""

PLUGIN_VALUES: Mapping[str, Any] = {
    "botToken": BOT,
    "allowFrom": ["7"],
    "groupAllowFrom": ["7"],
    "groups": {"-200": {"requireMention": False}},
    "apiRoot": "http://127.0.0.1:10",
    "proxy": "http://127.0.0.1:9",
    "webhookUrl": "https://bot.example.org/hook",
    "webhookPath": "/hook",
    "webhookSecret": "hook-secret",
    "defaultAccount": "two",
    "accounts": {"three": {"botToken": BOT}},
    "unknownAfterSendByChannel": {"telegram": "resend"},
    "issuers": [{"issuer": "https://id.example.org", "audience": ["a"]}],
    "root": "ui",
    "path": "/other-ui",
    "searchPath": "/bin",
    "secretVariables": ["TOKEN=github"],
    "environment": ["LANG"],
    "allowPrivate": ["127.0.0.1:8080"],
    "apiKey": "y",
    "baseUrl": "http://127.0.0.1:10/v1",
    "headers": {"X-One": "1"},
    "models": [{"id": "large"}],
    "tools": ["Read"],
    "fail": "overloaded",
    "arguments": {"a": 1},
    "tool": {"name": "fetch", "arguments": {"a": 1}},
    "stop": ["END"],
    "threads": 2,
    "repeatPenalty": 1.5,
    # It is looked for, and not loaded before the first question.
    "modelPath": f"{HOME}/model.gguf",
    "deviceAuthorizationUrl": "https://id.example.org/other",
    "tokenUrl": "https://id.example.org/other",
    "scopes": ["a"],
    "oauth": OAUTH,
}
"""The same for plugins' settings, by the last key."""


ONLY: Any = object()
"""In place of another value: the schema allows one alone."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of the schema."""

    path: Path
    annotation: Any
    default: Any

    def __str__(self) -> str:
        """The dotted key."""
        return ".".join(self.path)


def leaves_of(discovery: Discovery) -> Iterator[Leaf]:
    """Every leaf of the kernel's models and of each bundled plugin's settings."""
    yield from _leaves(Config, ())
    for found in discovery.plugins:
        if not found.bundled:
            continue
        model = getattr(load_class(found), "settings", None)
        entry: Path = ("plugins", "entries", found.id)
        yield from (leaf for leaf in _leaves(PluginEntry, entry) if leaf.path[-1] != "config")
        if model is None:
            continue
        section = {"channel": ("channels", found.id), "provider": ("models", "providers", found.id)}.get(found.kind, (*entry, "config"))
        yield from _leaves(model, section)


def _leaves(model: type[BaseModel], where: Path) -> Iterator[Leaf]:
    for name, info in model.model_fields.items():
        path = (*where, info.alias or name)
        if path in SECTIONS:
            continue
        inner = _model_of(info.annotation)
        if inner is not None and get_origin(info.annotation) is not list:
            key = _key_of(path, info.annotation)
            if key is not _WHOLE:
                yield from _leaves(inner, path if key is None else (*path, key))
                if not _is_optional(info.annotation):
                    continue
        yield Leaf(path, info.annotation, info.get_default(call_default_factory=True))


_WHOLE: Any = object()


def _key_of(path: Path, annotation: Any) -> Any:
    if get_origin(annotation) is not dict:
        return _WHOLE if _has_other_forms(annotation) else None
    if path in EXPANDED:
        return _WHOLE if EXPANDED[path] is None else EXPANDED[path]
    return {"groups": "-100", "accounts": "two"}.get(path[-1], _WHOLE) if path[0] == "channels" and "accounts" not in path[:-1] else _WHOLE


def _has_other_forms(annotation: Any) -> bool:
    return str in get_args(annotation)


def _is_optional(annotation: Any) -> bool:
    return type(None) in get_args(annotation) or get_origin(annotation) is dict


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_of(argument)) is not None), None)


def other_value(leaf: Leaf, current: Any) -> Any:
    """A value that the leaf does not have; raise `LookupError` for one that has to be written down above."""
    key = str(leaf)
    if key in VALUES:
        return VALUES[key]
    is_plugins = any(leaf.path[: len(section)] == section for section in SECTIONS)
    if is_plugins and leaf.path[-1] in PLUGIN_VALUES:
        return PLUGIN_VALUES[leaf.path[-1]]
    value = _of_type(leaf.annotation, leaf.default if current is None else current)
    if value is None:
        raise LookupError(f"{key}: no other value is known; add one to VALUES or PLUGIN_VALUES in {__name__}")
    return value


def _of_type(annotation: Any, current: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return next((word for word in arguments if word != current), ONLY)
    if origin in {Union, types.UnionType}:
        return next((value for one in arguments if one is not type(None) and (value := _of_type(one, current)) is not None), None)
    if hasattr(annotation, "__metadata__"):
        return _of_type(arguments[0], current)
    if annotation is bool:
        return not current
    if annotation is int:
        return current - 1 if current and current > 1 else (current or 1_000) + 1
    if annotation is float:
        return (current or 1.0) * 0.75
    if annotation is str:
        return f"{current or 'x'}y"
    return "another-secret" if annotation is Secret else None


def with_value(base: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """The content of a file with another value at a path; a mapping is merged into what is there."""
    key, rest = path[0], path[1:]
    if rest:
        below = base.get(key)
        return {**base, key: with_value(below if isinstance(below, Mapping) else {}, rest, value)}
    before = base.get(key)
    return {**base, key: {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value}


def content_for(leaf: Leaf) -> dict[str, Any]:
    """A file in which the leaf has another value, and whatever has to go with it."""
    path, value = leaf.path, other_value(leaf, _current(leaf.path))
    if str(leaf) in {"gateway.tls.certPath", "gateway.tls.keyPath", "gateway.tls.clients"}:
        path = path[:-1]
    content: Mapping[str, Any] = BASE
    for prefix, companions in COMPANIONS.items():
        if str(leaf) == prefix or str(leaf).startswith(f"{prefix}."):
            for where, companion in companions.items():
                content = with_value(content, tuple(where.split(".")), companion)
    return with_value(content, path, value)


def _current(path: Path) -> Any:
    node: Any = BASE
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


COMPANIONS: Mapping[str, Mapping[str, Any]] = {
    "gateway.bind": {"gateway.trustedProxies": ["192.0.2.7"]},
    "models.providers.openai.oauth": {"models.providers.openai.apiKey": None, "models.providers.openai.oauth": OAUTH},
    "models.providers.echo.tool": {"models.providers.echo.tool": {"name": "fetch"}},
    "channels.telegram.webhookPath": {"channels.telegram.webhookUrl": "https://bot.example.org/hook"},
    "plugins.entries.control-ui.config.path": {"plugins.entries.control-ui.config.root": "ui"},
}
"""What has to go with some leaves, for they mean nothing alone, or are refused."""
