"""What is wrong behind a link, secrets outside the state folder, and what stands in URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openclaw_config.home import prepare_home
from openclaw_kernel.api import Finding
from tests.plugins.security.scenes import Scene, found_by


def findings(check_id: str, scene: Scene, home: Path) -> list[Finding]:
    return [each.finding for each in found_by(check_id, scene.look(home))]


def behind_link(name: str, bits: int, tmp_path: Path) -> Scene:
    """One file or folder, elsewhere and with this mode, and a link in its place."""

    def prepare(home: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        if name == "secrets":
            elsewhere.mkdir()
        else:
            (home / name).rename(elsewhere)
        elsewhere.chmod(bits)
        (home / name).symlink_to(elsewhere)

    return Scene(prepare=prepare)


@pytest.mark.parametrize(
    ("name", "check_id", "closed", "opened"),
    [
        ("openclaw.yaml", "files.config.open", 0o600, 0o644),
        ("gateway.token", "files.token.open", 0o600, 0o644),
        ("secrets", "files.secrets.open", 0o700, 0o755),
    ],
)
def test_what_a_link_leads_to_is_looked_at_and_left_alone(name: str, check_id: str, closed: int, opened: int, tmp_path: Path) -> None:
    (found,) = findings(check_id, behind_link(name, opened, tmp_path), tmp_path / "home")
    assert (found.where, found.fix) == (str(tmp_path / "elsewhere"), None)
    (tmp_path / "elsewhere").chmod(closed)
    assert found_by(check_id, Scene().again(tmp_path / "home")) == []


def test_the_key_that_a_renewed_certificates_link_leads_to_is_looked_at(tmp_path: Path) -> None:
    key = tmp_path / "privkey7.pem"
    key.touch(mode=0o600)
    (tmp_path / "privkey.pem").symlink_to(key)
    tls = {"enabled": True, "certPath": str(tmp_path / "cert.pem"), "keyPath": str(tmp_path / "privkey.pem")}
    scene = Scene({"gateway": {"tls": tls}})
    assert findings("gateway.tls.key-open", scene, tmp_path / "home") == []
    key.chmod(0o644)
    (found,) = found_by("gateway.tls.key-open", scene.again(tmp_path / "home"))
    assert (found.finding.severity, found.finding.where, found.finding.fix) == ("critical", str(key), None)


def test_a_state_folder_behind_a_link_is_looked_at(tmp_path: Path) -> None:
    real = tmp_path / "real"
    prepare_home(real)
    real.chmod(0o777)
    (tmp_path / "home").symlink_to(real)
    (found,) = found_by("files.home.open", Scene().again(tmp_path / "home"))
    assert (found.finding.severity, found.finding.where) == ("critical", str(real))


def test_a_token_in_the_persons_own_folder_is_not_written_below_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weak").write_text("changeme")
    scene = Scene({"gateway": {"auth": {"mode": "token", "token": "${file:~/weak}"}}})
    (found,) = findings("gateway.auth.weak", scene, tmp_path / "home")
    assert found.fix is None


@pytest.mark.parametrize(
    ("url", "count"),
    [("https://ada:canary-1@api.example/v1", 1), ("https://:canary-1@api.example", 1), ("https://api.example:8443/v1/@here", 0)],
)
def test_a_password_within_a_url_is_found_and_not_told(url: str, count: int, tmp_path: Path) -> None:
    found = findings("secrets.plain", Scene({"models": {"providers": {"openai": {"baseUrl": url}}}}), tmp_path / "home")
    assert [each.where for each in found] == ["models.providers.openai.baseUrl"] * count
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("check_id", "config"),
    [
        ("channels.webhook.plain", {"channels": {"telegram": {"botToken": "${env:HOME}", "webhookUrl": "HTTP://a.example"}}}),
        ("agents.providers.plain", {"models": {"providers": {"openai": {"baseUrl": "Http://a.example/v1"}}}}),
    ],
)
def test_a_scheme_in_capitals_is_as_plain(check_id: str, config: dict[str, Any], tmp_path: Path) -> None:
    assert len(findings(check_id, Scene(config), tmp_path / "home")) == 1
