"""aiohttp, imported without what it would build and never use."""

from __future__ import annotations

import os
import ssl
from typing import Final

_PURE_PYTHON: Final = "FROZENLIST_NO_EXTENSIONS"
_read_authorities: Final = ssl.SSLContext.set_default_verify_paths


def import_aiohttp() -> None:
    """Import aiohttp; to be called before anything else does."""
    given = os.environ.get(_PURE_PYTHON)
    # Else a list that is iterated once a response brings the C++ library, which takes 1 MB.
    os.environ[_PURE_PYTHON] = "1"
    ssl.SSLContext.set_default_verify_paths = _for_who_verifies  # type: ignore[assignment, method-assign]  # put back below
    try:
        import aiohttp.web  # noqa: F401 - that it is imported is all
    finally:
        del ssl.SSLContext.set_default_verify_paths
        if given is None:
            del os.environ[_PURE_PYTHON]
        else:
            os.environ[_PURE_PYTHON] = given


def _for_who_verifies(context: ssl.SSLContext) -> None:
    # aiohttp reads the system's authorities for its context that verifies nothing as well: 0.9 MB, and 20 ms of the start.
    if context.verify_mode is not ssl.CERT_NONE:
        _read_authorities(context)
