"""Whose connections end when the settings of who may connect change."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_config.models import Gateway
from openclaw_kernel.protocol.ended import methods_ended

BY_SECRET = {"token", "password", "page"}
ALL = {*BY_SECRET, "none", "trusted-proxy"}
GRANT = {"issuer": "https://x", "subject": "*", "scopes": ["operator.read"]}
CLIENT = {"san": "DNS:laptop"}


def gateway(**content: Any) -> Gateway:
    return Gateway.model_validate(content)


def auth(**content: Any) -> Gateway:
    return gateway(auth=content)


TABLE = [
    ("nothing", auth(token="a"), auth(token="a"), set()),
    ("what has nothing to do with it", gateway(port=1), gateway(port=2), set()),
    ("the token", auth(token="a"), auth(token="b"), BY_SECRET),
    ("the password", auth(mode="password", password="a"), auth(mode="password", password="b"), BY_SECRET),
    ("a password that nobody uses", auth(token="a", password="a"), auth(token="a", password="b"), set()),
    ("the mode", auth(token="a"), auth(mode="none", token="a"), ALL),
    ("no mode any more", auth(mode="none"), auth(token="a"), ALL),
    ("whom the proxy may name", auth(trustedProxy={"allowUsers": ["a"]}), auth(trustedProxy={"allowUsers": ["b"]}), {"trusted-proxy"}),
    ("which proxies", gateway(trustedProxies=["10.0.0.1"]), gateway(), {"trusted-proxy"}),
    ("identities", auth(identities=[GRANT]), auth(), {"identity", "trusted-proxy"}),
    ("certificates", gateway(tls={"caPath": "ca", "clients": [CLIENT]}), gateway(tls={"caPath": "ca"}), {"certificate"}),
]


@pytest.mark.parametrize(("before", "after", "ended"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_who_came_in_by_what_changed_is_ended_and_nobody_else(before: Gateway, after: Gateway, ended: set[str]) -> None:
    assert methods_ended(before, after) == ended
    assert methods_ended(after, before) == ended
