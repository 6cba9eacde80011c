"""`qr`: a code in the terminal that a camera reads, and that lets one device in."""

from __future__ import annotations

import base64
import json

import zxingcpp

from openclaw_kernel.cli.exits import FAILED
from tests.kernel.cli.command import run_command
from tests.plugins.pairing.device_client import Device
from tests.support.gateway import RunningGateway

QUIET = 8


def seen(text: str) -> str:
    """What a camera reads in the blocks of a terminal, light ones on a dark ground."""
    lines = [line for line in text.splitlines() if set(line) <= set("\u2588\u2580\u2584 ") and len(line) > QUIET]
    shades = {"\u2588": (255, 255), "\u2580": (255, 0), "\u2584": (0, 255), " ": (0, 0)}
    rows = [[shades[char][half] for char in line] for line in lines for half in (0, 1)]
    zoom = 4
    wide = [bytes(shade for shade in row for _ in range(zoom)) for row in rows for _ in range(zoom)]
    (found,) = zxingcpp.read_barcodes(memoryview(b"".join(wide)).cast("B", (len(wide), len(wide[0]))))
    return str(found.text)


async def test_the_code_in_the_terminal_reads_as_the_one_below_it_and_pairs_a_device(gateway: RunningGateway) -> None:
    shown = await run_command("qr", "--public-url", "https://gateway.example.org", home=gateway.home)
    assert shown.status == 0, shown.err
    code = shown.out.splitlines()[-1]
    assert seen(shown.out) == code
    assert shown.err.startswith("for wss://gateway.example.org, with full access; one device, once, within 10 min")
    device = Device(client=("openclaw-ios", "ui"), platform="ios")
    token = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))["bootstrapToken"]
    async with device.connect(gateway.ws_url, auth={"bootstrapToken": token}, scopes=("operator.admin",)) as client:
        assert [one["role"] for one in client.hello["auth"]["deviceTokens"]] == ["node"]
        rows = (await client.request("device.pair.list", {}))["paired"]
        assert [row["approvedVia"] for row in rows] == ["owner"]


async def test_a_program_gets_the_code_as_json_or_alone_and_a_person_is_told_who_reaches_it(gateway: RunningGateway) -> None:
    told = await run_command("qr", "--json", "--access", "node", home=gateway.home)
    assert told.json()["access"] == "node"
    assert told.json()["qrDataUrl"].startswith("data:image/png;base64,")
    alone = await run_command("qr", "--code-only", home=gateway.home)
    assert alone.out.count("\n") == 1
    local = await run_command("qr", "--access", "limited", home=gateway.home)
    assert "only programs on this machine reach that address; give the one of your proxy with --public-url" in local.err
    plain = await run_command("qr", "--public-url", "http://192.0.2.1", home=gateway.home)
    assert "limited, for whoever is on the way there could read along" in plain.err
    wrong = await run_command("qr", "--public-url", "gopher://x", home=gateway.home)
    assert wrong.status == FAILED
    assert "publicUrl: found 'gopher://x'" in wrong.err
