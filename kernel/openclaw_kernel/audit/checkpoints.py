"""Signed checkpoints beside the database: which row was the newest, so that a log whose end was cut off is found out."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from openclaw_kernel.audit.chain import Checkpoint, Fault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_FILE: Final = "audit.key"
CHECKPOINTS_FILE: Final = "audit-checkpoints.jsonl"
_KIND: Final = "openclaw-kernel audit checkpoint"
_FORMAT: Final = 1
_TAIL_BYTES: Final = 4096


class KeyUnusable(Exception):
    """The signing key cannot be read or made; the message names the file and the cure."""


class CheckpointFile:
    """The checkpoints of one state folder; only its gateway appends."""

    def __init__(self, home: Path) -> None:
        self._key_path = home / KEY_FILE
        self._path = home / CHECKPOINTS_FILE
        self._key: Ed25519PrivateKey | None = None
        self._lock = threading.Lock()

    def append(self, checkpoint: Checkpoint) -> None:
        """Sign it and write it to the disk; raise `OSError`, `KeyUnusable`."""
        with self._lock:
            self._append(checkpoint)

    def _append(self, checkpoint: Checkpoint) -> None:
        key = self._key = self._key or self._signing_key()
        body = _body(checkpoint, fingerprint_of(key.public_key()))
        signature = base64.urlsafe_b64encode(key.sign(rfc8785.dumps(body))).decode()
        line = rfc8785.dumps({**body, "signature": signature}) + b"\n"
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _end_torn_line(descriptor)
            if os.write(descriptor, line) != len(line):
                raise OSError(f"{self._path}: written in part; look after the disk")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def newest(self) -> Checkpoint | None:
        """The last one, its signature unchecked; None where there is none that can be read."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, self._path.stat().st_size - _TAIL_BYTES))
                lines = file.read().splitlines(keepends=True)
        except OSError:
            return None
        for line in reversed(lines):
            found = _parse(line) if line.endswith(b"\n") else None
            if found is not None:
                return _checkpoint(found)
        return None

    def read(self) -> tuple[list[Checkpoint], Fault | None]:
        """All whose signature holds, in order, and the first thing that is wrong; raise `OSError`."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return [], None
        try:
            public = self._verifying_key()
        except KeyUnusable as error:
            return [], Fault("checkpoint", 1, str(error))
        checkpoints: list[Checkpoint] = []
        fault: Fault | None = None
        # A line without its end is what a crash left of the last write; it never counted.
        for number, line in enumerate(data.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                continue
            last = checkpoints[-1].sequence if checkpoints else 0
            found = _signed_by(public, line)
            if found is None or found.sequence < last:
                what = "is not signed with audit.key" if found is None else f"names row {found.sequence} behind row {last}"
                fault = fault or Fault("checkpoint", last + 1, f"{CHECKPOINTS_FILE}:{number}: {what}; somebody else wrote it")
                continue
            checkpoints.append(found)
        return checkpoints, fault

    def fingerprint(self) -> str | None:
        """SHA-256 of the public key, hexadecimal, for people to keep elsewhere; None where there is no key. Raise `OSError`."""
        try:
            return fingerprint_of(self._verifying_key())
        except KeyUnusable:
            return None

    def _verifying_key(self) -> Ed25519PublicKey:
        if not self._key_path.exists():
            raise KeyUnusable(f"{self._key_path}: missing, so no checkpoint can be checked; restore it from a backup")
        return self._load().public_key()

    def _signing_key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        if self._key_path.exists():
            return self._load()
        key = Ed25519PrivateKey.generate()
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        temporary = self._key_path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._key_path)
        return key

    def _load(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(self._key_path.read_bytes(), password=None)
        except ValueError as error:
            raise KeyUnusable(f"{self._key_path}: no key in PEM ({error}); restore it from a backup") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable(f"{self._key_path}: no Ed25519 key; restore it from a backup")
        return key


def fingerprint_of(public: Ed25519PublicKey) -> str:
    """By which a key is named."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


def _body(checkpoint: Checkpoint, key: str) -> dict[str, Any]:
    return {
        "v": _FORMAT,
        "kind": _KIND,
        "sequence": checkpoint.sequence,
        "hash": checkpoint.hash,
        "timeMs": checkpoint.time_ms,
        "key": key,
    }


def _signed_by(public: Ed25519PublicKey, line: bytes) -> Checkpoint | None:
    from cryptography.exceptions import InvalidSignature

    found = _parse(line)
    if found is None:
        return None
    checkpoint = _checkpoint(found)
    body = _body(checkpoint, fingerprint_of(public))
    if found != {**body, "signature": found["signature"]}:
        return None
    try:
        public.verify(base64.urlsafe_b64decode(found["signature"]), rfc8785.dumps(body))
    except (InvalidSignature, ValueError):
        return None
    return checkpoint


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    texts = ("hash", "kind", "key", "signature")
    is_ours = isinstance(found, dict) and all(type(found.get(key)) is str for key in texts)
    if not is_ours or any(type(found.get(key)) is not int for key in ("v", "sequence", "timeMs")):
        return None
    return found  # type: ignore[no-any-return]  # seen to be a dict


def _checkpoint(found: dict[str, Any]) -> Checkpoint:
    return Checkpoint(found["sequence"], found["hash"], found["timeMs"])


def _end_torn_line(descriptor: int) -> None:
    # A crash may have left the beginning of a line; what is behind it must not become part of it.
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)
