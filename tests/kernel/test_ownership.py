"""Who may run on a state folder, with real gateways: after a kill, beside another one, and while clients hold on to the port (P12)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from contextlib import ExitStack

import pytest

from tests.support.gateway import RunningGateway, StartGateway, merge

KILLS = int(os.environ.get("OPENCLAW_TEST_KILLS", "20"))
"""How often a gateway is killed and started again; `OPENCLAW_TEST_KILLS=100` is the promise."""
STALLED = 50
TOGETHER = 4
FREE_SECONDS = 5.0
"""Until the port is free; the promise is 1 s, the rest is for a machine that has much else to do."""


def port_of(gateway: RunningGateway) -> int:
    return int(gateway.url.rpartition(":")[2])


@pytest.mark.timeout(KILLS * 15)
async def test_killed_it_is_up_again_each_time_whoever_has_its_number_by_now(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    for _ in range(KILLS):
        await gateway.kill()
        # The number went to another process that lives, and what it said of itself is still there.
        (gateway.home / "gateway.lock").write_text(json.dumps({"pid": os.getppid(), "url": gateway.url}))
        await gateway.start()
    async with gateway.connect() as client:
        assert (await client.request("health"))["ok"] is True


async def test_of_those_started_in_the_same_instant_one_wins_and_the_others_name_it(start_gateway: StartGateway) -> None:
    first = await start_gateway(wait=False)
    others = [await start_gateway(home=first.home, config=first.config, wait=False) for _ in range(TOGETHER - 1)]
    everybody = [first, *others]
    await asyncio.gather(*(one.wait_line('"event": "(ready|already-running)"') for one in everybody))
    (winner,) = (one for one in everybody if one.ready)
    for loser in everybody:
        if loser is not winner:
            assert await loser.wait_ended() == 0
            (said,) = (line.record for line in loser.lines if line.record.get("event") == "already-running")
            assert (said["owner"]["url"], said["owner"]["pid"]) == (winner.url, winner.process.pid)
            assert f"pid {winner.process.pid}, version " in said["message"]
    assert winner.is_running


async def test_clients_that_have_stalled_do_not_keep_the_port(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    port = port_of(gateway)
    with ExitStack() as stalled:
        for number in range(STALLED):
            client = stalled.enter_context(socket.create_connection(("127.0.0.1", port)))
            # Some said nothing, some stopped within their request, some read nothing of what they asked for.
            client.sendall([b"", b"GET /healthz HT", b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n" * 20][number % 3])
        async with gateway.connect():
            gateway.process.terminate()
            begun = time.monotonic()
            while not is_free(port):
                assert time.monotonic() - begun < FREE_SECONDS
                await asyncio.sleep(0.01)
        assert await gateway.wait_ended() == 0


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def test_one_that_would_have_the_port_of_another_folder_says_which_key(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    config = merge(gateway.config, {"gateway": {"port": port_of(gateway)}})
    second = await start_gateway(config, wait=False)
    assert await second.wait_ended() == 75
    assert any(f"gateway.port: {port_of(gateway)} is in use by another program" in line.text for line in second.lines)
