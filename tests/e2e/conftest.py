"""What the end-to-end tests have at hand."""

from __future__ import annotations

from tests.support.browser import browse

__all__ = ["browse"]
