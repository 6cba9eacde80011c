"""Each fault is one line that names the place and the cure, and the rest of the gateway runs."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.emulators.telegram_control import TelegramEmulator
from tests.kernel.host.distributions import Distributions
from tests.support.frames import recorded
from tests.support.gateway import RunningGateway, StartGateway, base_config, free_port, merge

OK = 0
TEMPORARY = 75
CONFIG = 78
RUN_SECONDS = 20
ANSWER_SECONDS = 20

RAISES = "raise ValueError('boom')"

BLOCKS = """
class ThePlugin:
    settings = None

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_services(self, registrar):
        registrar.add_unit(self)

    async def start(self):
        await asyncio.sleep(0.1)
        time.sleep(3600)

    async def stop(self):
        pass
"""

NO_TELEGRAM = """
import sys

sys.modules["telegram"] = None
"""

TELEGRAM = {"botToken": "1001:TEST", "apiRoot": "http://127.0.0.1:9"}

FAULTS: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "a key of a channel": (
        {"channels": {"telegram": {**TELEGRAM, "dmPolici": "open"}}},
        ("channels.telegram.dmPolici", "unknown key", "did you mean 'dmPolicy'?"),
    ),
    "a channel": (
        {"channels": {"telegrm": TELEGRAM}},
        ("channels.telegrm", "did you mean 'telegram'?"),
    ),
    "a key of a provider": (
        {"models": {"providers": {"openai": {"apiKei": "k"}}}},
        ("models.providers.openai.apiKei", "unknown key", "did you mean 'apiKey'?"),
    ),
    "a provider": (
        {"models": {"providers": {"opnai": {"apiKey": "k"}}}},
        ("models.providers.opnai", "installed: anthropic, claude-cli, echo, local, openai"),
    ),
    "a key of a plugin": (
        {"plugins": {"entries": {"web-tools": {"config": {"maxByte": 5000}}}}},
        ("plugins.entries.web-tools.config.maxByte", "unknown key", "did you mean 'maxBytes'?"),
    ),
    "a plugin": (
        {"plugins": {"entries": {"web-tols": {}}}},
        ("plugins.entries.web-tols", "did you mean 'web-tools'?"),
    ),
    "an agent in a binding": (
        {"bindings": [{"agentId": "nobody", "match": {"channel": "telegram"}}]},
        ("bindings.0.agentId", "'nobody'", "agents.entries"),
    ),
}
"""What is misspelt: the config, and what the one line has to name."""

FATAL: dict[str, tuple[Callable[[str], str], str]] = {
    "a top-level key": (
        lambda text: text.replace('"models"', '"modles"'),
        "openclaw.yaml:9:3: modles: unknown key 'modles'; did you mean 'models'?",
    ),
    "a key of the gateway": (
        lambda text: text.replace('"port"', '"prot"'),
        "openclaw.yaml:3:5: gateway.prot: unknown key 'prot'; did you mean 'port'?",
    ),
    "the file's syntax": (
        lambda text: text.replace("}", "]", 1),
        "openclaw.yaml:7:5: not valid YAML",
    ),
    "a variable": (
        lambda text: text.replace("test-token-0123456789abcdef", "${env:NOT_SET_ANYWHERE}"),
        "openclaw.yaml:6:7: gateway.auth.token: the environment variable NOT_SET_ANYWHERE is not set",
    ),
    "a missing token": (
        lambda text: text.replace('"token": "test-token-0123456789abcdef"', '"token": null'),
        "openclaw.yaml:6:7: gateway.auth.token: not set",
    ),
}
"""What keeps the gateway from starting: how the file is spoilt, and how the one line begins."""


@pytest_asyncio.fixture
async def telegram() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as emulator:
        yield emulator


def complaints(gateway: RunningGateway, word: str) -> list[str]:
    """What the gateway wrote above the level info that has this word."""
    return [line.text for line in gateway.lines if line.stream == "stderr" and word in line.text and line.record.get("level") != "info"]


async def answers(gateway: RunningGateway, *, agent: str | None = None) -> str:
    """What the echo model answers."""
    params = {"message": "still here", "idempotencyKey": "still-here", **({"agentId": agent} if agent else {})}
    async with gateway.connect() as client:
        ended = await client.request("agent", params, expect_final=True)
    return str(ended["result"]["payloads"][0]["text"])


async def assert_one_line(gateway: RunningGateway, *words: str, when_ready: bool = True) -> str:
    """One problem, the same in its status and, where it is known by then, when it is ready; and the rest runs."""
    async with gateway.connect() as client:
        (problem,) = (await client.request("status"))["reasons"]
    if when_ready:
        assert gateway.ready["problems"] == [problem]
    assert "\n" not in problem
    for word in words:
        assert word in problem
        assert problem.count(word) == 1, problem
    assert await answers(gateway) == "still here"
    return str(problem)


@pytest.mark.parametrize("case", FAULTS)
async def test_what_is_misspelt_is_named_and_the_rest_runs(case: str, start_gateway: StartGateway) -> None:
    config, words = FAULTS[case]
    gateway = await start_gateway(config)
    await assert_one_line(gateway, *words)
    assert len(complaints(gateway, words[0])) <= 1


@pytest.mark.parametrize("as_json", [False, True], ids=["for people", "for programs"])
@pytest.mark.parametrize("case", FATAL)
async def test_a_config_that_cannot_be_used_is_one_line_and_78(case: str, as_json: bool, tmp_path: Path) -> None:
    spoil, beginning = FATAL[case]
    write(tmp_path, spoil(json.dumps(base_config(), indent=2)))
    status, out, err = await run(tmp_path, as_json=as_json)
    assert status == CONFIG
    assert out == []
    (line,) = err
    assert beginning in line
    assert line.startswith("{") == as_json


@pytest.mark.parametrize("as_json", [False, True], ids=["for people", "for programs"])
async def test_a_port_in_use_is_one_line_and_75(as_json: bool, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        write(tmp_path, json.dumps(base_config(port), indent=2))
        status, out, err = await run(tmp_path, as_json=as_json)
    assert status == TEMPORARY
    assert out == []
    (line,) = [line for line in err if '"info"' not in line and f"{port}" in line]
    assert f"openclaw.yaml:3:5: gateway.port: {port} is in use by another program; stop that program, or set another port" in line
    assert line.startswith("{") == as_json
    assert line == err[-1]


@pytest.mark.parametrize("as_json", [False, True], ids=["for people", "for programs"])
async def test_a_second_gateway_on_the_same_folder_names_the_first_and_ends_well(as_json: bool, gateway: RunningGateway) -> None:
    status, out, err = await run(gateway.home, as_json=as_json)
    assert status == OK
    (line,) = [*out, *err]
    assert line.startswith("{") == as_json
    assert gateway.url in line
    assert f"pid {gateway.process.pid}" in line
    assert "--home" in line
    assert await answers(gateway) == "still here"


async def test_the_port_is_free_again_as_soon_as_the_gateway_has_stopped(start_gateway: StartGateway, tmp_path: Path) -> None:
    port = free_port()
    gateway = await start_gateway({"gateway": {"port": port}})
    async with gateway.connect():
        await gateway.stop()
    await gateway.start()
    assert gateway.url == f"http://127.0.0.1:{port}"


async def test_a_wrong_telegram_token_is_one_line(telegram: TelegramEmulator, start_gateway: StartGateway) -> None:
    bot = {"botToken": "999:WRONG", "apiRoot": telegram.api_root, "allowFrom": [42]}
    gateway = await start_gateway({"channels": {"telegram": bot}})
    await gateway.wait_line("botToken")
    # A gateway is ready after two seconds, whatever Telegram takes to say.
    await assert_one_line(gateway, "channels.telegram.botToken", "@BotFather", when_ready=False)
    assert len(complaints(gateway, "botToken")) == 1
    assert all("999:WRONG" not in line.text for line in gateway.lines)


async def test_an_unknown_default_model_is_one_line(start_gateway: StartGateway) -> None:
    agents = {"defaults": {"model": "echo/nope"}, "entries": {"main": {}, "parrot": {"model": "echo/echo"}}}
    gateway = await start_gateway({"agents": agents})
    assert await answers(gateway, agent="parrot") == "still here"
    (problem,) = gateway.ready["problems"]
    for word in ("agents.defaults.model", "echo/nope", "echo/echo"):
        assert word in problem


async def test_no_provider_at_all_is_one_line(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"models": None})
    (problem,) = gateway.ready["problems"]
    assert problem == "models.providers is empty: no agent can answer; add a provider"


async def test_a_question_to_an_unknown_model_is_answered_with_the_place_and_the_cure(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"agents": {"defaults": {"model": "echo/nope"}}})
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "lost"})
        error = (await client.expect_event(lambda frame: frame["event"] == "chat" and frame["payload"]["state"] != "delta"))["payload"]
    assert error["state"] == "error"
    for word in ("agents.defaults.model", "echo/nope", "echo/echo"):
        assert word in error["errorMessage"]


async def test_a_model_file_that_is_not_there_is_one_line(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"models": {"providers": {"local": {"modelPath": "/nowhere/model.gguf"}}}})
    await assert_one_line(gateway, "models.providers.local.modelPath", "/nowhere/model.gguf", "correct the path")
    assert len(complaints(gateway, "/nowhere/model.gguf")) == 1


async def test_a_plugin_that_fails_at_import_is_one_line(start_gateway: StartGateway, tmp_path: Path) -> None:
    Distributions(tmp_path).add("broken", RAISES)
    gateway = await start_gateway(env={"PYTHONPATH": str(tmp_path)})
    await assert_one_line(gateway, "'broken'", "import raised ValueError: boom", "update the plugin or disable it")
    assert len(complaints(gateway, "'broken'")) == 1


async def test_a_disabled_broken_plugin_is_no_problem_at_all(start_gateway: StartGateway, tmp_path: Path) -> None:
    Distributions(tmp_path).add("broken", RAISES)
    gateway = await start_gateway({"plugins": {"entries": {"broken": {"enabled": False}}}}, env={"PYTHONPATH": str(tmp_path)})
    assert gateway.ready["problems"] == []


async def test_a_plugin_that_blocks_the_loop_is_named_and_the_rest_runs(start_gateway: StartGateway, tmp_path: Path) -> None:
    package = Distributions(tmp_path).add("blocker", BLOCKS)
    gateway = await start_gateway({"plugins": {"callTimeoutSeconds": 2}}, env={"PYTHONPATH": str(tmp_path)})
    gateway.expect_log("'blocker': interrupting it")
    await gateway.wait_line("'blocker' is failed")
    async with gateway.connect() as client:
        (problem,) = (await client.request("status"))["reasons"]
    assert f"{package}/plugin.py" in problem
    assert "use asyncio.to_thread" in problem
    assert await answers(gateway) == "still here"


async def test_a_start_that_a_neighbour_kept_from_running_has_not_failed(start_gateway: StartGateway, tmp_path: Path) -> None:
    distributions = Distributions(tmp_path)
    distributions.add("blocker", BLOCKS)
    distributions.add("bystander", BLOCKS.replace("time.sleep(3600)", "for _ in range(4): await asyncio.sleep(0.1)"))
    gateway = await start_gateway({"plugins": {"callTimeoutSeconds": 2}}, env={"PYTHONPATH": str(tmp_path)})
    gateway.expect_log("'blocker': interrupting it")
    await gateway.wait_line("'blocker' is failed")
    assert await answers(gateway) == "still here"
    for innocent in ("'bystander'", "'conversation'", "'webchat'"):
        assert complaints(gateway, innocent) == []


async def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(start_gateway: StartGateway, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_TELEGRAM, encoding="utf-8")
    gateway = await start_gateway({"channels": {"telegram": TELEGRAM}}, env={"PYTHONPATH": str(tmp_path)})
    await assert_one_line(gateway, "'telegram'", 'pip install "openclaw-kernel[telegram]"')
    assert len(complaints(gateway, "telegram")) <= 1


async def test_many_faults_at_once_are_a_line_each(start_gateway: StartGateway, tmp_path: Path) -> None:
    Distributions(tmp_path).add("broken", RAISES)
    config: dict[str, Any] = {}
    for case in FAULTS:
        if case != "a channel":
            config = merge(config, FAULTS[case][0])
    gateway = await start_gateway(config, env={"PYTHONPATH": str(tmp_path)})
    problems = gateway.ready["problems"]
    # Both faults of one plugin's section would be one line; each of these is another part of the file.
    assert len(problems) == len(set(problems)) == len(FAULTS)
    assert await answers(gateway) == "still here"


def write(home: Path, text: str) -> None:
    """Write a config as its owner would."""
    home.chmod(0o700)
    path = home / "openclaw.yaml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


async def run(home: Path, *, as_json: bool = False) -> tuple[int, list[str], list[str]]:
    """Start a gateway that is to end by itself; its status, and its lines on stdout and stderr."""
    command = [*recorded(sys.executable), "run", "--home", str(home), *(["--json"] if as_json else [])]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(RUN_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), err.decode().splitlines()
