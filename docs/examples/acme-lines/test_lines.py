"""Talks to an agent over the channel, in a gateway that runs in this process."""

import asyncio

from openclaw_kernel.api import Channels, PluginState
from openclaw_kernel.testing import StartGateway

CONFIG = {
    "models": {"providers": {"echo": {}}},
    "channels": {"lines": {"port": 0, "allowFrom": ["alice"]}},
}


async def test_a_line_is_answered_with_a_line(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(CONFIG) as gateway:
        assert gateway.plugin("lines").state is PluginState.STARTED
        (account,) = gateway.service(Channels).status("lines")
        port = int((account.detail or "").removeprefix("port "))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"alice\nhello from the other side\n")
        answer = await asyncio.wait_for(reader.readline(), 10)
        assert b"hello from the other side" in answer
        writer.close()
        await writer.wait_closed()
