"""What is shown of the configuration: the file with its secrets hidden, its faults, and its schema."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from openclaw_config.load import Loaded, load
from openclaw_config.redaction import is_secret_place
from openclaw_config.schema_paths import children_of, node_at, parts_of, variants
from openclaw_config.secrets import known_secrets
from openclaw_config.source import ConfigError, Issue, read_text
from openclaw_kernel.api.config import ReloadOutcome
from openclaw_kernel.api.errors import InvalidRequest
from openclaw_kernel.config_file import ConfigFile

_KINDS: Final = {
    ReloadOutcome.NONE: "none",
    ReloadOutcome.HOT: "hot",
    ReloadOutcome.UNIT: "hot",
    ReloadOutcome.PROCESS: "restart",
}

OutcomeOf = Callable[[Sequence[str]], ReloadOutcome]
"""What a change of a key does, by its path."""


class ConfigView:
    """Reads the file of one path. `schema_source` gives the result of `config.schema`."""

    def __init__(self, path: Path, *, schema_source: Callable[[], Mapping[str, Any]], outcome_of: OutcomeOf) -> None:
        self._path = path
        self._schema_source = schema_source
        self._outcome_of = outcome_of
        self._shown: tuple[tuple[str, str, int], dict[str, Any]] | None = None

    async def snapshot(self, accepted: Loaded) -> Mapping[str, Any]:
        """The result of `config.get`."""
        return await asyncio.to_thread(self._snapshot, accepted)

    def schema(self) -> Mapping[str, Any]:
        """The result of `config.schema`."""
        return self._schema_source()

    def lookup(self, path: str) -> Mapping[str, Any]:
        """The result of `config.schema.lookup`; raise `InvalidRequest` for a path that no schema knows."""
        schema: Mapping[str, Any] = self.schema()["schema"]
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
        """The hash of the file where it says this; "" for none."""
        if text is None:
            return ""
        return accepted.hash if text == accepted.text else hashlib.sha256(text.encode()).hexdigest()

    def _snapshot(self, accepted: Loaded) -> dict[str, Any]:
        text, faults = None, tuple[Issue, ...]()
        try:
            text = ConfigFile(self._path).text()
        except ConfigError as error:
            faults = error.issues
        loaded: Loaded | None = accepted if text == accepted.text else None
        if loaded is None and text is not None:
            try:
                loaded = load(self._path, read=partial(_instead, self._path, text))
            except ConfigError as error:
                faults = error.issues
        digest = self.hash_of(text, accepted) or None
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
            source, whole = loaded.redacted_source(), loaded.redacted()
            # What a client edits and sends back is the file, without what the other layers bring.
            written, merged = (
                dict.fromkeys(("parsed", "config", "sourceConfig"), source),
                dict.fromkeys(("resolved", "runtimeConfig"), whole),
            )
            self._shown = key, {"raw": loaded.redacted_text(), "valid": True, "issues": [], **written, **merged}
        return self._shown[1]

    @staticmethod
    def _of_invalid(faults: Sequence[Issue]) -> dict[str, Any]:
        nothing: dict[str, Any] = {}
        kinds = ("parsed", "config", "resolved", "sourceConfig", "runtimeConfig")
        issues = [issue_to_wire(issue) for issue in faults]
        return {"raw": None, "valid": not faults, "issues": issues, **dict.fromkeys(kinds, nothing)}

    def _told(self, schema: Mapping[str, Any], parts: Sequence[str], node: Any) -> dict[str, Any]:
        texts = [one["description"] for one in (node, *variants(schema, node)) if isinstance(one, Mapping) and one.get("description")]
        hint = {**({"help": texts[0]} if texts else {}), **({"sensitive": True} if is_secret_place(parts) else {})}
        told: dict[str, Any] = {"reloadKind": _KINDS[self._outcome_of(parts)]}
        return {**told, "hint": hint, "hintPath": ".".join(parts)} if hint else told


def issue_to_wire(issue: Issue) -> dict[str, Any]:
    """One fault of the file as clients know it, with its place beside."""
    further = {"column": issue.column, "pointer": issue.pointer, **({} if issue.fix is None else {"fix": issue.fix.value})}
    return {"path": issue.key, "message": issue.text, "file": issue.file, "line": issue.line, **further}


def _instead(path: Path, text: str, wanted: Path) -> str:
    return text if wanted == path else read_text(wanted)


def _type_of(schema: Mapping[str, Any], node: Any) -> dict[str, Any]:
    found = list(dict.fromkeys(str(one["type"]) for one in variants(schema, node) if isinstance(one.get("type"), str)))
    return {} if not found else {"type": found[0] if len(found) == 1 else found}


def _shallow(schema: Mapping[str, Any], node: Any) -> dict[str, Any]:
    """A node without what is below it: that is asked for by the children's paths."""
    found = variants(schema, node)
    first: dict[str, Any] = {**(found[0] if found else {}), **(node if isinstance(node, Mapping) else {})}
    return {key: value for key, value in first.items() if key not in {"$ref", "$defs", "properties", "items", "additionalProperties"}}
