"""auth login, status and logout against an authorization server; no gateway, no browser, no token shown."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulators.oauth_control import AuthorizationProcess
from tests.kernel.cli.command import DEADLINE_SECONDS, Outcome, on_terminal, run_command, start_command

PREFIX = "canary-of-oauth-"


@pytest.fixture
async def server() -> AsyncIterator[AuthorizationProcess]:
    async with AuthorizationProcess() as running:
        await running.configure(prefix=PREFIX)
        yield running


@pytest.fixture
def home(server: AuthorizationProcess, tmp_path: Path) -> Path:
    write(tmp_path, acme=server.section(scopes=["models"]))
    return tmp_path


def write(home: Path, **oauth: Any) -> None:
    entry = {"api": "openai-completions", "baseUrl": "http://127.0.0.1:1/v1"}
    providers = {name: {**entry, "oauth": section} for name, section in oauth.items()}
    config = {"models": {"providers": {**providers, "echo": {}}}, "secrets": {"entries": {"never-read": "${file:absent}"}}}
    (home / "openclaw.yaml").write_text(json.dumps(config, indent=1))


async def auth(*arguments: str, home: Path, **env: str) -> Outcome:
    outcome = await run_command("auth", *arguments, home=home, env=env)
    assert PREFIX not in outcome.out + outcome.err
    return outcome


async def test_a_login_on_a_terminal_shows_the_address_and_the_code(server: AuthorizationProcess, home: Path) -> None:
    async with on_terminal("auth", "login", "acme", home=home) as terminal:
        code = r"[0-9A-F]{4}-[0-9A-F]{4}"
        await terminal.expect(rf"open  {server.url}/activate\r\ncode  {code}\r\nor open  {server.url}/activate\?user_code={code}")
        await terminal.expect(r"the code holds for 10 min")
        await server.approve()
        await terminal.expect(r"acme is logged in; the gateway refreshes its token")
        assert await terminal.process.wait() == 0
        assert PREFIX not in terminal.shown
    (path,) = (home / "secrets" / "oauth").iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == ("acme.json", 0o600)


async def test_a_login_without_a_terminal_is_driven_by_its_json(server: AuthorizationProcess, home: Path) -> None:
    process = await start_command("auth", "login", "acme", "--json", home=home)
    assert process.stdout is not None
    begun = json.loads(await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS))
    assert begun["event"] == "authorize"
    assert begun["verificationUriComplete"] == f"{server.url}/activate?user_code={begun['userCode']}"
    await server.approve()
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert (process.returncode, err) == (0, b"")
    done = json.loads(out)
    assert {key: done[key] for key in ("event", "provider", "loggedIn", "store", "refreshes")} == {
        "event": "done", "provider": "acme", "loggedIn": True, "store": "file", "refreshes": True,
    }  # fmt: skip
    assert PREFIX not in out.decode()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (["denied"], "auth login: acme: the login was refused by the person who was asked\n"),
        (["pending", "expired"], "auth login: acme: nobody confirmed the code in time; begin the login again\n"),
        (["device:error"], "auth login: acme: the authorization server answered 503; try again later\n"),
    ],
)
async def test_a_login_that_fails_leaves_nothing(server: AuthorizationProcess, home: Path, script: list[str], told: str) -> None:
    await server.script(*script)
    failed = await auth("login", "acme", home=home)
    assert (failed.status, failed.err.splitlines(keepends=True)[-1]) == (1, told)
    assert not (home / "secrets").exists()


async def test_status_and_logout_tell_what_there_is(server: AuthorizationProcess, home: Path) -> None:
    await server.configure(approved=True)
    before = await auth("status", home=home)
    assert (before.status, before.out.splitlines()[1].split()) == (0, ["acme", "not", "logged", "in", "file"])
    assert (await auth("status", "acme", home=home)).status == 1
    assert (await auth("login", "acme", home=home)).status == 0
    after = await auth("status", "acme", home=home)
    assert (after.status, after.out.splitlines()[1]) == (0, "acme      logged in; the gateway refreshes its token  file")
    (row,) = (await auth("--json", home=home)).json()["providers"]
    assert (row["loggedIn"], row["refreshes"]) == (True, True)
    assert 3_500_000 < row["expiresInMs"] <= 3_600_000
    assert (await auth("logout", "acme", home=home)).out == "acme is logged out\n"
    assert (await auth("logout", "acme", home=home)).out == "acme was not logged in\n"
    assert list((home / "secrets" / "oauth").iterdir()) == []


async def test_a_token_that_ends_for_good_is_expired(server: AuthorizationProcess, home: Path) -> None:
    await server.configure(approved=True, refreshes=False, token_seconds=0.001)
    await auth("login", "acme", home=home)
    status = await auth("status", "acme", home=home)
    assert (status.status, "expired; log in again" in status.out) == (1, True)


async def test_the_keyring_can_keep_a_login(server: AuthorizationProcess, tmp_path: Path) -> None:
    await server.configure(approved=True)
    write(tmp_path, acme=server.section(store="keyring"))
    env = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring", "KEYRING_PROPERTY_FILE_PATH": str(tmp_path / "keyring.cfg")}
    assert (await auth("login", "acme", home=tmp_path, **env)).status == 0
    assert not [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()]
    assert (await auth("status", "acme", home=tmp_path, **env)).status == 0
    assert (await auth("logout", "acme", home=tmp_path, **env)).out == "acme is logged out\n"
    refused = await auth("status", "acme", home=tmp_path, PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring")
    assert refused.status == 1
    assert "auth: keyring entry oauth/acme of openclaw-kernel cannot be used" in refused.err


async def test_a_provider_without_the_section_is_named(server: AuthorizationProcess, home: Path) -> None:
    for command in ("login", "logout", "status"):
        refused = await auth(command, "echo", home=home)
        assert refused.status == 1
        assert refused.err == "auth: provider 'echo' has no section models.providers.echo.oauth; with one: acme\n"
    (home / "openclaw.yaml").write_text("gateway: {}\n")
    assert (await auth("status", home=home)).out == "no provider has a section oauth\n"


async def test_a_section_that_is_wrong_is_told_with_its_place(server: AuthorizationProcess, tmp_path: Path) -> None:
    write(tmp_path, acme=server.section(tokenUrl="http://id.example/token", scope="x"))
    refused = await auth("login", "acme", home=tmp_path)
    assert refused.status == 78
    assert "models.providers.acme.oauth.tokenUrl: found 'http://id.example/token'; string should match pattern" in refused.err
    assert "models.providers.acme.oauth.scope: unknown key 'scope'; did you mean 'scopes'?" in refused.err
    assert all(line.startswith("openclaw.yaml:") for line in refused.err.splitlines())
