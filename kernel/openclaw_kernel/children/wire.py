"""The shapes of the contract: an api type is an object whose keys are its fields in camelCase. Pure, and used on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any, Final, TypeVar

from pydantic.alias_generators import to_camel

from openclaw_kernel.api.channel import AccountStatus, ChannelCapabilities
from openclaw_kernel.api.messages import Target
from openclaw_kernel.api.tool import RetryClass
from openclaw_kernel.host.contract import misfit

ItemT = TypeVar("ItemT")

PROTOCOL: Final = 1
MOST_LISTED: Final = 256
"""Of anything in one list: whoever reads it runs on the event loop."""


class Misshapen(ValueError):
    """An object of the contract lacks a key, or has one of another type; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolShape:
    """A tool as a child registers it."""

    name: str
    label: str
    description: str
    parameters: dict[str, Any]
    retry_class: str
    timeout_seconds: float
    group: str = "plugin"
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandShape:
    """A command as either side tells of it."""

    name: str
    description: str
    accepts_arguments: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelShape:
    """A channel as a child registers it."""

    id: str
    label: str
    capabilities: ChannelCapabilities = field(default_factory=ChannelCapabilities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The result of `register`."""

    channels: tuple[ChannelShape, ...] = ()
    tools: tuple[ToolShape, ...] = ()
    commands: tuple[CommandShape, ...] = ()


def to_wire(item: Any, *, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """Return a dataclass as an object of the contract; what is None is left out."""
    found = {each.name: getattr(item, each.name) for each in fields(item) if each.name not in leave_out}
    return {to_camel(name): _plain(value) for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return to_wire(value) if hasattr(type(value), "__dataclass_fields__") else value


def read(kind: type[ItemT], value: object, what: str, **given: Any) -> ItemT:
    """Return an object of the contract as the dataclass; unknown keys are ignored, `given` fields are not read.

    Raises:
        Misshapen: it is no object, lacks a key or has one of another type; the message begins with `what`.
    """
    if not isinstance(value, Mapping):
        raise Misshapen(f"{what}: found {type(value).__name__}; give an object")
    taken: dict[str, Any] = dict(given)
    known: Any = kind
    for each in fields(known):
        key = to_camel(each.name)
        if each.name in given:
            continue
        if key in value and value[key] is not None:
            taken[each.name] = _lists_are_tuples(value[key])
        elif each.default is MISSING and each.default_factory is MISSING:
            raise Misshapen(f"{what}.{key}: is missing; give it")
    item = kind(**taken)
    wrong = misfit(item)
    if wrong is not None:
        raise Misshapen(f"{what}: {wrong}; give what the contract says")
    return item


def _lists_are_tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read_target(value: object, what: str) -> Target:
    """Return a Target; raise `Misshapen`."""
    return read(Target, value, what)


def read_accounts(value: object, what: str) -> tuple[AccountStatus, ...]:
    """Return the accounts of a channel; raise `Misshapen`."""
    return tuple(read(AccountStatus, each, f"{what}[{number}]") for number, each in enumerate(_listed(value, what)))


def read_registered(value: object) -> Registered:
    """Return what a child registers; raise `Misshapen`."""
    if not isinstance(value, Mapping):
        raise Misshapen(f"register: found {type(value).__name__}; answer with an object")
    tools = tuple(read(ToolShape, each, f"tools[{number}]") for number, each in enumerate(_listed(value.get("tools"), "tools")))
    for tool in tools:
        if tool.retry_class not in set(RetryClass):
            raise Misshapen(f"tool {tool.name!r}: retryClass is {tool.retry_class!r}; give one of {', '.join(RetryClass)}")
    channels = tuple(_read_channel(each, f"channels[{number}]") for number, each in enumerate(_listed(value.get("channels"), "channels")))
    return Registered(channels=channels, tools=tools, commands=read_commands(value.get("commands")))


def read_commands(value: object) -> tuple[CommandShape, ...]:
    """Return commands; raise `Misshapen`."""
    return tuple(read(CommandShape, each, f"commands[{number}]") for number, each in enumerate(_listed(value, "commands")))


def read_text(value: object, key: str, what: str) -> str:
    """Return a text of a result; raise `Misshapen`."""
    text = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(text, str):
        raise Misshapen(f"{what}: {key} is {type(text).__name__}; answer with a string")
    return text


def _read_channel(value: object, what: str) -> ChannelShape:
    told = value.get("capabilities") if isinstance(value, Mapping) else None
    capabilities = read(ChannelCapabilities, {} if told is None else told, f"{what}.capabilities")
    return read(ChannelShape, value, what, capabilities=capabilities)


def _listed(value: object, what: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Misshapen(f"{what}: found {type(value).__name__}; give a list")
    if len(value) > MOST_LISTED:
        raise Misshapen(f"{what}: {len(value)} are more than {MOST_LISTED}; list fewer")
    return value
