"""Where the tokens of a login are kept: a file of the state folder that nobody else reads, or the system's keyring.

They are bound to the client and the address they came from: a config that names another server does not send them there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from openclaw_config.keyrings import SERVICE, delete_keyring, read_keyring, write_keyring
from openclaw_config.oauth import OAuthClient
from openclaw_config.references import LONGEST_SECRET, read_regular
from openclaw_config.secret_files import FOLDER, LOGINS, NAME, make_private_folder, store_private
from openclaw_config.secrets import Secret
from openclaw_kernel.oauth.flow import Tokens

_FORMAT: Final = 1


class TokenStore:
    """The tokens of one provider. All but `stamp` block; they raise `OSError` or `KeyringFailed`."""

    def __init__(self, home: Path, provider: str, client: OAuthClient) -> None:
        self._client = client
        name = provider if NAME.fullmatch(provider) else hashlib.sha256(provider.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self._entry = f"oauth/{name}"
        self.path = home / FOLDER / LOGINS / f"{name}.json"

    @property
    def place(self) -> str:
        """Where that is, in words."""
        return f"keyring entry {self._entry} of {SERVICE}" if self._client.store == "keyring" else str(self.path)

    def stamp(self) -> tuple[int, int] | None:
        """Return what changes with the file, None where there is none; the keyring has no such thing."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def load(self) -> Tokens | None:
        """Return the tokens, None where there are none, or none of this client."""
        if self._client.store == "keyring":
            text = read_keyring(SERVICE, self._entry)
        else:
            try:
                text = read_regular(self.path, LONGEST_SECRET)
            except (FileNotFoundError, UnicodeDecodeError):
                text = None
        return None if text is None else _read(text, self._client)

    def save(self, tokens: Tokens) -> None:
        """Keep them in place of those before."""
        with self._locked():
            self._write(tokens)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The command and the gateway are two processes. The state folder's own lock is the gateway's as long as it runs.
        folder = self.path.parent
        make_private_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, tokens: Tokens) -> None:
        text = json.dumps(
            {
                "v": _FORMAT,
                "clientId": self._client.client_id,
                "tokenUrl": self._client.token_url,
                "loginId": tokens.login_id,
                "accessToken": tokens.access.unwrap(),
                "refreshToken": None if tokens.refresh is None else tokens.refresh.unwrap(),
                "obtainedMs": tokens.obtained_ms,
                "expiresMs": tokens.expires_ms,
            }
        )
        if self._client.store == "keyring":
            write_keyring(SERVICE, self._entry, text)
        else:
            store_private(self.path, text)

    def renew(self, fresh: Tokens) -> bool:
        """Keep what a refresh brought, but only in place of the login that was refreshed: who logged out meanwhile stays so."""
        with self._locked():
            kept = self.load()
            if kept is None or kept.login_id != fresh.login_id:
                return False
            self._write(fresh)
        return True

    def remove(self) -> bool:
        """Forget them; return whether there were any."""
        with self._locked():
            return self._forget()

    def _forget(self) -> bool:
        if self._client.store == "keyring":
            found = read_keyring(SERVICE, self._entry) is not None
            delete_keyring(SERVICE, self._entry)
            return found
        found = self.path.exists()
        self.path.unlink(missing_ok=True)
        return found


def _read(text: str, client: OAuthClient) -> Tokens | None:
    try:
        kept: dict[str, Any] = json.loads(text)
        if (kept["v"], kept["clientId"], kept["tokenUrl"]) != (_FORMAT, client.client_id, client.token_url):
            return None
        refresh, expires_ms = kept["refreshToken"], kept["expiresMs"]
        return Tokens(
            login_id=str(kept["loginId"]),
            access=Secret(str(kept["accessToken"])),
            refresh=None if refresh is None else Secret(str(refresh)),
            obtained_ms=int(kept["obtainedMs"]),
            expires_ms=None if expires_ms is None else int(expires_ms),
        )
    except (KeyError, TypeError, ValueError):
        # Cut off or of another version: a login is quickly made again.
        return None
