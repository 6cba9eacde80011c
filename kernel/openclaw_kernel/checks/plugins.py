"""What is known of the installed plugins without importing one: manifests, and where their distributions came from."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any, Literal

from openclaw_config.models import Config
from openclaw_kernel.api.check import InstalledPlugin
from openclaw_kernel.host.discovery import Discovery, Found, module_path
from openclaw_kernel.host.sections import assign

Source = Literal["index", "folder", "archive", "vcs", "unknown"]


def installed_plugins(config: Config, discovery: Discovery) -> list[InstalledPlugin]:
    """Every plugin that was found, in the order of the discovery."""
    shares = assign(config, discovery).shares
    return [_plugin(found, runs=shares[found.id].disabled is None) for found in discovery.plugins]


def _plugin(found: Found, *, runs: bool) -> InstalledPlugin:
    source, editable, requires = _origin(found.distribution)
    return InstalledPlugin(
        id=found.id,
        kind=found.kind,
        distribution=found.distribution,
        version=found.version,
        bundled=found.bundled,
        runs=runs,
        source=source,
        editable=editable,
        requires=requires,
        folder=module_path(found.package),
        manifest={} if found.manifest is None else found.manifest.model_dump(),
        state=found.state,
        reason=found.reason,
    )


def _origin(distribution: str) -> tuple[Source, bool, tuple[str, ...]]:
    try:
        found = importlib.metadata.distribution(distribution)
        text = found.read_text("direct_url.json")
        requires = tuple(found.requires or ())
        said: Any = json.loads(text) if text is not None else None
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return "unknown", False, ()
    if said is None:
        return "index", False, requires
    if not isinstance(said, Mapping):
        return "unknown", False, requires
    folder = said.get("dir_info")
    editable = isinstance(folder, Mapping) and folder.get("editable") is True
    kinds: dict[str, Source] = {"vcs_info": "vcs", "archive_info": "archive", "dir_info": "folder"}
    return next((kind for key, kind in kinds.items() if key in said), "unknown"), editable, requires
