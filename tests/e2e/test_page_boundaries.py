"""S1: the chat page talks to its own origin, whatever its address, its storage, a message or another window says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.browser import Browse, ChatPage
from tests.support.gateway import RunningGateway

pytestmark = pytest.mark.requires("chromium")

KEYS = ("gatewayUrl", "gateway", "url", "wsUrl", "server", "host", "token")
DEADLINE = 10.0


class Elsewhere:
    """A listener that nobody has a reason to talk to."""

    def __init__(self) -> None:
        self.visits = 0
        self.heard = b""
        self.visited = asyncio.Event()
        self.port = 0

    @property
    def ws(self) -> str:
        """Its address for a WebSocket."""
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def http(self) -> str:
        """Its address for anything else."""
        return f"http://127.0.0.1:{self.port}/"


@asynccontextmanager
async def listening() -> AsyncIterator[Elsewhere]:
    """Count the connections of one test."""
    elsewhere = Elsewhere()

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        elsewhere.visits += 1
        elsewhere.visited.set()
        elsewhere.heard += await reader.read(1)
        writer.close()

    server = await asyncio.start_server(visited, "127.0.0.1", 0)
    async with server:
        elsewhere.port = server.sockets[0].getsockname()[1]
        yield elsewhere


async def link_of(gateway: RunningGateway) -> str:
    """The link that the gateway printed when it was ready."""
    line = await gateway.wait_line(r'"event": *"ready"')
    return str(line.record["link"])


async def test_s1_no_address_but_its_own_is_ever_spoken_to(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)
    async with listening() as elsewhere:

        def story(page: ChatPage) -> None:
            page.open(link)
            page.wait_connected()
            query = "&".join(f"{key}={elsewhere.ws}" for key in KEYS)
            stored = "for (const key of arguments[1]) { localStorage[key] = arguments[0]; sessionStorage[key] = arguments[0]; }"
            page.run(stored, elsewhere.ws, KEYS)
            for where in (f"{gateway.url}/?{query}", f"{gateway.url}/?x=1#{query}"):
                page.open(where)
                page.wait_connected()
            posted = "for (const key of arguments[1]) postMessage({ [key]: arguments[0], type: key }, '*')"
            page.run(posted, elsewhere.ws, KEYS)
            told = f"![a picture]({elsewhere.http}a.png) [a link]({elsewhere.http}) <img src='{elsewhere.http}b.png'> {elsewhere.ws}"
            page.say(told)
            page.wait(lambda: len(page.answers()) == 1, "an answer")
            page.wait_idle()

        await browse(story)
        assert elsewhere.visits == 0
        # The listener does count.
        _, writer = await asyncio.open_connection("127.0.0.1", elsewhere.port)
        async with asyncio.timeout(DEADLINE):
            await elsewhere.visited.wait()
        writer.close()


SPEAK = """
const [address, how, done] = arguments;
document.addEventListener('securitypolicyviolation', (violation) => done(violation.effectiveDirective), { once: true });
if (how === 'socket') new WebSocket(address);
else if (how === 'fetch') fetch(address, { mode: 'no-cors' }).catch(() => {});
else if (how === 'beacon') navigator.sendBeacon(address, 'x');
else if (how === 'image') new Image().src = address;
else if (how === 'form') { const form = document.createElement('form'); form.action = address; document.body.append(form); form.submit(); }
else { const frame = document.createElement('iframe'); frame.src = address; document.body.append(frame); }
"""


async def test_s1_a_script_that_got_in_could_not_speak_to_anybody_else(gateway: RunningGateway, browse: Browse) -> None:
    link = await link_of(gateway)
    refused: dict[str, str] = {}
    async with listening() as elsewhere:

        def story(page: ChatPage) -> None:
            page.open(link)
            page.wait_connected()
            page.driver.set_script_timeout(DEADLINE)
            for how in ("socket", "fetch", "beacon", "image", "form", "frame"):
                address = elsewhere.ws if how == "socket" else elsewhere.http
                refused[how] = page.driver.execute_async_script(SPEAK, address, how)

        await browse(story)
        # Where it would navigate, the browser opens a connection ahead of its own decision, and says nothing on it.
        assert elsewhere.heard == b""
    assert refused == {
        "socket": "connect-src",
        "fetch": "connect-src",
        "beacon": "connect-src",
        "image": "img-src",
        "form": "form-action",
        "frame": "frame-src",
    }
