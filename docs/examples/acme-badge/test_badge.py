"""Badges at a gateway that runs in this process: what opens, and what the gateway's config gives whom."""

import time

import aiohttp
from acme_badge.plugin import HEADER, sign

from openclaw_kernel.api import Secret
from openclaw_kernel.testing import StartGateway

KEY = "the-key-of-all-readers"
CONFIG = {
    "gateway": {"auth": {"identities": [{"issuer": "acme-doors", "subject": "4711", "scopes": ["operator.read"]}]}},
    "models": {"providers": {"echo": {}}},
    "plugins": {"entries": {"badge": {"config": {"key": KEY}}}},
}


def badge(number: str, key: str = KEY, seconds: int = 60) -> str:
    expires = str((int(time.time()) + seconds) * 1000)
    return f"{number}.{expires}.{sign(Secret(key), number, expires)}"


async def tells_reasons(url: str, text: str) -> bool:
    headers = {HEADER: text}
    async with aiohttp.ClientSession() as http, http.get(f"{url}/readyz", headers=headers) as answer:
        return "reasons" in await answer.json()


async def test_a_badge_opens_to_whom_the_config_names(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(CONFIG) as gateway:
        assert await tells_reasons(gateway.url, badge("4711"))
        assert not await tells_reasons(gateway.url, badge("4712"))
        assert not await tells_reasons(gateway.url, badge("4711", key="another"))
        assert not await tells_reasons(gateway.url, badge("4711", seconds=-1))
