"""A plugin's manifest: what must be known of it before any of its code is imported."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openclaw_kernel.host.explain import explain

API_VERSIONS: Final = frozenset({1})
"""Versions of `openclaw_kernel.api` that this kernel offers."""

ID_PATTERN: Final = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"

RESERVED_IDS: Final = frozenset({"kernel", "sqlite"})
"""Ids under which the kernel keeps its own tables, values and names, and whose tables SQLite would refuse."""

ReloadKind = Literal["none", "hot", "unit", "process"]


class ManifestError(Exception):
    """The manifest is missing or wrong; the message names file, key and cure."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Need(_Strict):
    """A module without which the plugin is unavailable, and the requirement that brings it."""

    # Python's own engine: pydantic's takes 27 ms and 0.8 MB to build what every letter of Unicode is for \w.
    model_config = ConfigDict(regex_engine="python-re")

    module: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")]
    install: Annotated[str, Field(min_length=1)]


class ProviderClaims(_Strict):
    """Which entries of `models.providers` are the plugin's own: by the value of `api`, or by id."""

    apis: list[str] = []
    ids: list[str] = []


class ChildProgram(_Strict):
    """A plugin that is a program; `docs/children.md` is the contract. `kind` and `version` count where no distribution brings it."""

    command: Annotated[list[str], Field(min_length=1)]
    kind: Literal["channel", "plugin"] = "plugin"
    version: Annotated[str, Field(min_length=1)] = "0"


class Manifest(_Strict):
    """`plugin.toml`."""

    api: int
    id: Annotated[str, Field(pattern=ID_PATTERN)]
    summary: Annotated[str, Field(min_length=1)]
    config: str | None = None
    after: list[str] = []
    needs: list[Need] = []
    reload: dict[str, ReloadKind] = {}
    provider: ProviderClaims = ProviderClaims()
    child: ChildProgram | None = None


def read_manifest(path: Path, plugin_id: str) -> Manifest:
    """Read and check the manifest of the entry point `plugin_id`; raise `ManifestError`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}); reinstall the plugin") from error
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{path}: not valid TOML: {error}; correct it") from error
    except RecursionError as error:
        raise ManifestError(f"{path}: nested too deep; correct it") from error
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise ManifestError(f"{path}: {'; '.join(explain(Manifest, '', content, error))}") from error
    if manifest.id != plugin_id:
        raise ManifestError(f"{path}: id is {manifest.id!r}, the entry point is named {plugin_id!r}; make them equal")
    if manifest.id in RESERVED_IDS:
        raise ManifestError(f"{path}: the id {manifest.id!r} is the gateway's own; choose another")
    if manifest.api not in API_VERSIONS:
        offered = ", ".join(map(str, sorted(API_VERSIONS)))
        raise ManifestError(f"{path}: api is {manifest.api}, this kernel offers {offered}; install a matching version")
    return manifest
