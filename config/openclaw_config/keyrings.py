"""The system's keyring, through the library `keyring` (an extra), which is imported when a config first names it.

A keyring may ask a person to unlock it, and wait for ever where nobody is there: each call has a deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

SERVICE: Final = "openclaw-kernel"
"""Under this service our own commands store."""
KEYRING_SECONDS: Final = 30.0
_INSTALL: Final = "pip install 'openclaw-kernel[keyring]'"


class KeyringFailed(Exception):
    """The keyring cannot be used; `found` and `cure` say why and what to do, never a value."""

    def __init__(self, found: str, cure: str) -> None:
        super().__init__(f"{found}; {cure}")
        self.found = found
        self.cure = cure


def read_keyring(service: str, name: str) -> str | None:
    """Return an entry, None where there is none; raise `KeyringFailed`."""

    def read() -> str | None:
        import keyring

        return keyring.get_password(service, name)

    return _within(read)


def write_keyring(service: str, name: str, value: str) -> None:
    """Set an entry; raise `KeyringFailed`."""

    def write() -> None:
        import keyring

        keyring.set_password(service, name, value)

    _within(write)


def delete_keyring(service: str, name: str) -> None:
    """Remove an entry, where there is one; raise `KeyringFailed`."""

    def delete() -> None:
        import keyring

        if keyring.get_password(service, name) is not None:
            keyring.delete_password(service, name)

    _within(delete)


def _within(call: Callable[[], str | None]) -> str | None:
    try:
        from keyring.errors import KeyringError, NoKeyringError
    except ImportError:
        raise KeyringFailed("the keyring needs a library that is not installed", f"install it with: {_INSTALL}") from None
    values: list[str | None] = []
    errors: list[Exception] = []

    def body() -> None:
        try:
            values.append(call())
        except (KeyringError, OSError, RuntimeError, ValueError) as error:
            errors.append(error)

    # No executor: it would wait at exit for a thread that still waits for a person.
    thread = threading.Thread(target=body, name="keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_SECONDS)
    if values:
        return values[0]
    if thread.is_alive():
        raise KeyringFailed(f"the keyring did not answer within {KEYRING_SECONDS:g} s", "unlock it, or use ${file:PATH}")
    if errors and isinstance(errors[0], NoKeyringError):
        raise KeyringFailed("there is no keyring on this machine that can be used", "use ${file:PATH}, or see keyring --list-backends")
    # The library's words may hold what it was given.
    reason = type(errors[0]).__name__ if errors else "it ended without an answer"
    raise KeyringFailed(f"the keyring failed ({reason})", "unlock it, or see what the command keyring says")
