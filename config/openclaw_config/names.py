"""Names with a meaning of their own, whatever the config is made of."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "OPENCLAW_CONFIG__"
"""Of the environment variables that set keys."""
INCLUDE: Final = "$include"
SCHEMA: Final = "$schema"
"""May stand at the top of a file, for editors; says nothing to us."""
