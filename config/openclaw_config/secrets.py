"""A secret that cannot be printed.

A reference is the whole value (see `references.py`). It is resolved when the config is loaded; the file itself keeps the reference.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema

REDACTED: Final = "__OPENCLAW_REDACTED__"

_KNOWN: Final[set[str]] = set()


def known_secrets() -> frozenset[str]:
    """Every value that is or was a `Secret` in this process, however its key is called; what log and config may not show."""
    return frozenset(_KNOWN)


@final
class Secret:
    """A string that has no printable form; `unwrap` is called only where it leaves the process."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        _KNOWN.add(value)

    def unwrap(self) -> str:
        """Return the secret itself."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self._value.encode("utf-8", "surrogatepass"), candidate.encode("utf-8", "surrogatepass"))

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return "Secret(...)"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be serialised")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret cannot be serialised")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Accept a non-empty string or a `Secret`; dump only the redaction mark."""
        # Imported here: the command line has secrets and no pydantic.
        from pydantic_core import core_schema

        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), from_text],
            serialization=core_schema.plain_serializer_function_ser_schema(lambda _: REDACTED),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: core_schema.CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe a secret as a string for JSON Schema."""
        return {"type": "string", "minLength": 1, "format": "password"}
