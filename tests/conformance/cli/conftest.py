"""What the tests of the reference's own programs have at hand."""

from __future__ import annotations

from tests.support.browser import browse

__all__ = ["browse"]
