"""The tables of the bundled checks in `docs/security.md` and `docs/reference/doctor.md`; a test says when one is stale.

`python -m tests.support.checks_page` writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from openclaw_kernel.api import Check
from openclaw_plugins.doctor.catalogue import CHECKS as OF_DOCTOR
from openclaw_plugins.security.catalogue import CHECKS as OF_SECURITY

_DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = _DOCS / "security.md"
DOCTOR_PAGE = _DOCS / "reference" / "doctor.md"

_BEGIN = "<!-- checks: written by make docs -->\n"
_END = "<!-- end of checks -->\n"


def rows(checks: Iterable[Check]) -> Iterator[str]:
    """How many there are, and the table, a line each."""
    listed = list(checks)
    yield f"{len(listed)} checks:"
    yield ""
    yield "| check | finds that | at worst | mended by `--fix` |"
    yield "| --- | --- | --- | --- |"
    for check in listed:
        yield _row(check)


def _row(check: Check) -> str:
    deep = " (with `--deep`)" if check.deep else ""
    return f"| `{check.id}` | {check.title}{deep} | {check.worst.value} | {'where it is safe' if check.fixes else ''} |"


def written(page: str, checks: Iterable[Check] = OF_SECURITY) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + "\n".join(rows(checks)) + "\n" + _END + after


if __name__ == "__main__":
    for _path, _checks in ((PAGE, OF_SECURITY), (DOCTOR_PAGE, OF_DOCTOR)):
        _path.write_text(written(_path.read_text(encoding="utf-8"), _checks), encoding="utf-8")
