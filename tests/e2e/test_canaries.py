"""S21: a secret in every slot of a gateway that works, fails and is killed, and none of them anywhere but where it belongs."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import keyring
import pytest
from keyrings.alt.file import PlaintextKeyring

from openclaw_config.secrets import REDACTED
from tests.emulators.model_control import EmulatorProcess
from tests.emulators.oauth_control import AuthorizationProcess
from tests.emulators.telegram_control import TelegramEmulator
from tests.kernel.cli.command import run_command
from tests.plugins.pairing.device_client import Device
from tests.support.canaries import Canaries
from tests.support.frames import _CURRENT
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import Frame, RequestFailed, WsClient, connect

pytestmark = pytest.mark.timeout(240)

MODEL = "gpt-4o-mini"
CLAUDE = "claude-sonnet-4-5"
CHAT = 42
KEPT = ("secrets", "keyring.cfg")
"""Where secrets lie: private files, which the config refers to, and the keyring."""
READS = ("list", "get", "status", "health", "tail", "schema", "presence", "catalog", "verify", "usage", "cost")


class World:
    """The servers around the gateway, the canaries, and all that was seen."""

    def __init__(self, home: Path, canaries: Canaries) -> None:
        self.home = home
        self.canaries = canaries
        self.openai = EmulatorProcess("openai")
        self.acme = EmulatorProcess("openai")
        self.anthropic = EmulatorProcess("anthropic")
        self.identity = AuthorizationProcess()
        self.telegram = TelegramEmulator(tokens=(canaries.new("telegram token", "4242:{}"),))
        self.environment = {
            "OPENAI_CANARY": canaries.new("openai key"),
            "PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring",
            "KEYRING_PROPERTY_FILE_PATH": str(home / "keyring.cfg"),
        }
        self.seen: list[tuple[str, str]] = []

    async def prepare(self) -> None:
        """Put a canary into every slot."""
        (self.home / "secrets").mkdir(mode=0o700, parents=True)
        slots = ("gateway token", "gateway password", "named secret", "spare secret", "anthropic key", "oauth client")
        for slot in slots:
            self.private(slot, self.canaries.new(slot))
        self.private("telegram token", self.canaries.values["telegram token"])
        chosen, before = PlaintextKeyring(), keyring.get_keyring()
        chosen.file_path = str(self.home / "keyring.cfg")
        keyring.set_keyring(chosen)
        try:
            chosen.set_password("team", "blue", self.canaries.new("header"))
        finally:
            keyring.set_keyring(before)
        prefix = self.canaries.new("oauth tokens")
        secret = self.canaries.values["oauth client"]
        await self.identity.configure(approved=True, prefix=prefix, client_secret=secret, token_seconds=3600)
        await self.openai.configure(api_keys=[self.environment["OPENAI_CANARY"]])
        await self.anthropic.configure(api_keys=[self.canaries.values["anthropic key"]])
        await self.acme.configure(api_keys=None)

    def private(self, slot: str, value: str) -> None:
        """Write a file that only its owner reads."""
        path = self.home / "secrets" / slot.replace(" ", "-")
        path.write_text(value)
        path.chmod(0o600)

    def config(self) -> dict[str, Any]:
        """A config that holds no secret and refers to all."""
        oauth = self.identity.section(clientSecret="${file:secrets/oauth-client}")
        telegram = {"botToken": "${file:secrets/telegram-token}", "apiRoot": self.telegram.api_root, "allowFrom": [CHAT]}
        shell = {"secretVariables": ["GH_TOKEN=named"], "allowShellLine": True}
        return {
            "gateway": {"auth": {"token": "${file:secrets/gateway-token}", "password": "${file:secrets/gateway-password}"}},
            "secrets": {"entries": {"named": "${file:secrets/named-secret}", "spare": "${exec:/bin/cat secrets/spare-secret}"}},
            "models": {
                "providers": {
                    "openai": {
                        "baseUrl": self.openai.openai_url,
                        "apiKey": "${env:OPENAI_CANARY}",
                        "headers": {"X-Team": "${keyring:team/blue}"},
                        "models": [{"id": MODEL}],
                    },
                    "acme": {"api": "openai-completions", "baseUrl": self.acme.openai_url, "models": [{"id": MODEL}], "oauth": oauth},
                    "anthropic": {"baseUrl": self.anthropic.url, "apiKey": "${file:secrets/anthropic-key}", "models": [{"id": CLAUDE}]},
                }
            },
            "agents": {
                "defaults": {"model": f"openai/{MODEL}", "secrets": ["named"], "tools": {"allow": ["shell"]}},
                "entries": {"main": {"default": True}, "acme": {"model": f"acme/{MODEL}"}, "claude": {"model": f"anthropic/{CLAUDE}"}},
            },
            "channels": {"telegram": telegram},
            "plugins": {"entries": {"shell-tool": {"config": shell}}},
            "logging": {"level": "debug"},
        }

    def note(self, where: str, what: Any) -> None:
        """Keep what somebody got to see."""
        self.seen.append((where, what if isinstance(what, str) else json.dumps(what, ensure_ascii=False, default=str)))

    async def command(self, *arguments: str, stdin: str = "") -> str:
        """Run a command of the command line; its output is kept, and returned."""
        outcome = await run_command(*arguments, home=self.home, env=self.environment, stdin=stdin)
        self.note(f"openclaw-kernel {' '.join(arguments)}", outcome.out + outcome.err)
        return outcome.out


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "state", Canaries())
    async with AsyncExitStack() as stack:
        for server in (made.openai, made.acme, made.anthropic, made.identity, made.telegram):
            await stack.enter_async_context(server)
        await made.prepare()
        yield made


async def say(client: WsClient, text: str, agent: str = "main") -> Frame:
    """One turn to its end."""
    run = uuid.uuid4().hex
    await client.request("chat.send", {"sessionKey": f"agent:{agent}:main", "message": text, "idempotencyKey": run})
    ended = ("final", "error", "aborted")
    return await client.expect_event(
        lambda frame: frame["event"] == "chat" and frame["payload"]["runId"] == run and frame["payload"]["state"] in ended
    )


async def converse(world: World, client: WsClient) -> list[str]:
    """Turns that go well, that fail, and whose servers tell back what they were sent; the ids of their runs."""
    values, openai = world.canaries.values, world.openai
    call = {"name": "shell", "arguments": {"command": "printenv GH_TOKEN; printenv GH_TOKEN >&2; exit 3"}}
    runs = []
    plan: list[tuple[str, EmulatorProcess, list[dict[str, Any]], str]] = [
        ("main", openai, [{"text": "hello"}], "final"),
        ("main", openai, [{"tool_calls": [call]}, {"text": "done"}], "final"),
        ("main", openai, [{"error": {"status": 401, "message": f"Incorrect API key provided: {values['openai key']}"}}], "error"),
        ("main", openai, [{"error": {"status": 500, "message": f"x {values['header']}", "after_chunks": 1}, "text": "one two"}], "error"),
        ("main", openai, [{"raw": {"status": 502, "body": f"<html><title>{values['openai key']}</title>{values['header']}"}}], "error"),
        ("main", openai, [{"raw": {"status": 200, "body": f'data: {{"choices": "{values["openai key"]}"}}\n\n'}}], "error"),
        ("main", openai, [{"text": "one two three", "drop_after_chunks": 1}], "error"),
        ("claude", world.anthropic, [{"text": "hello"}], "final"),
        ("claude", world.anthropic, [{"error": {"status": 401, "message": f"invalid x-api-key {values['anthropic key']}"}}], "error"),
        ("acme", world.acme, [{"text": "hello"}], "final"),
        ("acme", world.acme, [{"error": {"status": 401, "message": "expired"}}, {"text": "hello again"}], "final"),
    ]
    for agent, emulator, turns, state in plan:
        await emulator.script(turns)
        ended = await say(client, "please", agent)
        assert ended["payload"]["state"] == state, json.dumps(ended)
        world.note("a chat event", ended)
        runs.append(ended["payload"]["runId"])
    return runs


async def lose_the_login(world: World, client: WsClient) -> None:
    """The authorization server takes everything back, and tells which token it was sent."""
    await world.identity.revoke(refresh=True)
    await world.acme.script([{"error": {"status": 401, "message": "expired"}}])
    world.note("a chat event", await say(client, "please", "acme"))


async def write_by_telegram(world: World) -> None:
    """A message and its answer, and answers of the platform that fail."""
    await world.openai.script([{"text": "hello telegram"}])
    await world.telegram.user_message("hi", chat_id=CHAT)
    await world.telegram.wait(chat_id=CHAT, contains="hello telegram")
    description = f"bad token {world.canaries.values['telegram token']}"
    await world.telegram.fault("sendMessage", status=400, description=description, times=1)
    await world.openai.script([{"text": "is refused"}])
    await world.telegram.user_message("again", chat_id=CHAT)
    await world.telegram.wait(attempted="sendMessage", times=2)


async def look_around(world: World, gateway: RunningGateway, client: WsClient, runs: list[str]) -> None:
    """Ask for all that can be asked for, on the wire, by HTTP and by the command line."""
    for method in client.hello["features"]["methods"]:
        if method.rpartition(".")[2].startswith(READS):
            with suppress(RequestFailed):
                world.note(method, await client.request(method, {}))
    for run in runs:
        world.note("messages.why", await client.request("messages.why", {"id": run}))
        await world.command("why", run)
    async with aiohttp.ClientSession(gateway.url, headers={"Authorization": f"Bearer {world.canaries.values['gateway token']}"}) as http:
        for path in ("/", "/health", "/healthz", "/readyz", "/nowhere"):
            async with http.get(path) as answer:
                world.note(path, f"{dict(answer.headers)} {await answer.text()}")
    for line in (
        *("status --json", "health", "logs -n 1000", "devices list --json", "plugins list", "dead list --json"),
        *("config get", "config get --json", "config validate", "call config.get", "call logs.tail", "chat -m hello"),
        *("secrets list --json", "secrets check --json", "auth status --json", "audit list --json", "audit verify", "audit export"),
    ):
        await world.command(*line.split())


async def open_the_page(world: World, gateway: RunningGateway) -> None:
    """Exchange the link's code for a session."""
    code = world.canaries.take("page code", gateway.link.partition("#code=")[2])
    async with (
        aiohttp.ClientSession(gateway.url) as http,
        http.post("/auth/exchange", json={"code": code}, headers={"Origin": gateway.url}) as answer,
    ):
        (cookie,) = answer.cookies.values()
        world.canaries.take("page cookie", cookie.value)
        world.note("/auth/exchange", await answer.text())


async def break_in(world: World, gateway: RunningGateway) -> None:
    """Wrong credentials are secrets too: they may be right elsewhere."""
    wrong = world.canaries.new("wrong token")
    for auth in ({"token": wrong}, {"password": wrong}, {"deviceToken": wrong}, {"bootstrapToken": wrong}):
        with pytest.raises(RequestFailed) as refused:
            async with WsClient.open(gateway.ws_url) as client:
                await client.handshake(auth=auth)
        world.note("a refusal", dict(refused.value.error))
    async with aiohttp.ClientSession(gateway.url) as http, http.get("/health", headers={"Authorization": f"Bearer {wrong}"}) as answer:
        world.note("/health", await answer.text())


async def test_no_secret_is_anywhere_but_where_it_belongs(world: World, start_gateway: StartGateway) -> None:
    canaries = world.canaries
    config = world.config()
    (world.home / "openclaw.yaml").write_text(json.dumps(config))
    assert "is logged in" in await world.command("auth", "login", "acme")
    await world.command("secrets", "set", "another", stdin=canaries.new("stored secret"))
    gateway = await start_gateway(config, home=world.home, env=world.environment)
    token = canaries.values["gateway token"]
    device = Device()
    async with device.connect(gateway.ws_url, auth={"token": token}, scopes=("operator.admin",)) as client:
        canaries.take("device token", str(device.token))
        code = canaries.take("setup code", (await client.request("device.pair.setupCode", {}))["setupCode"])
        canaries.take("bootstrap token", json.loads(base64.urlsafe_b64decode(f"{code}==="))["bootstrapToken"])
        rotated = await client.request("device.token.rotate", {"deviceId": device.id, "role": "operator"})
        device.token = canaries.take("rotated token", rotated["token"])
    async with connect(gateway.ws_url, token=token) as client:
        runs = await converse(world, client)
        await write_by_telegram(world)
        await break_in(world, gateway)
        await open_the_page(world, gateway)
        await lose_the_login(world, client)
        await look_around(world, gateway, client, runs)
        await world.openai.script([{"text": "one two three", "hang_after_chunks": 1}])
        await client.request("chat.send", {"sessionKey": "agent:main:main", "message": "please", "idempotencyKey": "last"})
        await client.expect_event("chat")
        await gateway.kill()
    await gateway.start()
    async with device.connect(gateway.ws_url, auth={"deviceToken": str(device.token)}, scopes=("operator.admin",)) as client:
        world.note("status", await client.request("status", {}))
    await gateway.stop()

    found = [line for where, text in world.seen for line in canaries.found(where, text)]
    for line in gateway.lines:
        # The link is for whoever started it.
        found += canaries.found(f"{line.stream}: {line.text[:100]}", line.text, but=("page code",) if "link" in line.record else ())
    found += canaries.found_below(world.home, but_in=KEPT)
    for path in _CURRENT[-1].folder.glob("*.frames"):
        # A device is told its own tokens, and what a client sends is recorded with what it is sent.
        told = ("device token", "rotated token", "setup code", "bootstrap token", "gateway token", "wrong token")
        found += canaries.found("a frame", path.read_bytes(), but=told)
    found += await strayed(world)
    assert found == []


async def strayed(world: World) -> list[str]:
    """Secrets in an address, or at a server they are not for; and whether each server was shown its own at all."""
    canaries = world.canaries
    found: list[str] = []
    for server, own, name in (
        (world.openai, {"openai key", "header"}, "openai"),
        (world.anthropic, {"anthropic key"}, "anthropic"),
        (world.acme, {"oauth tokens"}, "acme"),
    ):
        requests = await server.requests()
        shown = json.dumps([entry["headers"] for entry in requests])
        assert all(canaries.values[slot] in shown for slot in own), name
        found += canaries.found(f"addresses at {name}", json.dumps([entry["path"] for entry in requests]))
        found += canaries.found(f"bodies at {name}", json.dumps([entry["body"] for entry in requests]))
        found += canaries.found(f"requests to {name}", json.dumps(requests), but=own)
    # The command wrote it to both of its outputs.
    assert json.dumps([entry["body"] for entry in await world.openai.requests()]).count(REDACTED) >= 2
    requests = await world.identity.requests()
    assert all(entry["form"]["client_secret"] == canaries.values["oauth client"] for entry in requests)
    found += canaries.found("addresses at the authorization server", json.dumps([entry["url"] for entry in requests]))
    found += canaries.found("requests to the authorization server", json.dumps(requests), but=("oauth client", "oauth tokens"))
    # The Bot API has the token in its addresses; that is its own to take.
    found += canaries.found("calls at Telegram", json.dumps(await world.telegram.calls()), but=("telegram token",))
    return found
