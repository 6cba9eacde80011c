"""Which secrets a config has, from which kind of reference, and who uses them. Names and places, never a value. No pydantic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from openclaw_config.issues import KeyPath, dotted
from openclaw_config.redaction import REFERENCE, secret_places

Kind: TypeAlias = Literal["env", "file", "keyring", "exec", "variable", "literal"]
"""`variable` is `${NAME}` in the place of a secret, `literal` a value that stands in the file itself."""

_ENTRIES: Final = ("secrets", "entries")
_OWNERS: Final = {"channels": 2, "models": 3, "plugins": 3}
"""How many keys name whom a section belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One place of the file that holds a secret."""

    where: KeyPath
    kind: Kind
    value: Any
    """As it stands in the file."""
    used_by: tuple[str, ...]

    @property
    def key(self) -> str:
        """The place with dots."""
        return dotted(self.where)

    @property
    def name(self) -> str | None:
        """Its name, where it is a named secret."""
        return str(self.where[2]) if self.where[:2] == _ENTRIES and len(self.where) > len(_ENTRIES) else None


def inventory(document: Mapping[str, Any]) -> list[Slot]:
    """Return every secret of a config file as it was parsed, in the file's order."""
    users = dict(_users(document))
    return [
        Slot(where=where, kind=_kind(str(value)), value=value, used_by=_used_by(where, users))
        for where, value in secret_places(document, references=True)
    ]


def _kind(value: str) -> Kind:
    reference = REFERENCE.match(value)
    if reference is not None:
        return reference[1]  # type: ignore[return-value]  # one of the four
    return "variable" if value.startswith("${") else "literal"


def _used_by(where: KeyPath, users: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if where[: len(_ENTRIES)] == _ENTRIES:
        return users.get(str(where[len(_ENTRIES)]), ()) if len(where) > len(_ENTRIES) else ()
    return (dotted(where[: _OWNERS.get(str(where[0]), 1)]),)


def _users(document: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    found: dict[str, list[str]] = {}
    agents = _mapping(_mapping(document).get("agents"))
    for name in _texts(_mapping(agents.get("defaults")).get("secrets")):
        found.setdefault(name, []).append("agents.defaults")
    for agent_id, entry in _mapping(agents.get("entries")).items():
        for name in _texts(_mapping(entry).get("secrets")):
            found.setdefault(name, []).append(f"agents.entries.{agent_id}")
    for plugin_id, entry in _mapping(_mapping(_mapping(document).get("plugins")).get("entries")).items():
        for line in _texts(_mapping(_mapping(entry).get("config")).get("secretVariables")):
            variable, equals, name = line.partition("=")
            if equals:
                found.setdefault(name, []).append(f"{plugin_id} as {variable}")
    for name, users in found.items():
        yield name, tuple(users)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value if isinstance(item, str)] if isinstance(value, list) else []
