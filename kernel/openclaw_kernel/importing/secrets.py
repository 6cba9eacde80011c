"""Secrets of a reference installation: each goes into a file of its own below the state folder, and openclaw.yaml names that."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from openclaw_config.redaction import is_secret_place
from openclaw_config.references import read_regular
from openclaw_config.secret_files import FOLDER, store_private
from openclaw_config.secrets import Secret
from openclaw_kernel.importing.source import Installation

_VARIABLE: Final = re.compile(r"\$?\$\{([A-Z_][A-Z0-9_]*)\}")
_READ_AS_VARIABLE: Final = re.compile(r"\$\{(?=[A-Z_][A-Z0-9_]*\})")
_LONGEST: Final = 65_536


class NotTaken(Exception):
    """A value stays behind; the message says why."""


class Vault:
    """Collects secrets, by the file that each will be in. `keep` writes those that are not there yet."""

    def __init__(self, home: Path, installation: Installation, environment: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._installation = installation
        self._environment = os.environ if environment is None else environment
        self._secrets: dict[str, Secret] = {}

    def text(self, value: str, where: tuple[str, ...]) -> tuple[str, str | None]:
        """Return what openclaw.yaml is to say in the place of a text of the source, and how that differs; raise `NotTaken`."""
        whole = _VARIABLE.fullmatch(value)
        if whole is not None and not value.startswith("$$") and is_secret_place(where):
            return self._variable(whole[1], where)
        found = _VARIABLE.sub(self._substitute, value)
        if is_secret_place(where):
            return self.put(found, where), "moved into a file of its own"
        # It would be read as a variable.
        ours = _READ_AS_VARIABLE.sub("$${", found)
        return ours, "the variables in it were put in" if found != value else None

    def reference(self, value: Mapping[str, Any], where: tuple[str, ...]) -> tuple[str, str]:
        """Return what to say in the place of a reference to a secret; raise `NotTaken`."""
        source, name = value.get("source"), value.get("id")
        if not isinstance(name, str):
            raise NotTaken("a reference without an id")
        if source == "env":
            return self._variable(name, where)
        if source == "file":
            return self.put(self._from_file(str(value.get("provider", "default")), name), where), "moved into a file of its own"
        raise NotTaken(f"a secret from the source {source!r}; give it anew: openclaw-kernel secrets set")

    def put(self, secret: str, where: tuple[str, ...]) -> str:
        """Remember a secret; return the reference to it. Raise `NotTaken`."""
        if not secret.strip() or len(secret) > _LONGEST:
            raise NotTaken("an empty secret" if not secret.strip() else f"a secret of more than {_LONGEST} bytes")
        base = re.sub(r"[^a-z0-9_-]+", "-", "-".join(where).lower()).strip("-_")[:56] or "secret"
        name, number = base, 1
        # A file that holds something else is somebody's: perhaps the same secret, given anew since.
        while self._holder(name) not in {None, secret}:
            number += 1
            name = f"{base}-{number}"
        self._secrets[name] = Secret(secret)
        return f"${{file:{FOLDER}/{name}}}"

    def _holder(self, name: str) -> str | None:
        """What is meant by a name already; None where nothing is."""
        known = self._secrets.get(name)
        return _content(self._path(name)) if known is None else known.unwrap()

    def pending(self) -> list[Path]:
        """The files that are not there yet, or hold something else."""
        return [self._path(name) for name, secret in self._secrets.items() if _content(self._path(name)) != secret.unwrap()]

    def keep(self) -> None:
        """Write them, 0600; raise `OSError`."""
        for path in self.pending():
            store_private(path, self._secrets[path.name].unwrap() + "\n")

    def forget(self, references: set[str]) -> None:
        """Drop those that nothing in openclaw.yaml names."""
        self._secrets = {name: secret for name, secret in self._secrets.items() if f"${{file:{FOLDER}/{name}}}" in references}

    def _variable(self, name: str, where: tuple[str, ...]) -> tuple[str, str]:
        inside = self._installation.variables.get(name)
        if inside is not None:
            return self.put(inside, where), f"the variable {name} of the source, moved into a file of its own"
        if self._environment.get(name):
            return f"${{env:{name}}}", "a reference to the same variable"
        raise NotTaken(f"the variable {name} is set neither there nor here; set it, or run: openclaw-kernel secrets set")

    def _substitute(self, match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        value = self._installation.variables.get(match[1]) or self._environment.get(match[1])
        if value is None:
            raise NotTaken(f"the variable {match[1]} is set neither there nor here")
        return value

    def _from_file(self, provider: str, pointer: str) -> str:
        named = _mapping(_mapping(_mapping(self._installation.config.get("secrets")).get("providers")).get(provider))
        path = named.get("path")
        if named.get("source") != "file" or not isinstance(path, str):
            raise NotTaken(f"there is no secrets.providers.{provider} that names a file")
        file = self._installation.folder / Path(path).expanduser()
        try:
            text = read_regular(file, 1 << 20) or ""
            if named.get("mode") == "singleValue" or pointer == "value":
                return text.strip()
            node: Any = json.loads(text)
            for part in pointer.strip("/").split("/"):
                node = node[part.replace("~1", "/").replace("~0", "~")]
        except (OSError, ValueError, KeyError, TypeError):
            raise NotTaken(f"{file} does not have it") from None
        if not isinstance(node, str):
            raise NotTaken(f"{file} has no text there")
        return node

    def _path(self, name: str) -> Path:
        return self._home / FOLDER / name


def _content(path: Path) -> str | None:
    try:
        text = read_regular(path, _LONGEST + 1)
    except (OSError, UnicodeDecodeError):
        return None
    return None if text is None else text.removesuffix("\n")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
