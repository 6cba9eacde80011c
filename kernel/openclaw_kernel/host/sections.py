"""Which plugin runs, and which part of the config is its own. Pure: config and discovery in, assignment out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from openclaw_config.models import Config
from openclaw_kernel.host.discovery import Discovery, Found
from openclaw_kernel.host.explain import Fault, explain, faults_of, suggest

ModelT = TypeVar("ModelT", bound=BaseModel)

ALWAYS_ON: Final = frozenset({"webchat"})
"""Channels that run without a section: the WebSocket clients are one."""

_PROVIDERS: Final = "models.providers"


@dataclass(slots=True, kw_only=True)
class Share:
    """One plugin's part of the config. `disabled` says why it does not run, None where it does."""

    disabled: str | None = None
    isolated: bool = False
    """Whether its code runs in a process of its own."""
    section: Mapping[str, Any] = field(default_factory=dict)
    instances: dict[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The shares by plugin id, and the parts of the config that nobody owns, a line each."""

    shares: Mapping[str, Share]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Validated(Generic[ModelT]):
    """The provider instances that are valid, and the faults of the others."""

    instances: Mapping[str, ModelT]
    faults: tuple[str, ...]


def assign(config: Config, discovery: Discovery) -> Assignment:
    """Give each plugin its share."""
    shares = {found.id: Share() for found in discovery.plugins}
    problems = [*_assign_instances(config, discovery, shares), *_unowned(config, discovery)]
    for found in discovery.plugins:
        share = shares[found.id]
        share.disabled = _disabled(config, found, share)
        entry = config.plugins.entries.get(found.id)
        share.isolated = found.program is not None or (entry is not None and entry.isolation == "process")
        if found.kind == "channel":
            share.section = config.channels.get(found.id, {})
        elif found.id in config.plugins.entries:
            share.section = config.plugins.entries[found.id].config
    return Assignment(shares=shares, problems=tuple(problems))


def validate_section(model: type[ModelT], path: str, section: Mapping[str, Any]) -> ModelT:
    """Validate a section; raise `ValueError` with one line for each fault, joined by `; `."""
    try:
        return model.model_validate(_own_keys(model, section))
    except ValidationError as error:
        raise ValueError("; ".join(explain(model, path, section, error))) from error


def faults_in(model: type[BaseModel], section: Mapping[str, Any]) -> list[Fault]:
    """Return what is wrong with a section, or with an entry of a provider plugin; empty where all is well."""
    content = _own_keys(model, section)
    try:
        model.model_validate(content)
    except ValidationError as error:
        return faults_of(model, section, error)
    return []


def validate_instances(model: type[ModelT], instances: Mapping[str, Mapping[str, Any]]) -> Validated[ModelT]:
    """Validate the entries of a provider plugin one by one."""
    valid: dict[str, ModelT] = {}
    faults: list[str] = []
    for identity, section in instances.items():
        try:
            valid[identity] = validate_section(model, f"{_PROVIDERS}.{identity}", section)
        except ValueError as error:
            faults.append(str(error))
    return Validated(valid, tuple(faults))


def _own_keys(model: type[BaseModel], section: Mapping[str, Any]) -> dict[str, Any]:
    # `api` and `enabled` speak to the host; a settings model that wants to see them declares them.
    declared = {field.alias or name for name, field in model.model_fields.items()}
    return {key: value for key, value in section.items() if key in declared or key not in {"api", "enabled"}}


def _disabled(config: Config, found: Found, share: Share) -> str | None:
    entry = config.plugins.entries.get(found.id)
    if entry is not None and not entry.enabled:
        return f"plugins.entries.{found.id}.enabled is false"
    if not config.plugins.enabled and not found.bundled:
        return "plugins.enabled is false"
    if found.kind == "provider":
        return None if share.instances else f"no entry of {_PROVIDERS} is its own"
    if found.program is not None and found.kind == "plugin" and entry is None:
        return f"there is no section plugins.entries.{found.id}"
    if found.kind == "plugin" or found.id in ALWAYS_ON:
        return None
    if found.id not in config.channels:
        return f"there is no section channels.{found.id}"
    return f"channels.{found.id}.enabled is false" if config.channels[found.id].get("enabled") is False else None


def _assign_instances(config: Config, discovery: Discovery, shares: Mapping[str, Share]) -> list[str]:
    problems: list[str] = []
    providers = [found for found in discovery.plugins if found.kind == "provider"]
    for identity, section in config.models.providers.items():
        api = section.get("api")
        owners = [found for found in providers if _owns(found, identity, api)]
        if not owners:
            problems.append(_nobody(identity, api, [found.id for found in providers]))
            continue
        # Bundled ones come first in a discovery.
        shares[owners[0].id].instances[identity] = section
        if len(owners) > 1:
            names = " and ".join(repr(found.id) for found in owners)
            problems.append(f"{_PROVIDERS}.{identity}: plugins {names} claim it, {owners[0].id!r} has it; disable the other")
    return problems


def _owns(found: Found, identity: str, api: object) -> bool:
    claims = found.manifest.provider if found.manifest is not None else None
    if api is not None:
        return api == found.id or (claims is not None and api in claims.apis)
    return identity == found.id or (claims is not None and identity in claims.ids)


def _nobody(identity: str, api: object, installed: list[str]) -> str:
    names = ", ".join(sorted(installed)) or "none"
    if api is None:
        return f"{_PROVIDERS}.{identity}: no provider plugin is for this id; name one with 'api'; installed: {names}"
    return f"{_PROVIDERS}.{identity}: no plugin provides api {api!r}; installed: {names}"


def _unowned(config: Config, discovery: Discovery) -> list[str]:
    channels = discovery.ids("channel")
    problems = [
        f"channels.{name}: no channel plugin {name!r} is installed; {suggest(name, channels)}"
        for name in config.channels
        if name not in channels
    ]
    everyone = discovery.ids()
    problems += [
        f"plugins.entries.{name}: no plugin {name!r} is installed; {suggest(name, everyone)}"
        for name in config.plugins.entries
        if name not in everyone
    ]
    return problems
