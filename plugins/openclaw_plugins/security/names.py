"""Whether a name is that of a secret."""

from __future__ import annotations

import re
from typing import Final

_SECRET: Final = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PRIVATE|PAT|DSN)S?($|_)")
_HARMLESS: Final = re.compile(r"(PATH|FILE|DIR|URL|SOCK|NAME|ID)$|^(SSH_AUTH|GPG|KEYRING)")


def looks_secret(variable: str) -> bool:
    """Tell by the name whether an environment variable holds a secret."""
    name = variable.upper()
    return _SECRET.search(name) is not None and _HARMLESS.search(name) is None
