"""`openclaw.schema.json` beside `openclaw.yaml`: what editors check the file by. Kept up to date where the file refers to it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_config.composed import for_files
from openclaw_config.load import Loaded
from openclaw_config.whole_files import replace_whole
from openclaw_kernel import __version__

if TYPE_CHECKING:
    from openclaw_kernel.host.discovery import Discovery

logger: Final = logging.getLogger("openclaw.config")

NAME: Final = "openclaw.schema.json"
_HEAD: Final = 4096
_STAMP: Final = re.compile(r'"\$comment": "([^"]*)"')
_LONGEST_SECONDS: Final = 120.0


def schema_path(config: Path) -> Path:
    """Where the schema of a config file lies."""
    return config.with_name(NAME)


def stamp_of(discovery: Discovery, document: Mapping[str, Any]) -> str:
    """What the schema depends on, in short: this version, the installed plugins, and which of them are switched off."""
    plugins = _mapping(document.get("plugins"))
    switches = {str(name): _mapping(entry).get("enabled") for name, entry in _mapping(plugins.get("entries")).items()}
    installed = sorted([found.id, found.distribution, found.version, found.state, found.section] for found in discovery.plugins)
    digest = hashlib.sha256(json.dumps([installed, sorted(switches.items()), plugins.get("enabled")], default=str).encode()).hexdigest()
    return f"openclaw-kernel {__version__}, plugins {digest[:16]}; written by `openclaw-kernel config schema --write`"


def file_text(schema: Mapping[str, Any], stamp: str) -> str:
    """The file's content, from the composed schema."""
    return json.dumps(for_files(schema, comment=stamp), indent=1, ensure_ascii=False) + "\n"


def refresh_file(path: Path, text: str) -> bool:
    """Write the file as a whole where it differs; tell whether it did. Raise `OSError`."""
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return False
    replace_whole(path, text.encode(), durable=False)
    return True


async def keep_schema_file(loaded: Loaded, discovery: Discovery) -> None:
    """Have the file written anew where `openclaw.yaml` refers to it, and it is not of these plugins. It never fails.

    Another process does it: it imports the settings of plugins that do not run, and takes memory that a gateway has no use for.
    """
    path = schema_path(loaded.path)
    if NAME not in loaded.text or await asyncio.to_thread(_stamp_in, path) == stamp_of(discovery, loaded.document):
        return
    # Hardly any file refers to it.
    from openclaw_kernel.programs import run_to_end

    command = (sys.executable, "-P", "-m", "openclaw_kernel", "config", "schema", "--write", "--home", str(loaded.path.parent))
    try:
        ended = await run_to_end(command, home=loaded.path.parent, environment=os.environ, seconds=_LONGEST_SECONDS)
    except TimeoutError:
        logger.warning("%s is not up to date: writing it took more than %d s", path, _LONGEST_SECONDS)
    except OSError as error:
        logger.warning("%s is not up to date: %s", path, error)
    else:
        if ended.status:
            logger.warning("%s is not up to date: %s", path, ended.err.decode("utf-8", "replace").strip()[-500:])


def _stamp_in(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = _STAMP.search(file.read(_HEAD))
    except OSError:
        return None
    return None if found is None else found[1]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
