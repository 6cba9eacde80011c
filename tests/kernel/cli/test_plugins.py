"""plugins list and info, with and without a gateway, and with a missing extra."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.cli.command import run_command
from tests.support.gateway import RunningGateway

# Run in front of the command: the SDK of telegram is not to be found, as where its extra was not installed.
WITHOUT_TELEGRAM = """\
import importlib.machinery
original = importlib.machinery.PathFinder.find_spec
def find_spec(fullname, path=None, target=None):
    return None if fullname.partition('.')[0] == 'telegram' else original(fullname, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""


async def test_plugins_are_listed_without_a_gateway(tmp_path: Path) -> None:
    shown = await run_command("plugins", "list", home=tmp_path)
    assert (shown.status, shown.err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines()}
    assert rows["PLUGIN"] == ["KIND", "VERSION", "STATE"]
    assert rows["webchat"] == ["channel", "0.1.0", "discovered"]
    assert rows["echo"] == ["provider", "0.1.0", "discovered"]
    assert (await run_command("plugins", home=tmp_path)).out == shown.out
    listed = (await run_command("plugins", "list", "--json", home=tmp_path)).json()
    assert {plugin["id"] for plugin in listed["plugins"]} == rows.keys() - {"PLUGIN"}
    assert listed["problems"] == []


async def test_states_are_live_where_the_gateway_runs(gateway: RunningGateway) -> None:
    listed = (await run_command("plugins", "list", "--json", home=gateway.home)).json()
    states = {plugin["id"]: plugin["state"] for plugin in listed["plugins"]}
    assert (states["echo"], states["webchat"], states["telegram"]) == ("started", "started", "disabled")
    shown = await run_command("plugins", "info", "telegram", home=gateway.home)
    assert "disabled: there is no section channels.telegram" in shown.out


async def test_info_tells_what_the_manifest_says(tmp_path: Path) -> None:
    about = (await run_command("plugins", "info", "openai", "--json", home=tmp_path)).json()
    assert about["kind"] == "provider"
    assert about["section"] == "models.providers"
    assert "ollama" in about["provides"]
    assert about["needs"] == ["openclaw-kernel[openai]"]
    shown = await run_command("plugins", "info", "openai", home=tmp_path)
    assert "\nneeds         openclaw-kernel[openai]\n" in shown.out


async def test_an_unknown_plugin_is_told_with_the_known_ones(tmp_path: Path) -> None:
    outcome = await run_command("plugins", "info", "nosuch", home=tmp_path)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("plugins: there is no plugin 'nosuch'; installed: admission, ")


@pytest.mark.parametrize("arguments", [["list"], ["info", "telegram"]])
async def test_a_missing_extra_reads_as_its_install_line(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TELEGRAM)
    shown = await run_command("plugins", *arguments, home=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert shown.status == 0
    assert 'unavailable: pip install "openclaw-kernel[telegram]"' in shown.out
