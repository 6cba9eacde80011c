"""The chat page in a real browser, against the real gateway."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path

import pytest

from tests.support.browser import PHONE, Browse, ChatPage
from tests.support.gateway import RunningGateway, StartGateway

pytestmark = pytest.mark.requires("chromium")

SCREENSHOT = Path(__file__).resolve().parents[2] / "docs" / "images" / "chat-page.png"
OPEN_SECONDS = 20
ABORT_SECONDS = 1.5
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
STEPS = "#log .item.assistant .prose, #log .item.tool summary b"
SLOW_WORDS = "one two three four five six seven eight nine ten"


async def link_of(gateway: RunningGateway) -> str:
    """The link that the gateway printed when it was ready."""
    line = await gateway.wait_line(r'"event": *"ready"')
    return str(line.record["link"])


async def another_link(gateway: RunningGateway) -> str:
    """What `openclaw-kernel open` prints."""
    command = [sys.executable, "-m", "openclaw_kernel", "open", "--home", str(gateway.home)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(OPEN_SECONDS):
        printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode().split()[-1]


def code_of(link: str) -> str:
    """The one-time code in a link."""
    return link.partition("#code=")[2]


async def test_the_link_signs_in_once_and_leaves_no_credential_behind(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def first(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        assert page.run("return location.href") == f"{gateway.url}/"
        page.say("hello there")
        page.wait_answers(["hello there"])
        kept = page.run("return JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage), location.href])")
        cookies = page.driver.get_cookies()
        assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")]
        for secret in (code_of(link), gateway.token, cookies[0]["value"]):
            assert secret not in kept
        assert page.run("return document.cookie") == ""
        page.driver.refresh()
        page.wait_answers(["hello there"])
        assert page.console() == []

    def second(page: ChatPage) -> None:
        page.open(link)
        page.wait_shown("#signin-error")
        assert 'command "open"' in page.find("#signin-error").text
        assert page.run("return location.href") == f"{gateway.url}/"
        assert not page.is_shown("#app")

    await browse(first)
    await browse(second)


async def test_a_pasted_code_signs_in_where_there_is_no_link(gateway: RunningGateway, browse: Browse) -> None:
    link = await another_link(gateway)

    def story(page: ChatPage) -> None:
        page.open(gateway.url)
        page.wait_shown("#code")
        page.find("#code").send_keys("wrong")
        page.find("#signin-form button").click()
        page.wait_shown("#signin-error")
        page.find("#code").clear()
        page.find("#code").send_keys(code_of(link))
        page.find("#signin-form button").click()
        page.wait_connected()

    await browse(story)


async def test_an_answer_appears_word_by_word(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say(f"!slow 150\n{SLOW_WORDS}")
        seen: list[str] = []

        def is_done() -> bool:
            seen.extend(text for text in page.answers() if text not in seen)
            return SLOW_WORDS in seen

        page.wait(is_done, "the whole answer")
        assert len(seen) > 3
        assert all(SLOW_WORDS.startswith(text) for text in seen)
        page.wait_idle()
        assert page.answers() == [SLOW_WORDS]

    await browse(story)


async def test_a_tool_step_shows_its_input_and_how_it_ended(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say('look\n!tool fetch {"url": "http://127.0.0.1:9/"}')
        page.wait(lambda: page.texts(".item.tool .state") == ["failed"], "the refused fetch")
        page.wait_idle()
        page.find(".item.tool summary").click()
        shown = page.find(".item.tool details").text
        assert "http://127.0.0.1:9/" in shown
        assert "Error" in shown
        live = page.texts(STEPS)
        assert live[:2] == ["look", "fetch"]
        assert live[2].startswith("fetch: ")
        page.driver.refresh()
        page.wait(lambda: len(page.texts(STEPS)) == len(live), "the history after a reload")
        assert page.texts(STEPS) == live

    await browse(story)


async def test_a_failed_turn_says_why_and_what_to_do(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say("!fail rate_limit")
        page.wait_shown(".item.fault")
        assert "Wait a moment" in page.texts(".item.fault .cure")[0]
        page.wait_idle()
        page.say("still here")
        page.wait(lambda: page.answers()[-1:] == ["still here"], "an answer after the failure")

    await browse(story)


async def test_stop_ends_a_turn_within_a_second(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say("half an answer\n!hang")
        page.wait_answers(["half an answer"])
        page.find("#stop").click()
        page.wait_shown(".item.aborted", seconds=ABORT_SECONDS)
        assert page.answers() == ["half an answer"]
        page.wait_idle()

    await browse(story)


async def test_messages_sent_during_a_turn_are_answered_in_order(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say(f"!slow 150\n{SLOW_WORDS}")
        page.wait_shown(".item.streaming")
        page.say("second")
        page.wait(lambda: len(page.texts(".bubble")) == 2, "the second message")
        page.wait(lambda: page.is_shown("#send:disabled") and not page.is_shown(".sending, .queued"), "the second message taken")
        page.say("third")
        page.wait_answers([SLOW_WORDS, "second", "third"])
        page.wait_idle()
        order = page.texts("#log .bubble, #log .prose")
        assert order[1:] == [SLOW_WORDS, "second", "second", "third", "third"]
        page.driver.refresh()
        page.wait(lambda: page.texts("#log .bubble, #log .prose") == order, "the same order after a reload")

    await browse(story)


async def test_the_page_fits_a_phone_in_the_dark(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say("a" * 300 + "\n\n```\n" + "x" * 200 + "\n```")
        page.wait(lambda: len(page.answers()) == 1, "the answer")
        page.wait_idle()
        assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
        below = page.run("return document.getElementById('send').getBoundingClientRect().bottom - innerHeight")
        assert below <= 0
        background = page.run("return getComputedStyle(document.body).backgroundColor")
        assert sum(int(part) for part in background[4:-1].split(",")) < 150, background
        page.find("#menu").click()
        page.wait(lambda: page.run("return document.getElementById('sidebar').getBoundingClientRect().left") == 0, "the open list")
        page.find("#close-menu").click()
        page.wait(lambda: not page.is_shown("#shade"), "the closed list")

    await browse(story, size=PHONE, touch=True, dark=True)


async def test_a_message_typed_while_the_gateway_is_away_arrives_once(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)
    loop = asyncio.get_running_loop()

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say("before")
        page.wait_answers(["before"])
        asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result()
        page.wait_shown("#connection.waiting")
        page.say("while away")
        page.wait_shown(".item.queued")
        page.type("a draft")
        asyncio.run_coroutine_threadsafe(gateway.start(), loop).result()
        page.wait_answers(["before", "while away"])
        page.wait_idle()
        assert page.texts(".bubble") == ["before", "while away"]
        assert page.find("#draft").get_property("value") == "a draft"

    await browse(story)
    async with gateway.connect() as client:
        history = await client.request("chat.history", {"sessionKey": "main"})
    said = [message["content"][0]["text"] for message in history["messages"] if message["role"] == "user"]
    assert said == ["before", "while away"]


async def test_a_browser_that_lost_its_cookie_is_asked_for_a_code(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)
    loop = asyncio.get_running_loop()

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.type("a draft")
        page.driver.delete_all_cookies()
        asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result()
        asyncio.run_coroutine_threadsafe(gateway.start(), loop).result()
        page.wait_shown("#code")
        assert "the gateway's command\nopen" in page.find("#signin").text
        code = code_of(asyncio.run_coroutine_threadsafe(another_link(gateway), loop).result())
        page.find("#code").send_keys(code)
        page.find("#signin-form button").click()
        page.wait_connected()
        assert page.find("#draft").get_property("value") == "a draft"

    await browse(story)


async def test_what_is_said_elsewhere_in_the_session_appears_once(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)
    loop = asyncio.get_running_loop()

    async def say_elsewhere(text: str) -> None:
        async with gateway.connect() as client:
            await client.request("chat.send", {"sessionKey": "main", "message": text, "idempotencyKey": text})

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        said = ["from afar", "from afar again", "from here"]
        for count, text in enumerate(said[:2], start=1):
            asyncio.run_coroutine_threadsafe(say_elsewhere(text), loop).result()
            page.wait_answers(said[:count])
            page.wait_idle()
        page.say(said[2])
        page.wait_answers(said)
        assert page.texts(".bubble") == said
        page.driver.refresh()
        page.wait_answers(said)
        assert page.texts(".bubble") == said

    await browse(story)


async def test_markup_in_an_answer_stays_text(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)
    markup = '<img src="x" onerror="window.broken = 1"><script>window.broken = 1</script>'

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say(f"{markup} [click](javascript:window.broken=1) **bold** [here](https://example.org/)")
        page.wait_answers([f"{markup} click bold here"])
        page.wait_idle()
        tags = page.run("return [...document.querySelectorAll('#log .prose *')].map((node) => node.localName)")
        assert tags == ["p", "span", "strong", "a"]
        assert page.run("return document.querySelector('#log .prose a').rel").startswith("noopener")
        assert page.run("return window.broken") is None
        assert page.console() == []

    await browse(story)


async def test_a_picture_goes_along_and_is_there_after_a_reload(gateway: RunningGateway, browse: Browse, tmp_path: Path) -> None:
    link = await link_of(gateway)
    picture = tmp_path / "dot.png"
    picture.write_bytes(base64.b64decode(DOT))
    notes = tmp_path / "notes.txt"
    notes.write_text("remember the milk")

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.find("#files").send_keys(f"{picture}\n{notes}")
        page.wait(lambda: len(page.texts("#tray li")) == 2, "both in the tray")
        page.say("two things")
        page.wait(lambda: len(page.answers()) == 1, "the answer")
        page.wait_idle()
        assert not page.is_shown("#tray")
        for _ in range(2):
            assert page.run("return document.querySelector('.item.user img').naturalWidth") == 1
            assert page.texts(".item.user .file") == ["notes.txt"]
            page.driver.refresh()
            page.wait(lambda: len(page.answers()) == 1, "the history after a reload")

    await browse(story)


async def test_new_session_begins_afresh(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say("old words")
        page.wait_answers(["old words"])
        page.find("#new").click()
        page.wait_shown("#welcome")
        page.say("new words")
        page.wait_answers(["new words"])

    await browse(story)


async def test_the_keyboard_alone_is_enough(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.wait(lambda: page.run("return document.activeElement.id") == "draft", "the focus in the box")
        page.type("typed words")
        page.find("#draft").send_keys("\ue007")
        page.wait_answers(["typed words"])
        page.type("!hang")
        page.find("#draft").send_keys("\ue007")
        page.wait_shown("#stop")
        page.find("#draft").send_keys("\ue00c")
        page.wait_shown(".item.aborted")
        page.type("/hel")
        page.wait_shown("#commands")
        page.find("#draft").send_keys("\ue004")
        assert page.find("#draft").get_property("value") == "/help "

    await browse(story)


@pytest.mark.requires("xllamacpp")
@pytest.mark.timeout(180)
async def test_the_local_model_names_the_capital_of_france(start_gateway: StartGateway, browse: Browse) -> None:
    gateway = await start_gateway({"models": {"providers": {"echo": None, "local": {}}}})
    link = await link_of(gateway)

    def story(page: ChatPage) -> None:
        page.open(link)
        page.wait_connected()
        page.say("What is the capital of France?")
        page.wait(lambda: any("Paris" in text for text in page.answers()), "an answer that names Paris", seconds=90)
        page.wait_idle(seconds=90)
        assert page.console() == []
        page.wait(lambda: "Paris" in page.texts(".session[aria-current] small")[0], "the answer in the list of sessions")
        if os.environ.get("OPENCLAW_UPDATE_SCREENSHOTS") == "1":
            page.screenshot(SCREENSHOT)

    await browse(story)
