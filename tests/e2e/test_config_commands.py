"""config set, unset, patch and apply through a gateway that runs: in the file and in force when the command ends."""

from __future__ import annotations

from tests.kernel.cli.command import run_command
from tests.support.gateway import RunningGateway


async def test_a_key_is_set_and_taken_out_live_and_a_dry_run_does_nothing(gateway: RunningGateway) -> None:
    before = gateway.config_path.read_bytes()
    dry = await run_command("config", "set", "session.mainKey", "hall", "--dry-run", home=gateway.home)
    assert (dry.status, dry.err) == (0, "")
    assert "would change session.mainKey" in dry.out
    assert "kernel: taken live" in dry.out
    assert gateway.config_path.read_bytes() == before
    done = await run_command("config", "set", "session.mainKey", "hall", home=gateway.home)
    assert (done.status, done.err) == (0, "")
    assert "session.mainKey" in done.out
    async with gateway.connect() as client:
        assert client.hello["snapshot"]["sessionDefaults"]["mainKey"] == "hall"
        found = await client.request("config.get")
        assert found["hash"] == found["appliedConfigHash"]
    patched = await run_command("config", "patch", "-", "--json", home=gateway.home, stdin="{logging: {level: 'debug'}}")
    assert patched.json()["changedPaths"] == ["logging.level"]
    gone = await run_command("config", "unset", "session.mainKey", home=gateway.home)
    assert (gone.status, gone.err) == (0, "")
    refused = await run_command("config", "set", "gateway.port", "x", home=gateway.home)
    assert refused.status == 1
    assert "gateway.port" in refused.err
