"""`docs/security.md`: the table of the bundled checks. `python -m tests.support.checks_page` writes it; a test says when it is stale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openclaw_kernel.api import Check
from openclaw_plugins.security.catalogue import MODULES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"

_BEGIN = "<!-- checks: written by make docs -->\n"
_END = "<!-- end of checks -->\n"


def rows() -> Iterator[str]:
    """The table, a line each."""
    yield "| check | finds that | at worst | mended by `--fix` |"
    yield "| --- | --- | --- | --- |"
    for module in MODULES:
        for check in module.TABLE.checks:
            yield _row(check)


def _row(check: Check) -> str:
    deep = " (with `--deep`)" if check.deep else ""
    return f"| `{check.id}` | {check.title}{deep} | {check.worst.value} | {'where it is safe' if check.fixes else ''} |"


def written(page: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + "\n".join(rows()) + "\n" + _END + after


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
