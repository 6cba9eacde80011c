"""The search for canaries finds what it is for."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.canaries import Canaries


@pytest.mark.parametrize(
    "spell",
    [
        lambda value: value,
        lambda value: value[::-1],
        lambda value: json.dumps({"a": value}),
        lambda value: f"https://h/?q={quote(value)}",
        lambda value: value.encode().hex(),
        lambda value: base64.b64encode(f"x{value}y".encode()).decode(),
        lambda value: base64.urlsafe_b64encode(f"Basic: {value}".encode()).decode(),
        lambda value: value.encode("utf-16-le").decode("latin-1"),
    ],
)
def test_a_value_is_found_however_it_is_spelt(spell: object, tmp_path: Path) -> None:
    canaries = Canaries()
    value = canaries.new("slot", "1:a/b {}")
    canaries.new("other")
    text = f"before {spell(value)} after"  # type: ignore[operator]
    assert canaries.found("here", text) == ["slot in here"]
    assert canaries.found("here", text, but=["slot"]) == []
    (tmp_path / "kept").mkdir()
    for name in ("kept/one", "two"):
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert canaries.found_below(tmp_path, but_in=["kept"]) == ["slot in two"]


def test_a_value_in_a_files_name_is_found(tmp_path: Path) -> None:
    canaries = Canaries()
    (tmp_path / canaries.new("slot")).touch()
    assert canaries.found_below(tmp_path, but_in=[]) == ["slot in the name of a file"]
