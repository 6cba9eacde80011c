"""The files of `gateway.tls`: which they are, and reading them without being led astray."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openclaw_config.models import GatewayTls
from openclaw_kernel.files.states import Seen, folders_of, state_of
from openclaw_kernel.tls.faults import TlsFault, words_of

FOLDER: Final = "tls"
CERTIFICATE: Final = "gateway-cert.pem"
KEY: Final = "gateway-key.pem"
LARGEST_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class TlsFile:
    """One of the files, and the key of the config that names it."""

    key: str
    path: Path
    what: str


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """All of them. `generated` tells that the pair is of our own making."""

    certificate: TlsFile
    private_key: TlsFile
    authorities: TlsFile | None
    generated: bool

    @classmethod
    def of(cls, settings: GatewayTls, home: Path) -> TlsFiles:
        """Those that the config names, relative to the state folder; raise `TlsFault` where it names none and none are made."""
        generated = settings.cert_path is None
        if generated and not settings.auto_generate:
            cure = "name your certificate and its key, or set gateway.tls.autoGenerate to true"
            raise TlsFault("gateway.tls.certPath", "not set, while gateway.tls.autoGenerate is false", cure)

        def place(path: str | None, otherwise: str) -> Path:
            return home / Path(path or f"{FOLDER}/{otherwise}").expanduser()

        return cls(
            TlsFile("gateway.tls.certPath", place(settings.cert_path, CERTIFICATE), "the certificate"),
            TlsFile("gateway.tls.keyPath", place(settings.key_path, KEY), "the private key"),
            TlsFile("gateway.tls.caPath", place(settings.ca_path, ""), "the authorities") if settings.ca_path else None,
            generated,
        )

    def all(self) -> Sequence[TlsFile]:
        """Every file."""
        return [file for file in (self.certificate, self.private_key, self.authorities) if file is not None]

    def seen(self) -> Seen:
        """The state of the files now."""
        return tuple(state_of(file.path) for file in self.all())

    def folders(self) -> frozenset[Path]:
        """Where something changes when one of the files does: their folders, and those of every link on the way to them."""
        return frozenset(folder for file in self.all() for folder in folders_of(file.path))


def read(file: TlsFile, *, private: bool = False) -> bytes:
    """The content of a file; raise `TlsFault`, also where others can read what is private."""
    try:
        # What is no file must not hold up the start, as a pipe does.
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise TlsFault(file.key, f"{file.path}, where nothing is", f"put {file.what} there, or correct the path") from None
    except OSError as error:
        raise TlsFault(file.key, f"{file.path}: {words_of(error)}", "let the gateway's user read it, or correct the path") from error
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_size > LARGEST_BYTES:
            raise TlsFault(file.key, f"{file.path}, which is no PEM file", f"name the file that holds {file.what}")
        if private and info.st_mode & _too_open(info):
            found = f"{file.path}, which others can read or write (mode {stat.S_IMODE(info.st_mode):04o})"
            raise TlsFault(file.key, found, f"chmod 600 {file.path}")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read(LARGEST_BYTES + 1)
    finally:
        os.close(descriptor)


def _too_open(info: os.stat_result) -> int:
    # A key of root's or of another owner comes to us through a group; our own needs none.
    return 0o077 if info.st_uid == os.geteuid() != 0 else 0o037
