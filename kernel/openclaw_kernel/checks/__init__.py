"""What `security audit` is made of: what checks see, how they are run, and how their fixes are made, recorded and taken back."""

from typing import Final

FIXES_FOLDER: Final = "fixes"
"""Within the state folder: a folder for each fix, with what it needs to be taken back."""
