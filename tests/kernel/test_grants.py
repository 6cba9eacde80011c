"""Rights only narrow on their way: every scope against every limit, and every caller against all that there is to hand out. S4, S5."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from openclaw_kernel.api import ALL_SCOPES, Forbidden, InvalidRequest, Scope, effective_scopes, narrowed, refuse_beyond

SUBSETS = [subset for size in range(len(ALL_SCOPES) + 1) for subset in itertools.combinations(sorted(ALL_SCOPES), size)]
UP_TO_TWO = [subset for subset in SUBSETS if len(subset) <= 2]
HELD = sorted({effective_scopes(subset) for subset in SUBSETS}, key=sorted)
"""All that a caller can amount to."""
DEVICE = "d" * 64
PRINCIPALS = ["token", "password", "none", "page:0123456789abcdef", "user:anna", f"device:{DEVICE}", f"device:{'e' * 64}"]


@dataclass(frozen=True)
class Caller:
    """Who hands out."""

    held: frozenset[str]
    principal: str = "token"

    def has(self, scope: Scope) -> bool:
        """As a connection answers it."""
        return scope.value in self.held


def test_what_is_given_never_exceeds_what_is_asked_nor_the_limit() -> None:
    """S4: every set of scopes against every limit of up to two scopes, and the reverse."""
    for asked, limit in itertools.chain(itertools.product(SUBSETS, UP_TO_TWO), itertools.product(UP_TO_TWO, SUBSETS)):
        given = narrowed(asked, limit)
        assert effective_scopes(given) == effective_scopes(asked) & effective_scopes(limit), (asked, limit, given)
        assert len(set(given)) == len(given), (asked, limit, given)


def test_what_lies_within_the_limit_stays_as_it_was_asked() -> None:
    assert narrowed(("operator.write", "operator.read"), ("operator.admin",)) == ("operator.write", "operator.read")
    assert narrowed(("operator.admin",), ("operator.read",)) == ("operator.read", "operator.sessions.read")


def test_an_empty_set_grants_nothing() -> None:
    """S5."""
    for scopes in SUBSETS:
        assert narrowed((), scopes) == ()
        assert narrowed(scopes, ()) == ()


def test_a_name_that_is_no_scope_is_given_to_nobody() -> None:
    for unknown in ("admin", "operator.*", "", "OPERATOR.ADMIN", "operator.admin "):
        assert narrowed((unknown,), ALL_SCOPES) == ()
        assert narrowed(("operator.read",), (unknown,)) == ()
        with pytest.raises(InvalidRequest, match="there is no scope"):
            refuse_beyond(Caller(ALL_SCOPES), DEVICE, "operator", [unknown])  # type: ignore[arg-type]  # the part of a client it looks at


def lacking(caller: Caller, role: str, scopes: tuple[str, ...]) -> str | None:
    """The scope that a refusal names, None where nothing is refused."""
    try:
        refuse_beyond(caller, DEVICE, role, scopes)  # type: ignore[arg-type]  # the part of a client it looks at
    except Forbidden as refusal:
        return str((refusal.details or {})["missingScope"])
    return None


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_every_caller_hands_out_exactly_what_it_has_and_may_manage(principal: str) -> None:
    """S5: caller x target x what is handed out, whole."""
    manages = not principal.startswith("device:") or principal == f"device:{DEVICE}"
    for held, role, scopes in itertools.product(HELD, ("operator", "node", "admin", ""), UP_TO_TWO):
        is_admin = "operator.admin" in held
        expected = "operator.pairing" in held and set(scopes) <= held and (is_admin or (manages and role == "operator"))
        missing = lacking(Caller(held, principal), role, scopes)
        assert (missing is None) is expected, (sorted(held), role, scopes, missing)
        assert missing not in held
