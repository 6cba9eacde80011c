"""What can be seen of a gateway's plugins and of its own settings, as plain data that two gateways can be compared by."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from openclaw_config.models import Config
from openclaw_config.secrets import Secret
from openclaw_kernel.app import GatewayApp
from openclaw_kernel.host import PluginHost
from openclaw_kernel.live.leaves import credential

_DEPTH = 9
_PLAIN = (str, int, float, bool, bytes, type(None), Enum, Path)


def of_plugins(host: PluginHost) -> dict[str, Any]:
    """By plugin: its snapshot, all that it registered, and every piece of config that it holds anywhere."""
    now = host.current()
    seen: dict[str, Any] = {}
    for plugin_id, hosted in now.hosted.items():
        registry = now.registry
        own = [
            (f"{kind} {name}", owned.item)
            for kind in ("channels", "providers", "tools", "commands", "authenticators")
            for name, owned in getattr(registry, kind).items()
            if owned.plugin_id == plugin_id
        ]
        lists = {
            "methods": sorted(method.name for owner, method in registry.methods if owner == plugin_id),
            "routes": sorted(f"{route.method} {route.path}" for owner, route in registry.routes if owner == plugin_id),
            "events": sorted(spec.name for owner, spec in registry.events if owner == plugin_id),
            "units": sorted(type(unit).__name__ for owner, unit in registry.units if owner == plugin_id),
        }
        seen[plugin_id] = {
            "section": _shown(hosted.context.snapshot.section),
            "instances": {name: _shown(settings) for name, settings in hosted.context.snapshot.instances.items()},
            "registered": {name: _facts(item) for name, item in own},
            "channels": {name: _accounts(item) for name, item in own if name.startswith("channels ")},
            "models": {name: _models(item) for name, item in own if name.startswith("providers ")},
            # Of a thing that was made from the settings, the settings themselves: where they are stale, so is it.
            "holds": _settings_of(plugin_id, [hosted.plugin, *(item for _, item in own)], hosted.context.snapshot.section),
            **lists,
        }
    return seen


def _settings_of(plugin_id: str, roots: list[Any], section: Any) -> list[str]:
    if _is_a_cache(plugin_id):
        return []
    # What an account that was started holds is made of the section, and is there from the start only.
    made = section.effective().values() if hasattr(section, "effective") else ()
    return sorted({repr(_shown(one)) for one in (*_held(roots), *made) if not isinstance(one, Config)})


def stale_configs(host: PluginHost) -> list[str]:
    """The plugins that hold a whole config which is not the one in force."""
    now = host.current()
    return [
        plugin_id
        for plugin_id, hosted in now.hosted.items()
        if hosted.context.config != now.config
        or any(isinstance(one, Config) and one is not hosted.context.config for one in _held([hosted.plugin]) if not _is_a_cache(plugin_id))
    ]


def _is_a_cache(plugin_id: str) -> bool:
    # They compare what they read it from with the config in force, at each use.
    return plugin_id in {"routing", "admission"}


def of_kernel(app: GatewayApp) -> dict[str, Any]:
    """What the kernel's own parts work by."""
    verifier, pages = app.wire.verifier, app.wire.pages
    return {
        "auth": _shown(verifier._auth),
        "certificates": [_shown(one) for one in verifier._certificates],
        "page key": pages._key,
        "origins": app.leaves.allowed_origins,
        "proxies": _facts(app._arrivals.proxies, private=True),
        "deadline": app.host.timing.call,
        "secrets": _shown(app.host._broker.config.secrets),
        "agents": _shown(app.host._broker.config.agents),
        "main key": app.facts._loaded.config.session.main_key,
    }


def as_configured(config: Config) -> dict[str, Any]:
    """What `of_kernel` is for a gateway that was started with this config."""
    from openclaw_kernel.live.leaves import proxies

    return {
        "auth": _shown(config.gateway.auth),
        "certificates": [_shown(one) for one in config.gateway.tls.clients],
        "page key": credential(config.gateway.auth),
        "origins": config.gateway.control_ui.allowed_origins,
        "proxies": _facts(proxies(config.gateway), private=True),
        "deadline": config.plugins.call_timeout_seconds,
        "secrets": _shown(config.secrets),
        "agents": _shown(config.agents),
        "main key": config.session.main_key,
    }


def _accounts(channel: Any) -> list[Any]:
    return sorted((account.account_id, account.enabled, account.configured) for account in channel.status())


def _models(provider: Any) -> list[Any]:
    return sorted(repr(model) for model in provider.models())


def _shown(value: Any) -> Any:
    """A settings model as data in which secrets can be told apart."""
    if isinstance(value, Secret):
        return ("secret", value.unwrap())
    if isinstance(value, BaseModel):
        return {name: _shown(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else value


def _facts(item: Any, *, private: bool = False) -> dict[str, Any]:
    """The plain values of a thing itself; those that are its own business move while it runs."""
    shown = ((name, value) for name, value in _attributes(item) if (private or not name.startswith("_")) and _is_plain(value))
    return {name: _shown(value) for name, value in shown}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | frozenset):
        return all(_is_plain(one) for one in value)
    if isinstance(value, dict):
        return all(_is_plain(one) for one in value.values())
    return isinstance(value, (*_PLAIN, Secret))


def _attributes(item: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(item):
        yield from ((field.name, getattr(item, field.name)) for field in dataclasses.fields(item))
        return
    yield from getattr(item, "__dict__", {}).items()
    for kind in type(item).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        yield from ((name, getattr(item, name)) for name in ([slots] if isinstance(slots, str) else slots) if hasattr(item, name))


def _held(roots: list[Any]) -> list[BaseModel]:
    """Every settings model that can be reached from these things without leaving the plugin."""
    found: list[BaseModel] = []
    seen: set[int] = set()
    waiting = [(root, 0) for root in roots]
    while waiting:
        item, depth = waiting.pop()
        if id(item) in seen or depth > _DEPTH or isinstance(item, (*_PLAIN, type, types.ModuleType, Secret)):
            continue
        seen.add(id(item))
        if isinstance(item, BaseModel):
            found.append(item)
        elif isinstance(item, Mapping):
            waiting += [(one, depth + 1) for one in item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += [(one, depth + 1) for one in item]
        elif isinstance(item, types.MethodType):
            waiting.append((item.__self__, depth + 1))
        elif isinstance(item, functools.partial):
            waiting += [(one, depth + 1) for one in (item.func, *item.args, *item.keywords.values())]
        elif isinstance(item, types.FunctionType):
            waiting += [(cell.cell_contents, depth + 1) for cell in item.__closure__ or () if cell != types.CellType()]
        elif type(item).__module__.startswith(("openclaw_plugins", "openclaw_channels", "openclaw_providers", "openclaw_kernel.api")):
            waiting += [(value, depth + 1) for _, value in _attributes(item)]
    return found
