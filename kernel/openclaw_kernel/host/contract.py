"""Whether what a plugin hands over is what its type says. Python does not look, and garbage would only break its reader."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

ItemT = TypeVar("ItemT")

_LISTS: Final = (list, tuple)
_IMPORTED_LATER: Final = {"Database": Any}
"""Names in annotations that are imported for the type checker alone."""


class ContractBroken(Exception):
    """A plugin handed over something else than it promised. `happened` says what, `cure` what it should be."""

    def __init__(self, happened: str, cure: str) -> None:
        super().__init__(f"{happened}; {cure}")
        self.happened = happened
        self.cure = cure


def expect(value: object, kind: type[ItemT]) -> ItemT:
    """Return the value; raise `ContractBroken` where it is no `kind`, or one with a field of another type than declared."""
    if not isinstance(value, kind):
        raise ContractBroken(f"returned {type(value).__name__}", f"return a {kind.__name__}")
    wrong = misfit(value)
    if wrong is not None:
        raise ContractBroken(f"returned a {kind.__name__} whose {wrong}", "give what the type says")
    return value


def expect_all(values: object, kind: type[ItemT]) -> list[ItemT]:
    """Return the values as a list; raise `ContractBroken` where they are no sequence of `kind`."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise ContractBroken(f"returned {type(values).__name__}", f"return a list of {kind.__name__}")
    return [expect(value, kind) for value in values]


def expect_line(value: object) -> str | None:
    """Return a text or None; raise `ContractBroken` for all else."""
    if value is None or isinstance(value, str):
        return value
    raise ContractBroken(f"returned {type(value).__name__}", "return a text or None")


def misfit(item: object) -> str | None:
    """Return which field of a dataclass is not of its declared type, `field is a list`; None where all are."""
    kind: Any = type(item)
    for name, fits in _fields(kind):
        value = getattr(item, name)
        if not fits(value):
            return f"{name} is {_shown(value)}"
    return None


def _shown(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


@cache
def _fields(kind: Any) -> tuple[tuple[str, Callable[[object], bool]], ...]:
    if not is_dataclass(kind):
        return ()
    hints = get_type_hints(kind, localns=_IMPORTED_LATER)
    return tuple((field.name, _fitting(hints[field.name])) for field in fields(kind))


def _fitting(hint: Any) -> Callable[[object], bool]:
    """Return the test for one annotation; whatever it does not understand passes."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return _anything
    if origin in {Union, types.UnionType}:
        branches = [_fitting(argument) for argument in arguments]
        return lambda value: any(branch(value) for branch in branches)
    if origin is Literal:
        return lambda value: isinstance(value, str | int) and value in arguments
    if origin in {tuple, list, Sequence}:
        each = _fitting(arguments[0])
        return lambda value: isinstance(value, _LISTS) and all(map(each, value))
    if origin in {dict, Mapping}:
        return lambda value: isinstance(value, Mapping)
    if origin is type:
        return lambda value: isinstance(value, type) and _below(value, arguments[0])
    if origin is Callable:
        return callable
    return _plain(hint) if isinstance(hint, type) else _anything


def _plain(kind: type) -> Callable[[object], bool]:
    if kind is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        # One that cannot be asked about.
        return _anything
    if is_dataclass(kind):
        return lambda value: isinstance(value, kind) and misfit(value) is None
    return lambda value: isinstance(value, kind)


def _below(value: type, bound: Any) -> bool:
    bound = getattr(bound, "__bound__", bound)
    return not isinstance(bound, type) or issubclass(value, bound)


def _anything(_value: object) -> bool:
    return True
