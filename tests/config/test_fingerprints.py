"""Fingerprints as people copy them from openssl, a browser or a status page."""

from __future__ import annotations

from typing import get_args

import pytest

from openclaw_config.fingerprints import fingerprint_of_pem, read_fingerprint, show_fingerprint
from openclaw_config.models import OperatorScope
from openclaw_kernel.api.scopes import ALL_SCOPES
from tests.support.certificates import Issued

DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "written",
    [
        DIGITS,
        DIGITS.upper(),
        show_fingerprint(DIGITS),
        f"  {show_fingerprint(DIGITS).replace(':', ' ')}\n",
        f"sha256:{DIGITS}",
        f"SHA256 Fingerprint={show_fingerprint(DIGITS)}",
        f"sha-256/{DIGITS}",
    ],
)
def test_a_fingerprint_is_read_as_any_program_shows_it(written: str) -> None:
    assert read_fingerprint(written) == DIGITS


@pytest.mark.parametrize(
    "written", ["", DIGITS[:-1], DIGITS + "0", "g" * 64, "ab:" * 20, f"md5:{DIGITS}", f"{DIGITS} {DIGITS}", "\uff10" * 64]
)
def test_what_is_no_sha256_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        read_fingerprint(written)


def test_the_fingerprint_of_a_file_is_that_of_its_first_certificate() -> None:
    first, second = Issued.make(), Issued.make()
    pem = (first.key_pem + first.certificate_pem + second.certificate_pem).decode()
    assert fingerprint_of_pem(pem) == read_fingerprint(first.fingerprint)
    assert fingerprint_of_pem(first.key_pem.decode()) is None
    assert fingerprint_of_pem("-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n") is None


def test_the_config_knows_the_scopes_that_there_are() -> None:
    assert frozenset(get_args(OperatorScope)) == ALL_SCOPES
