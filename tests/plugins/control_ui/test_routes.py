"""The plugin over HTTP: files, the page at any address below the mount, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from openclaw_kernel.testing import RunningGateway, run_gateway

PAGE = '<!doctype html><html><head><script src="./assets/app.js"></script></head></html>'
SCRIPT = b"export const words = " + b"1;" * 100_000


def built(folder: Path) -> Path:
    """A small build: a page, a script that is packed twice, a picture."""
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    (folder / "assets" / "app.js").write_bytes(SCRIPT)
    (folder / "assets" / "app.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "assets" / "app.js.br").write_bytes(b"packed by brotli")
    (folder / "favicon.svg").write_text("<svg/>", encoding="utf-8")
    (folder / "notes.md").write_text("nothing for a browser", encoding="utf-8")
    return folder


@asynccontextmanager
async def served(home: Path, *, root: Path | None = None, gateway: dict[str, Any] | None = None, **config: Any) -> AsyncIterator[Any]:
    """A gateway that serves the build, and a client that unpacks nothing."""
    root = built(home / "built") if root is None else root
    section = {"plugins": {"entries": {"control-ui": {"config": {"root": str(root), **config}}}}}
    if gateway is not None:
        section["gateway"] = gateway
    (home / "home").mkdir()
    async with run_gateway(home / "home", section) as running, aiohttp.ClientSession(auto_decompress=False) as http:
        yield running, http


async def get(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body; the address is sent as it is written."""
    async with http.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_the_page_is_at_the_mount_and_at_every_address_that_a_person_opens_below_it(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, http):
        status, headers, _ = await get(http, f"{gateway.url}/control-ui?session=main")
        assert (status, headers["Location"]) == (302, "/control-ui/?session=main")
        for path in ("", "index.html", "chat", "chat/main/garden", "config/models.providers"):
            status, headers, body = await get(http, f"{gateway.url}/control-ui/{path}", Accept="text/html,*/*")
            assert status == 200, path
            assert b'src="/control-ui/assets/app.js"' in body
            assert "connect-src 'self'" in headers["Content-Security-Policy"]
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["__openclaw__/workspace-icon/main", "assets/gone.js", "notes.md", "chat", "assets/app.js.gz", "assets/"])
async def test_a_program_that_asks_for_what_is_not_there_gets_no_page(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as (gateway, http):
        status, _, body = await get(http, f"{gateway.url}/control-ui/{path}", Accept="*/*")
        assert (status, body) == (404, b"not found\n")


async def test_files_come_with_their_type_and_packed_for_those_who_read_that(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, http):
        url = f"{gateway.url}/control-ui/assets/app.js"
        for accepted, encoding, expected in (
            ("gzip, deflate, br", "br", b"packed by brotli"),
            ("gzip", "gzip", gzip.compress(SCRIPT)),
            ("br;q=0, gzip;q=0.5", "gzip", gzip.compress(SCRIPT)),
            ("identity", None, SCRIPT),
            ("zstd", None, SCRIPT),
        ):
            status, headers, body = await get(http, url, **{"Accept-Encoding": accepted})
            assert (status, headers.get("Content-Encoding"), headers["Vary"]) == (200, encoding, "Accept-Encoding")
            assert len(body) == int(headers["Content-Length"]) == len(expected)
            assert headers["Content-Type"] == "text/javascript; charset=utf-8"
        status, headers, _ = await get(http, f"{gateway.url}/control-ui/favicon.svg")
        assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
        # A picture that is opened by itself runs nothing.
        assert "sandbox" in headers["Content-Security-Policy"]


async def test_what_a_browser_has_already_is_not_sent_again(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, http):
        for path in ("assets/app.js", ""):
            url = f"{gateway.url}/control-ui/{path}"
            _, headers, _ = await get(http, url)
            for tag in (headers["ETag"], f'"other", W/{headers["ETag"]}', "*"):
                status, again, body = await get(http, url, **{"If-None-Match": tag})
                assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
            assert (await get(http, url, **{"If-None-Match": '"other"'}))[0] == 200
        (tmp_path / "built" / "index.html").write_text(PAGE.replace("<head>", "<head><title>new</title>"), encoding="utf-8")
        assert b"<title>new</title>" in (await get(http, f"{gateway.url}/control-ui/"))[2]


async def test_head_tells_the_length_and_sends_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, http):
        for path in ("assets/app.js", ""):
            url = f"{gateway.url}/control-ui/{path}"
            _, _, body = await get(http, url, **{"Accept-Encoding": "identity"})
            async with http.head(url, headers={"Accept-Encoding": "identity"}) as answer:
                assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(body)))
                assert await answer.read() == b""


@pytest.mark.parametrize(
    "path",
    [
        "../openclaw.yaml",
        "..%2fhome%2fopenclaw.yaml",
        "%2e%2e/%2e%2e/home/openclaw.yaml",
        "assets/..%2f..%2f..%2fhome%2fopenclaw.yaml.txt",
        "..%5chome%5copenclaw.yaml.txt",
        "%2fetc%2fpasswd.txt",
        "//etc/hosts.txt",
        "assets/app.js%00.txt",
        "%ff%fe.txt",
        "link.txt",
        "folder/openclaw.yaml.txt",
    ],
)
async def test_no_address_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    """S15."""
    root = built(tmp_path / "built")
    async with served(tmp_path, root=root) as (gateway, http):
        (tmp_path / "home" / "openclaw.yaml.txt").write_bytes((tmp_path / "home" / "openclaw.yaml").read_bytes())
        (root / "link.txt").symlink_to(tmp_path / "home" / "openclaw.yaml")
        (root / "folder").symlink_to(tmp_path / "home")
        status, _, body = await get(http, f"{gateway.url}/control-ui/{path}", Accept="*/*")
        assert status in {400, 404}
        assert b"gateway" not in body


async def test_other_methods_are_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as (gateway, http):
        for method in ("POST", "PUT", "DELETE"):
            async with http.request(method, f"{gateway.url}/control-ui/assets/app.js") as answer:
                assert answer.status == 405


async def test_the_mount_can_be_another_and_lies_below_the_base_path(tmp_path: Path) -> None:
    async with served(tmp_path, path="/ui", gateway={"controlUi": {"basePath": "/kernel"}}) as (gateway, http):
        _, _, body = await get(http, f"{gateway.url}/ui/")
        assert b'data-openclaw-control-ui-base-path="/kernel/ui"' in body
        status, _, body = await get(http, f"{gateway.url}/ui/control-ui-config.json")
        assert status == 200
        assert b'"basePath": "/kernel/ui"' in body
        assert (await get(http, f"{gateway.url}/control-ui/"))[0] == 404


async def test_nothing_is_served_unless_a_folder_is_named(tmp_path: Path) -> None:
    async with run_gateway(tmp_path) as gateway, aiohttp.ClientSession() as http:
        for path in ("control-ui", "control-ui/", "control-ui/control-ui-config.json"):
            assert (await get(http, f"{gateway.url}/{path}", Accept="text/html"))[0] == 404
        assert await state(gateway) == ("started", None)


async def test_a_folder_without_a_page_is_named_and_found_when_it_is_built(tmp_path: Path) -> None:
    root = tmp_path / "later"
    async with served(tmp_path, root=root) as (gateway, http):
        found, reason = await state(gateway)
        assert found != "started"
        assert reason is not None
        assert f"plugins.entries.control-ui.config.root: no index.html in {root}" in reason
        assert (await get(http, f"{gateway.url}/control-ui/", Accept="text/html"))[0] == 404
        built(root)
        await until(lambda: state(gateway), lambda found: found[0] == "started")
        assert (await get(http, f"{gateway.url}/control-ui/"))[0] == 200


async def test_readers_that_go_away_leave_no_file_open(tmp_path: Path) -> None:
    root = built(tmp_path / "built")
    (root / "assets" / "large.js").write_bytes(b"x" * (32 << 20))
    async with served(tmp_path, root=root) as (gateway, http):
        for _ in range(10):
            async with http.get(f"{gateway.url}/control-ui/assets/large.js") as answer:
                await answer.content.read(10)
                answer.close()
        await until(open_files, lambda links: not any("large.js" in link for link in links))
        assert (await get(http, f"{gateway.url}/control-ui/"))[0] == 200


async def until(look: Callable[[], Awaitable[Any]], is_so: Callable[[Any], bool]) -> None:
    """Wait for what tells nobody that it has happened."""
    async with asyncio.timeout(10):
        while not is_so(await look()):  # noqa: ASYNC110 - neither side has an event
            await asyncio.sleep(0.02)


async def open_files() -> list[str]:
    """Where this process's descriptors lead."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(link.readlink()))
    return found


async def state(gateway: RunningGateway) -> tuple[str, str | None]:
    """The plugin's state and its reason."""
    plugins = (await gateway.call("status"))["plugins"]
    (row,) = [plugin for plugin in plugins if plugin["id"] == "control-ui"]
    return row["state"], row["reason"]
