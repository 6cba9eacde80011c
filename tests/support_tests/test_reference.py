"""The reference page says what this gateway does, and reads well for each kind of shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

import pytest
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from openclaw_kernel.api import Params
from tests.support.reference import pages, pretty, rows, shape


async def test_the_pages_are_what_make_docs_would_write() -> None:
    for path, text in (await pages()).items():
        assert path.read_text(encoding="utf-8") == text, f"docs/reference/{path.name} is stale: run `make docs`"


class Inner(TypedDict):
    name: str
    note: NotRequired[str | None]


class AllKindsParams(Params):
    key: Annotated[str, Field(min_length=1)]
    label: Annotated[str, Field(max_length=9)] | None = None
    limit: Annotated[int, Field(ge=1, le=5, description="How many.")] = 3
    kind: Literal["a", "b"] = "a"
    words: list[str] = []
    inner: list[Inner] = []


def test_params_are_a_line_a_key() -> None:
    assert list(rows(AllKindsParams.model_json_schema(by_alias=True))) == [
        "key: string",
        "label?: string  // 0 to 9 characters",
        "limit?: integer  // 1 to 5; default 3; How many.",
        'kind?: "a" | "b"  // default "a"',
        "words?: string[]",
        "inner?: {name: string, note?: string}[]",
    ]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (dict[str, int], "{[key]: integer}"),
        (dict[str, object], "object"),
        (list[int | str], "(integer | string)[]"),
        (Inner, "{name: string, note?: string}"),
        (Literal[True], "true"),
    ],
)
def test_a_shape_is_short(kind: Any, text: str) -> None:
    schema = TypeAdapter(kind).json_schema()
    assert shape(schema, schema.get("$defs", {})) == text


def test_json_is_broken_where_it_is_too_wide() -> None:
    assert pretty({"a": 1}) == '{"a": 1}'
    assert pretty({"a": "x" * 130, "b": {"c": 2}}).splitlines() == ["{", f'  "a": "{"x" * 130}",', '  "b": {"c": 2}', "}"]
