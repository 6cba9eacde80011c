"""A headless Chromium on the chat page, with the words of a person: open, say, wait for.

Selenium blocks, so a story runs in a thread while the gateway's output goes on being read::

    async def test_something(gateway, browse):
        link = await gateway_link(gateway)
        def story(page: ChatPage) -> None: ...
        await browse(story)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.requirements import find_chromedriver, find_chromium

DESKTOP = (1280, 860)
PHONE = (390, 844)
WAIT_SECONDS = 20.0
PROBE_SECONDS = 0.05
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--lang=en-US",
    "--no-proxy-server",
)


class ChatPage:
    """The page in one browser that has never been anywhere else."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        """Take over a browser."""
        self.driver = driver
        self._log: list[str] = []

    def open(self, link: str) -> None:
        """Go there."""
        self.driver.get(link)

    def find(self, selector: str) -> WebElement:
        """The first element, which has to be there."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """The text of each element, hidden parts included, read at one moment."""
        script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)"
        found: list[str] = self.driver.execute_script(script, selector)
        return found

    def is_shown(self, selector: str) -> bool:
        """Whether any such element can be seen."""
        seen = "(node) => node.checkVisibility({ visibilityProperty: true })"
        script = f"return [...document.querySelectorAll(arguments[0])].some({seen})"
        return bool(self.driver.execute_script(script, selector))

    def run(self, script: str, *arguments: Any) -> Any:
        """What a line of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], what: str, *, seconds: float = WAIT_SECONDS) -> None:
        """Wait until this holds.

        Raises:
            AssertionError: it did not in time; the text says what the page showed instead.
        """
        try:
            WebDriverWait(self.driver, seconds, PROBE_SECONDS).until(lambda _driver: condition())
        except TimeoutException:
            seen = self.run("return document.body.innerText")
            message = f"{what} did not happen in {seconds} s; the page shows:\n{seen}\nits console: {self.console()}"
            raise AssertionError(message) from None

    def wait_shown(self, selector: str, *, seconds: float = WAIT_SECONDS) -> None:
        """Wait until such an element can be seen."""
        self.wait(lambda: self.is_shown(selector), f"{selector} shown", seconds=seconds)

    def wait_connected(self) -> None:
        """Wait until the page has its session and its history."""
        self.wait(lambda: self.is_shown("#app") and self.is_shown("#welcome, #log .item"), "a connected page")

    def wait_idle(self, *, seconds: float = WAIT_SECONDS) -> None:
        """Wait until no turn runs and nothing waits to be sent."""
        self.wait(lambda: not self.is_shown("#stop, .item.sending, .item.queued, .item.streaming"), "an idle page", seconds=seconds)

    def say(self, text: str) -> None:
        """Type into the box and press the button. Lines are typed as a person does, with Shift+Enter."""
        self.type(text)
        self.find("#send").click()

    def type(self, text: str) -> None:
        """Type into the box."""
        self.find("#draft").send_keys(text.replace("\n", "\ue008\ue007\ue008"))

    def answers(self) -> list[str]:
        """What the agent said, one text for each message."""
        return self.texts("#log .item.assistant .prose")

    def wait_answers(self, expected: list[str]) -> None:
        """Wait until the agent's messages are these."""
        self.wait(lambda: self.answers() == expected, f"the answers {expected}")

    def console(self) -> list[str]:
        """Warnings and errors that the browser noted since the beginning."""
        # Selenium's own method has no annotations.
        noted: list[dict[str, Any]] = self.driver.execute("getLog", {"type": "browser"})["value"]
        self._log += [entry["message"] for entry in noted if entry["level"] in {"WARNING", "SEVERE"}]
        return self._log

    def screenshot(self, path: Path) -> None:
        """Keep what can be seen."""
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path)), f"no screenshot was written to {path}"


def start_browser(
    size: tuple[int, int], profile: Path, *, touch: bool, dark: bool, network: bool = False, more: Sequence[str] = ()
) -> ChatPage:
    """A browser with an empty profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(find_chromium())
    for argument in (*ARGUMENTS, *more, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", **({"performance": "ALL"} if network else {})})
    if touch:
        metrics = {"width": size[0], "height": size[1], "pixelRatio": 2, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(find_chromedriver())))
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    return ChatPage(driver)


class Browse(Protocol):
    """Runs a story in a fresh browser, in a thread."""

    def __call__(
        self,
        story: Callable[[ChatPage], None],
        *,
        size: tuple[int, int] = DESKTOP,
        touch: bool = False,
        dark: bool = False,
        network: bool = False,
        more: Sequence[str] = (),
    ) -> Awaitable[None]:
        """Start, tell, quit. With `network` the driver notes requests and frames in its log `performance`; `more` are arguments."""


@pytest.fixture
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    """Browsers for the stories of one test."""

    def tell(story: Callable[[ChatPage], None], size: tuple[int, int], **options: Any) -> None:
        page = start_browser(size, tmp_path_factory.mktemp("profile"), **options)
        try:
            story(page)
        finally:
            page.driver.quit()

    async def run(
        story: Callable[[ChatPage], None],
        *,
        size: tuple[int, int] = DESKTOP,
        touch: bool = False,
        dark: bool = False,
        network: bool = False,
        more: Sequence[str] = (),
    ) -> None:
        await asyncio.to_thread(tell, story, size, touch=touch, dark=dark, network=network, more=more)

    return run
