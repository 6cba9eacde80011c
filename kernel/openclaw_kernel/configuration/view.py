"""What is shown of the configuration: the file with its secrets hidden, its faults, and its schema."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from openclaw_config.issues import ConfigError, Issue, KeyPath
from openclaw_config.layers import read_layers
from openclaw_config.load import Loaded, load_text
from openclaw_config.redaction import REFERENCE, is_secret_place
from openclaw_config.schema_paths import children_of, node_at, parts_of, variants
from openclaw_config.secrets import Secret, known_secrets
from openclaw_config.source import Resolver, read_text
from openclaw_kernel.api.config import ReloadOutcome
from openclaw_kernel.api.errors import InvalidRequest
from openclaw_kernel.configuration.file import ConfigFile

_KINDS: Final = {
    ReloadOutcome.NONE: "none",
    ReloadOutcome.HOT: "hot",
    ReloadOutcome.UNIT: "hot",
    ReloadOutcome.PROCESS: "restart",
}

_OF_SOURCE: Final = ("parsed", "config", "sourceConfig")
_OF_ALL: Final = ("resolved", "runtimeConfig")

_ASKING: Final = frozenset({"exec", "keyring"})
_UNASKED: Final = secrets.token_urlsafe(32)
"""One for the whole process, which remembers all its secrets."""

OutcomeOf = Callable[[Sequence[str]], ReloadOutcome]
"""What a change of a key does, by its path."""


class _UnaskedResolver(Resolver):
    """Runs no program and unlocks no keyring: who only looks at a file wants neither, and what they would give is not shown anyway.

    What a program gives once the file is taken is known as a secret from then on, wherever else in the file it stands.
    """

    def _text(self, text: str, where: KeyPath) -> Any:
        reference = REFERENCE.match(text)
        return Secret(_UNASKED) if reference is not None and reference[1] in _ASKING else super()._text(text, where)


class ConfigView:
    """Reads the file of one path. `schema_source` gives the result of `config.schema`."""

    def __init__(self, path: Path, *, schema_source: Callable[[], Mapping[str, Any]], outcome_of: OutcomeOf) -> None:
        self._path = path
        self._schema_source = schema_source
        self._outcome_of = outcome_of
        self._composing = asyncio.Lock()
        self._shown: tuple[tuple[str, str, int], dict[str, Any]] | None = None

    async def snapshot(self, accepted: Loaded) -> Mapping[str, Any]:
        """The result of `config.get`."""
        return await asyncio.to_thread(self._snapshot, accepted)

    async def schema(self) -> Mapping[str, Any]:
        """The result of `config.schema`."""
        async with self._composing:
            # Made of all models the first time, which takes a while; whoever asks meanwhile waits for the same one.
            return await asyncio.to_thread(self._schema_source)

    async def lookup(self, path: str) -> Mapping[str, Any]:
        """The result of `config.schema.lookup`; raise `InvalidRequest` for a path that no schema knows."""
        schema: Mapping[str, Any] = (await self.schema())["schema"]
        parts = parts_of(path)
        node = node_at(schema, parts)
        if node is None or not parts:
            known = ", ".join(children_of(schema, schema))
            raise InvalidRequest(f"config schema path not found: {path}; at the top there are: {known}")
        children = [
            {
                "key": key,
                "path": ".".join((*parts, key)),
                **_type_of(schema, inner),
                "required": required,
                "hasChildren": bool(children_of(schema, inner)),
                **self._told(schema, (*parts, key), inner),
            }
            for key, (inner, required) in children_of(schema, node).items()
        ]
        return {"path": ".".join(parts), "schema": _shallow(schema, node), **self._told(schema, parts, node), "children": children}

    def hash_of(self, text: str | None, accepted: Loaded) -> str:
        """The hash of the file where it says this, with all that it includes; "" for none. It reads files."""
        if text is None:
            return ""
        if text == accepted.text and len(accepted.files) == 1:
            return accepted.hash
        try:
            return read_layers(self._path, os.environ, lambda each: text if each == self._path else read_text(each)).hash
        except ConfigError:
            return hashlib.sha256(text.encode()).hexdigest()

    def _snapshot(self, accepted: Loaded) -> dict[str, Any]:
        text, faults = None, tuple[Issue, ...]()
        try:
            text = ConfigFile(self._path).text()
        except ConfigError as error:
            faults = error.issues
        digest = self.hash_of(text, accepted) or None
        loaded: Loaded | None = accepted if digest == accepted.hash else None
        if loaded is None and text is not None:
            try:
                loaded = load_text(text, self._path, resolve_by=_UnaskedResolver)
            except ConfigError as error:
                faults = error.issues
        return {
            "path": str(self._path),
            "exists": text is not None or bool(faults),
            **(self._of_invalid(faults) if loaded is None else self._of_valid(loaded)),
            "hash": digest,
            "configRevisionHash": digest,
            "appliedConfigHash": accepted.hash,
            "warnings": [],
            "legacyIssues": [],
        }

    def _of_valid(self, loaded: Loaded) -> dict[str, Any]:
        # What is hidden grows with the secrets that the process knows.
        key = (loaded.hash, loaded.text, len(known_secrets()))
        if self._shown is None or self._shown[0] != key:
            # Clients write back what they find as config: it is the file's own, without what other layers say.
            source, merged = loaded.redacted_source(), loaded.redacted()
            shown = {**dict.fromkeys(_OF_SOURCE, source), **dict.fromkeys(_OF_ALL, merged)}
            self._shown = key, {"raw": loaded.redacted_text(), "valid": True, "issues": [], **shown}
        return self._shown[1]

    @staticmethod
    def _of_invalid(faults: Sequence[Issue]) -> dict[str, Any]:
        nothing: dict[str, Any] = {}
        issues = [issue.to_json() for issue in faults]
        return {"raw": None, "valid": not faults, "issues": issues, **dict.fromkeys((*_OF_SOURCE, *_OF_ALL), nothing)}

    def _told(self, schema: Mapping[str, Any], parts: Sequence[str], node: Any) -> dict[str, Any]:
        texts = [one["description"] for one in (node, *variants(schema, node)) if isinstance(one, Mapping) and one.get("description")]
        hint = {**({"help": texts[0]} if texts else {}), **({"sensitive": True} if is_secret_place(parts) else {})}
        told: dict[str, Any] = {"reloadKind": _KINDS[self._outcome_of(parts)]}
        return {**told, "hint": hint, "hintPath": ".".join(parts)} if hint else told


def _type_of(schema: Mapping[str, Any], node: Any) -> dict[str, Any]:
    found = list(dict.fromkeys(str(one["type"]) for one in variants(schema, node) if isinstance(one.get("type"), str)))
    return {} if not found else {"type": found[0] if len(found) == 1 else found}


def _shallow(schema: Mapping[str, Any], node: Any) -> dict[str, Any]:
    """A node without what is below it: that is asked for by the children's paths."""
    found = variants(schema, node)
    first: dict[str, Any] = {**(found[0] if found else {}), **(node if isinstance(node, Mapping) else {})}
    return {key: value for key, value in first.items() if key not in {"$ref", "$defs", "properties", "items", "additionalProperties"}}
