"""SHA-256 fingerprints of certificates: 64 hexadecimal digits inside, in pairs with colons where people read them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final

_PREFIX: Final = re.compile(r"sha-?256(?: fingerprint)?\s*[=:/]\s*")
_DIGITS: Final = re.compile(r"[0-9a-f]{64}")
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


def read_fingerprint(text: str) -> str:
    """Read what openssl, a browser or this program shows: any case, with colons, blanks or neither; raise `ValueError`."""
    written = text.strip().lower()
    prefix = _PREFIX.match(written)
    digits = re.sub(r"[: ]", "", written[prefix.end() if prefix else 0 :])
    if _DIGITS.fullmatch(digits) is None:
        raise ValueError("use the 64 hexadecimal digits of SHA-256, in pairs with colons or without")
    return digits


def show_fingerprint(digits: str) -> str:
    """A fingerprint as openssl shows it."""
    return ":".join(digits[index : index + 2] for index in range(0, len(digits), 2)).upper()


def fingerprint_of_pem(text: str) -> str | None:
    """That of the first certificate in a PEM file; None where there is none."""
    found = _CERTIFICATE.search(text)
    try:
        return None if found is None else hashlib.sha256(base64.b64decode(found[1])).hexdigest()
    except binascii.Error:
        return None
