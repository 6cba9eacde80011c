"""The command line is thin: what its commands import is what they need."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.kernel.cli.command import DEADLINE_SECONDS, environment
from tests.support.gateway import RunningGateway, StartGateway

SERVER = {"aiohttp", "pluggy", "stevedore", "sqlite_utils", "sqlite3", "orjson", "cryptography"}
HEAVY = {"pydantic", "pydantic_core", "asyncio", "ssl", "logging", "keyring", "subprocess"}

# Runs a command in this interpreter and prints, on the last line of stderr, what was imported for it.
PROBE = """\
import json, sys
from openclaw_kernel.cli.main import main
status = main(sys.argv[1:])
print(json.dumps({"status": status, "modules": sorted({name.partition(".")[0] for name in sys.modules})}), file=sys.stderr)
"""

# What only few gateways need, and each would keep in memory for good.
NEEDED_BY_FEW = {
    *("difflib", "jsonschema", "jwt", "segno", "sqlite_utils", "httpx", "openai", "anthropic", "telegram", "xllamacpp"),
    "frozenlist._frozenlist",
    *(f"openclaw_kernel.{name}" for name in ("backup", "importing", "onboarding", "service", "tls", "cli.client", "checks.running")),
    *(f"openclaw_plugins.{name}" for name in ("doctor.catalogue", "security.catalogue", "jwt_identity.authenticator")),
    *("openclaw_kernel.children.isolation", "openclaw_plugins.web_tools.runtime"),
}

# Runs a gateway that prints, on stderr and before it is heard to be ready, every module that is imported by then.
READY = """\
import io, json, sys
from openclaw_kernel.cli.main import main

class Snooped(io.TextIOWrapper):
    def write(self, text):
        if '"ready"' in text:
            print(json.dumps(sorted(sys.modules)), file=sys.stderr, flush=True)
        return super().write(text)

sys.stdout = Snooped(sys.stdout.detach(), encoding="utf-8", line_buffering=True)
sys.exit(main(["run", "--json"]))
"""


async def imported(*arguments: str, home: Path) -> set[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROBE, *arguments, env=environment(home), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    found = json.loads(err.decode().splitlines()[-1])
    assert found["status"] == 0, err
    return set(found["modules"])


@pytest.mark.parametrize(
    "arguments", [["status"], ["health"], ["open"], ["call", "health"], ["chat", "-m", "hello"], ["logs", "-n", "1"]], ids=" ".join
)
async def test_asking_commands_import_neither_the_server_nor_pydantic(arguments: list[str], gateway: RunningGateway) -> None:
    modules = await imported(*arguments, home=gateway.home)
    assert not modules & (SERVER | HEAVY)
    assert "wsproto" in modules


async def test_asking_commands_follow_no_reference_but_the_one_of_their_own_secret(start_gateway: StartGateway) -> None:
    # Else the gateway would follow them itself.
    gateway = await start_gateway({"gateway": {"reload": {"mode": "off"}}})
    ran = gateway.home / "ran"
    config = gateway.config | {"secrets": {"entries": {"one": f"${{exec:/usr/bin/touch {ran}}}", "two": "${keyring:no/such}"}}}
    gateway.write_config(config)
    assert not await imported("status", home=gateway.home) & {"keyring", "subprocess", "pydantic"}
    assert not ran.exists()


async def test_offline_commands_import_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "openclaw.yaml").write_text("gateway: {port: 1}")
    for arguments in (["version"], ["completion", "bash"], ["config", "file"], ["config", "get"]):
        modules = await imported(*arguments, home=tmp_path)
        assert not modules & (SERVER | HEAVY | {"wsproto"}), arguments


async def test_listing_plugins_imports_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "openclaw.yaml").write_text("gateway: {port: 1}")
    modules = await imported("plugins", "list", home=tmp_path)
    assert not modules & {
        "openclaw_channels",
        "openclaw_providers",
        "openclaw_plugins",
        "aiohttp",
        "pluggy",
        "stevedore",
        "telegram",
        "openai",
    }


async def imported_at_ready(home: Path) -> set[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READY, env=environment(home), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert b'"ready"' in await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
    finally:
        process.terminate()
        _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    return set(json.loads(next(line for line in err.decode().splitlines() if line.startswith("["))))


@pytest.mark.not_recorded("what the recorder imports is no part of a gateway")
async def test_a_gateway_at_ready_has_imported_no_other_command_and_nothing_that_few_need(tmp_path: Path) -> None:
    (tmp_path / "openclaw.yaml").write_text("gateway: {port: 0, auth: {token: token-0123456789abcdef}}\nmodels: {providers: {echo: {}}}")
    first = await imported_at_ready(tmp_path)
    assert "sqlite_utils" in first
    modules = await imported_at_ready(tmp_path)
    assert {name for name in modules if name.startswith("openclaw_kernel.cli.commands.")} == {"openclaw_kernel.cli.commands.run"}
    assert not modules & NEEDED_BY_FEW


def test_what_few_need_is_there_to_be_imported() -> None:
    # Else a module that is renamed could be imported again unnoticed.
    assert [name for name in sorted(NEEDED_BY_FEW) if find_spec(name) is None] == []
