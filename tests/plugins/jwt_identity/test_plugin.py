"""The plugin before anybody signs in: it costs nothing, and does nothing where no issuer is configured."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from openclaw_kernel.api import Approach
from openclaw_plugins.jwt_identity.plugin import JwtAuthenticator, JwtIdentityPlugin
from openclaw_plugins.jwt_identity.settings import JwtIdentitySettings

ISSUER = {"issuer": "https://id.example.org", "audience": ["gateway"]}


class Context:
    """Has the plugin's section."""

    def __init__(self, section: dict[str, Any]) -> None:
        self._section = section

    def settings(self, model: type[JwtIdentitySettings]) -> JwtIdentitySettings:
        return model.model_validate(self._section)


class Registered:
    """What the plugin registers."""

    def __init__(self) -> None:
        self.things: list[object] = []

    def add_authenticator(self, authenticator: object) -> None:
        self.things.append(authenticator)

    add_unit = add_authenticator


@pytest.mark.parametrize(("section", "count"), [({}, 0), ({"issuers": []}, 0), ({"issuers": [ISSUER]}, 2)])
def test_without_an_issuer_nobody_is_asked(section: dict[str, Any], count: int) -> None:
    registered = Registered()
    plugin = JwtIdentityPlugin(Context(section))  # type: ignore[arg-type]  # all that it asks for
    plugin.openclaw_register_authenticators(registered)  # type: ignore[arg-type]
    assert len(registered.things) == count


async def test_a_request_without_its_header_is_none_of_its_business() -> None:
    authenticator = JwtAuthenticator(JwtIdentitySettings.model_validate({"issuers": [ISSUER]}))
    approach = Approach(headers={}, path="/", peer="x", address="x", by_trusted_proxy=False, secure=False)
    assert await authenticator.authenticate(approach) is None
    await authenticator.stop()


def test_neither_the_token_library_nor_an_http_client_is_loaded_before_the_first_token() -> None:
    code = "import sys, openclaw_plugins.jwt_identity.plugin; print(sorted({'jwt', 'aiohttp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout == "[]\n"
