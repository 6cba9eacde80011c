"""config history, diff, blame and rollback, beside a gateway that runs and where none does."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.kernel.cli.command import run_command
from tests.support.gateway import TOKEN, StartGateway, merge
from tests.support.ws_client import RequestFailed

pytestmark = pytest.mark.timeout(240)


async def test_what_was_accepted_is_listed_compared_attributed_and_put_back(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    home = gateway.home
    first = gateway.config_path.read_bytes()
    beside = await run_command("config", "history", "--json", home=home)
    (one,) = beside.json()["generations"]
    assert (one["number"], one["surface"], one["actor"]) == (1, "start", "gateway")
    await gateway.stop()

    gateway.write_config(merge(gateway.config, {"logging": {"level": "warning"}}))
    blamed = (await run_command("config", "blame", "--json", home=home)).json()["keys"]
    by_key = {row["key"]: row for row in blamed}
    assert by_key["logging.level"]["accepted"] is False
    assert (by_key["gateway.auth.mode"]["accepted"], by_key["gateway.auth.mode"]["number"]) == (True, 1)
    diff = await run_command("config", "diff", home=home)
    assert '+    "level": "warning"' in diff.out
    assert gateway.token not in diff.out

    gateway.config_path.write_text("gateway: {prot: 1}\n")
    back = await run_command("config", "rollback", "last-good", "--reason", "it was broken", home=home)
    assert (back.status, back.out) == (0, "generation 1 is put back; the next start serves it\n")
    assert gateway.config_path.read_bytes() == first
    kept = [path.read_text() for path in (home / "generations" / "rejected").iterdir()]
    assert kept == ["gateway: {prot: 1}\n"]

    gateway.write_config(merge(json.loads(first), {"logging": {"level": "info"}}))
    await gateway.start()
    await gateway.stop()
    again = await run_command("config", "rollback", "1", "--reason", "quieter before", home=home)
    assert again.status == 0, again.err
    newest, *_ = (await run_command("config", "history", "--json", home=home)).json()["generations"]
    assert (newest["number"], newest["surface"], newest["reason"], newest["actor"]) == (3, "rollback", "quieter before", "owner")
    assert "logging.level" in newest["changed"]
    assert "config.rolled-back" in (await run_command("audit", "export", home=home)).out


async def test_what_there_is_not_is_said(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await gateway.stop()
    missing = await run_command("config", "rollback", "9", "--reason", "x", home=gateway.home)
    assert missing.status == 1
    assert "generation 9: there is none of this number" in missing.err
    odd = await run_command("config", "rollback", "newest", "--reason", "x", home=gateway.home)
    assert odd.status == 2
    same = await run_command("config", "rollback", "1", "--reason", "x", home=gateway.home)
    assert "the file says already" in same.out


async def test_a_running_gateway_puts_back_what_is_asked_for_and_keeps_the_reason(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    first = gateway.config_path.read_bytes()
    async with gateway.connect() as client, asyncio.timeout(60):
        gateway.write_config(merge(gateway.config, {"logging": {"level": "warning"}}))
        while (await client.request("status"))["config"]["generation"] != 2:
            pass
        back = await run_command("config", "rollback", "1", "--reason", "too quiet", home=gateway.home)
        assert back.out == "generation 1 is put back and in force, as generation 3\n"
        assert (await client.request("status"))["config"]["generation"] == 3
        told = (await client.request("config.history", {"limit": 1}))["generations"]
        assert [(one["number"], one["surface"], one["reason"]) for one in told] == [(3, "rollback", "too quiet")]
        older = (await client.request("config.history", {"before": 3}))["generations"]
        assert [one["number"] for one in older] == [2, 1]
        shown = (await client.request("config.generation.get", {"generation": 2}))["raw"]
        assert '"warning"' in shown
        assert TOKEN not in shown
        with pytest.raises(RequestFailed, match="there is none of this number"):
            await client.request("config.rollback", {"generation": 99})
    assert gateway.config_path.read_bytes() == first
