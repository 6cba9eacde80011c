"""The reference's Control UI, unmodified, with our gateway as its server: a person opens it, is let in, and chats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browse, ChatPage
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.requirements import find_reference_control_ui

pytestmark = [pytest.mark.conformance, pytest.mark.requires("reference-control-ui", "chromium"), pytest.mark.timeout(400)]

SCREENSHOT = Path(__file__).resolve().parents[3] / "docs" / "images" / "control-ui.png"
WORDS = "Sow beans once the soil is warm, two to a pot."
SLOW = f"!slow 250\n{WORDS}"
PROGRAMS_SECONDS = 30

# Parts of the reference's gateway that ours does not have. The UI asks for them unasked, and does without.
TOLERATED = {
    "chat.metadata",
    "cron.list",
    "cron.status",
    "exec.approval.list",
    "models.authStatus",
    "openclaw.approval.list",
    "plugin.approval.list",
    "progressCard.get",
    "question.list",
    "sessions.branches.list",
    "sessions.companion.state",
    "sessions.observer.visibility",
    "talk.catalog",
    "tasks.list",
    "update.status",
}


class Wire:
    """The frames of a page's WebSockets, as the browser noted them."""

    def __init__(self, page: ChatPage) -> None:
        self._page = page
        self._frames: list[tuple[str, dict[str, Any]]] = []
        self.failed: list[str] = []
        """Addresses of our own that were answered with an error."""

    def frames(self, direction: str) -> Iterator[dict[str, Any]]:
        """What was `Sent` or `Received` so far."""
        for entry in self._page.driver.execute("getLog", {"type": "performance"})["value"]:
            message = json.loads(entry["message"])["message"]
            kind, params = message["method"], message["params"]
            if kind.startswith("Network.webSocketFrame") and "payloadData" in params.get("response", {}):
                self._frames.append((kind.removeprefix("Network.webSocketFrame"), json.loads(params["response"]["payloadData"])))
            elif kind == "Network.responseReceived" and params["response"]["status"] >= 400:
                self.failed.append(params["response"]["url"])
        return (frame for noted, frame in self._frames if noted == direction)

    def refused(self) -> dict[str, str]:
        """The methods that were answered by an error, with its text."""
        sent = {frame["id"]: frame["method"] for frame in self.frames("Sent")}
        answers = [frame for frame in self.frames("Received") if frame["type"] == "res" and not frame["ok"]]
        return {sent[frame["id"]]: frame["error"]["message"] for frame in answers}

    def payloads(self, event: str) -> list[dict[str, Any]]:
        """The payloads of all events of this name."""
        return [frame["payload"] for frame in self.frames("Received") if frame.get("event") == event]


def shown(page: ChatPage) -> str:
    """All text that can be seen."""
    return str(page.run("return document.body.innerText"))


def devices(gateway: RunningGateway, *arguments: str) -> Any:
    """What a person does on the gateway's machine."""
    command = [sys.executable, "-m", "openclaw_kernel", "devices", "--home", str(gateway.home), "--json", *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROGRAMS_SECONDS)
    assert outcome.returncode == 0, outcome
    return json.loads(outcome.stdout)


async def start(start_gateway: StartGateway) -> RunningGateway:
    """A gateway that serves the UI, with two conversations of earlier."""
    gateway = await start_gateway({"plugins": {"entries": {"control-ui": {"config": {"root": str(find_reference_control_ui())}}}}})
    async with gateway.connect() as client:
        for key, label in (("agent:main:garden", "Garden"), ("agent:main:travel", "Travel")):
            await client.request("chat.send", {"sessionKey": key, "message": f"About {label}", "idempotencyKey": key})
            await client.request("agent.wait", {"runId": key})
            await client.request("sessions.patch", {"key": key, "label": label})
    return gateway


def let_in(page: ChatPage, gateway: RunningGateway) -> None:
    """Open the page with the token in the link, and approve the browser by the command the page waits for."""
    page.open(f"{gateway.url}/control-ui/#token={gateway.token}")
    page.wait(lambda: "Approve this browser" in shown(page), "the question to approve")
    (waiting,) = devices(gateway, "list")["pending"]
    assert f"devices approve {waiting['requestId']}" in shown(page)
    assert "Sessions" not in shown(page)
    devices(gateway, "approve", waiting["requestId"])
    page.wait(lambda: page.is_shown("textarea"), "a connected page")


async def test_a_person_is_let_in_and_chats(start_gateway: StartGateway, browse: Browse) -> None:
    gateway = await start(start_gateway)

    def story(page: ChatPage) -> None:
        wire = Wire(page)
        let_in(page, gateway)
        page.wait(lambda: {"Garden", "Travel"} <= set(shown(page).splitlines()), "the list of sessions")
        (hello,) = [frame["payload"] for frame in wire.frames("Received") if frame.get("payload", {}).get("type") == "hello-ok"]
        assert hello["auth"]["deviceToken"]

        box = page.find("textarea")
        box.send_keys(SLOW.replace("\n", Keys.SHIFT + Keys.ENTER + Keys.NULL))
        box.send_keys(Keys.ENTER)
        page.wait(lambda: "Sow beans once" in shown(page).split(SLOW)[-1], "the begin of the answer")
        page.wait(lambda: shown(page).split(SLOW)[-1].count(WORDS) == 1, "the whole answer")
        (sent,) = [frame["params"] for frame in wire.frames("Sent") if frame["method"] == "chat.send"]
        assert (sent["sessionKey"], sent["message"]) == ("agent:main:main", SLOW)
        states = [payload["state"] for payload in wire.payloads("chat") if payload["runId"] == sent["idempotencyKey"]]
        assert states.count("delta") > 2
        assert states[-1] == "final"
        if os.environ.get("OPENCLAW_UPDATE_SCREENSHOTS") == "1":
            page.screenshot(SCREENSHOT)

        page.driver.refresh()
        page.wait(lambda: WORDS in shown(page).split(SLOW)[-1], "the history after a reload")

        refused = wire.refused()
        assert refused.pop("connect", "pairing required").startswith("pairing required")
        assert set(refused) <= TOLERATED
        assert {text.split(":")[0] for text in refused.values()} == {"unknown method"}
        # What the page's policy forbids would be a fault of ours; an icon of the workspace is not there.
        unexpected = [line for line in page.console() if "workspace-icon" not in line]
        assert not unexpected, unexpected
        assert all("workspace-icon" in url for url in wire.failed), wire.failed

    await browse(story, network=True)


async def test_another_conversation_is_opened_and_its_link_works(start_gateway: StartGateway, browse: Browse) -> None:
    gateway = await start(start_gateway)

    def story(page: ChatPage) -> None:
        let_in(page, gateway)
        page.wait(lambda: "Garden" in shown(page).splitlines(), "the list of sessions")
        link = next(each for each in page.driver.find_elements(By.CSS_SELECTOR, "a[href*='/chat/']") if "Garden" in each.text)
        link.send_keys(Keys.ENTER)
        page.wait(lambda: "About Garden" in shown(page), "the other conversation")
        # The address of a conversation is one of the page's own; the gateway serves the page there.
        page.open(page.driver.current_url)
        page.wait(lambda: "About Garden" in shown(page), "the conversation by its address")

    await browse(story)


async def test_a_wrong_token_is_told(start_gateway: StartGateway, browse: Browse) -> None:
    gateway = await start(start_gateway)

    def story(page: ChatPage) -> None:
        page.open(f"{gateway.url}/control-ui/#token=not-the-token")
        page.wait(lambda: "token" in shown(page).lower() and not page.is_shown("textarea"), "the refusal")
        assert "Garden" not in shown(page)

    await browse(story)
