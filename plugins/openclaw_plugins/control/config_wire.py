"""Params and results of the config methods."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from openclaw_kernel.api import Params

Text = Annotated[str, StringConstraints(min_length=1, max_length=2_097_152)]
Hash = Annotated[str, StringConstraints(min_length=1, max_length=512)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[A-Za-z0-9_./\[\]\-*]+$")]


class LookupParams(Params):
    """A path of the config: `gateway.port`, `agents.entries.*.model`."""

    path: PathText


class ConfigDeliveryContext(Params):
    """A place outside of the gateway that is told after a restart, beside the session."""

    channel: str | None = None
    to: str | None = None
    account_id: str | None = None
    thread_id: str | int | float | None = None


class ConfigSetParams(Params):
    """`raw` is the whole file: YAML as it is to be, or JSON5 of what it is to say. `allow_shrink` lets it lose more than half of itself."""

    raw: Text
    base_hash: Hash | None = None
    allow_shrink: bool = False


class ToldParams(Params):
    """Where a restart follows, `note` is told to `session_key` and `delivery_context` after it."""

    session_key: Annotated[str, StringConstraints(max_length=512)] | None = None
    delivery_context: ConfigDeliveryContext | None = None
    note: Annotated[str, StringConstraints(max_length=4000)] | None = None
    restart_delay_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0


class ConfigApplyParams(ConfigSetParams, ToldParams):
    """As `config.set`, and who is told after a restart."""


class ConfigPatchParams(ToldParams):
    """`raw` is a merge patch as JSON5; `replace_paths` are lists that it may shorten. The rest as in `config.apply`."""

    raw: Text
    base_hash: Hash | None = None
    replace_paths: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=1024)]], Field(max_length=256)] = []


class ConfigPlanParams(Params):
    """What would be written: `raw` as in `config.set`, or `patch` as in `config.patch` with its `replace_paths`."""

    raw: Text | None = None
    patch: Text | None = None
    replace_paths: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=1024)]], Field(max_length=256)] = []


class UnitRow(TypedDict):
    """What was or would be done to one unit: a plugin's id, or `kernel`."""

    unit: str
    outcome: Literal["none", "hot", "unit", "process"]
    waits: bool
    paths: NotRequired[list[str]]
    reason: NotRequired[str]
    connections: NotRequired[int]
    error: NotRequired[str]


class ConfigPlanResult(TypedDict):
    """`outcome` is the hardest of all units, `changed` the keys that differ from what runs."""

    outcome: Literal["none", "hot", "unit", "process"]
    changed: list[str]
    units: list[UnitRow]


class ConfigWriteResult(TypedDict):
    """`units` says what was done to each; `generation` is the number that the config has now."""

    ok: Literal[True]
    path: str
    config: dict[str, Any]
    noop: NotRequired[bool]
    hash: NotRequired[str]
    changedPaths: NotRequired[list[str]]
    generation: NotRequired[int]
    units: NotRequired[list[UnitRow]]
    restart: NotRequired[dict[str, Any] | None]
    sentinel: NotRequired[dict[str, Any]]


class ConfigLookupResult(TypedDict):
    path: str
    schema: dict[str, Any]
    children: list[dict[str, Any]]
    reloadKind: NotRequired[str]
    hint: NotRequired[dict[str, Any]]
    hintPath: NotRequired[str]


class ConfigSchemaResult(TypedDict):
    schema: dict[str, Any]
    uiHints: dict[str, Any]
    version: str
    generatedAt: str
