"""Keys of model providers that the reference keeps outside its configuration: in profiles of its agents, and in `.env`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.importing.report import Report
from openclaw_kernel.importing.source import Installation

_VARIABLES: Final = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
}
"""Variables by which the reference has a provider without a word in its configuration."""


def provider_keys(installation: Installation, report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield where a key stands, its provider, and the key; the first of a provider counts."""
    seen: set[str] = set()
    for path in sorted(installation.folder.glob("agents/*/agent/auth-profiles.json")):
        for name, profile in _profiles(path, report).items():
            provider, key = str(profile.get("provider", "")), profile.get("key")
            where = f"{path}#{name}"
            if profile.get("type") != "api_key" or not isinstance(key, str):
                report.leave(where, f"log in anew: openclaw-kernel auth login {provider}".rstrip())
            elif provider in seen:
                report.leave(where, f"another key of {provider} was taken")
            else:
                seen.add(provider)
                yield where, provider, key
    for provider, variable in _VARIABLES.items():
        value = installation.variables.get(variable)
        if value is not None and provider not in seen:
            yield f"{installation.folder / '.env'}#{variable}", provider, value


def _profiles(path: Path, report: Report) -> Mapping[str, Mapping[str, Any]]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        profiles = said["profiles"]
    except (OSError, ValueError, KeyError, TypeError):
        report.leave(str(path), "has no profiles that can be read")
        return {}
    return {str(name): profile for name, profile in profiles.items() if isinstance(profile, dict)} if isinstance(profiles, dict) else {}
