"""Secrets that our own commands keep below the state folder: files that nobody else reads, replaced as a whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from openclaw_config.whole_files import replace_whole

FOLDER: Final = "secrets"
LOGINS: Final = "oauth"
"""The folder in it that the tokens of logins have to themselves."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Names that are file names as they are."""


def make_private_folder(folder: Path) -> None:
    """Make a folder of ours 0700, with all above it that are not there; raise `OSError`."""
    for above in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        # `parents=True` would leave those above open to others: the state folder too, before the first start.
        above.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)


def store_private(path: Path, text: str) -> None:
    """Write a file of ours, 0600, in a folder of ours, 0700; it is there whole or not at all. Raise `OSError`."""
    make_private_folder(path.parent)
    replace_whole(path, text.encode())
