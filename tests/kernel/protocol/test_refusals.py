"""The table of refusals names tests that exist, and has every close that a gateway may send."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from tests.kernel.protocol.refusals import REFUSALS, Refusal
from tests.support.judge import CLOSES

ROOT = Path(__file__).resolve().parents[3]


@functools.cache
def names_in(module: str) -> frozenset[str]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: f"{refusal.code} {refusal.reason or refusal.when}")
def test_each_refusal_has_its_tests_or_says_why_not(refusal: Refusal) -> None:
    assert refusal.when
    for test in refusal.tests:
        module, _, name = test.partition("::")
        assert name in names_in(module), f"{test} is not there any more; say in refusals.py what shows it"


def test_every_close_of_the_protocol_has_a_row() -> None:
    rows = {(refusal.code, refusal.reason) for refusal in REFUSALS}
    for code, reasons in CLOSES.items():
        for reason in reasons or ():
            assert any(row == str(code) and text.startswith(reason) for row, text in rows), (code, reason)
        assert str(code) in {row for row, _ in rows}
