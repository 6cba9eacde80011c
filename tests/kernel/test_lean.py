"""What is left out of aiohttp is what nothing uses."""

from __future__ import annotations

import json
import subprocess
import sys

PROBE = """\
import json, os, ssl, sys
before = dict(os.environ)
from openclaw_kernel.lean import import_aiohttp
import_aiohttp()
from aiohttp import connector
print(json.dumps({
    "verified": connector._SSL_CONTEXT_VERIFIED.cert_store_stats(),
    "default": ssl.create_default_context().cert_store_stats(),
    "unverified": connector._SSL_CONTEXT_UNVERIFIED.cert_store_stats()["x509"],
    "left behind": "set_default_verify_paths" in vars(ssl.SSLContext) or dict(os.environ) != before,
    "compiled": "frozenlist._frozenlist" in sys.modules,
}))
"""


def test_a_client_still_believes_the_authorities_of_the_system_and_one_that_verifies_nothing_reads_none() -> None:
    ran = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
    found = json.loads(ran.stdout)
    assert found["verified"] == found["default"]
    assert found["unverified"] == 0
    assert not found["left behind"]
    assert not found["compiled"]
