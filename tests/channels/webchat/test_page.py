"""The page's routes over HTTP: files as they are, and an exchange that strangers cannot make expensive."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import aiohttp
import pytest

from openclaw_kernel.testing import RunningGateway, run_gateway

STATIC = resources.files("openclaw_channels.webchat").joinpath("static")


@asynccontextmanager
async def page(home: Path) -> AsyncIterator[tuple[RunningGateway, aiohttp.ClientSession]]:
    """A gateway and an HTTP client that decompresses nothing."""
    async with run_gateway(home) as gateway, aiohttp.ClientSession(auto_decompress=False) as http:
        yield gateway, http


async def test_files_come_compressed_to_those_who_can_read_that(tmp_path: Path) -> None:
    import gzip

    async with page(tmp_path) as (gateway, http):
        for item in STATIC.iterdir():
            url = f"{gateway.url}/{item.name}"
            async with http.get(url, headers={"Accept-Encoding": "gzip, br"}) as answer:
                assert (answer.status, answer.headers["Content-Encoding"], answer.headers["Vary"]) == (200, "gzip", "Accept-Encoding")
                assert gzip.decompress(await answer.read()) == item.read_bytes()
            async with http.get(url, headers={"Accept-Encoding": "identity"}) as answer:
                assert "Content-Encoding" not in answer.headers
                assert await answer.read() == item.read_bytes()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"[" * 4000, "application/json", 400),
        (b'{"code": "\\ud800"}', "application/json", 401),
        (b"\xff\xfe\x00", "application/json", 400),
        (b'{"code": 5}', "application/json; charset=nonsense", 400),
        (b'{"code": ""}', "application/json", 400),
        (b'{"code": "' + b"x" * 300 + b'"}', "application/json", 400),
        (b'{"code": "' + b"x" * 5000 + b'"}', "application/json", 413),
        (b"code=x", "application/x-www-form-urlencoded", 415),
        (b'{"code": "x"}', "text/plain", 415),
    ],
)
async def test_no_body_of_a_stranger_is_a_fault_of_ours(
    tmp_path: Path, body: bytes, kind: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with page(tmp_path) as (gateway, http):
        headers = {"Content-Type": kind, "Origin": gateway.url}
        async with http.post(f"{gateway.url}/auth/exchange", data=body, headers=headers) as answer:
            assert answer.status == status
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("origin", ["http://[", "null", "http://127.0.0.1:1"])
async def test_no_origin_of_a_stranger_is_a_fault_of_ours(tmp_path: Path, origin: str, caplog: pytest.LogCaptureFixture) -> None:
    async with page(tmp_path) as (gateway, http):
        async with http.post(f"{gateway.url}/auth/exchange", json={"code": "x"}, headers={"Origin": origin}) as answer:
            assert answer.status == 403
        for path in ("/auth/session", "/readyz"):
            async with http.get(f"{gateway.url}{path}", headers={"Origin": origin, "Cookie": "openclaw_session=x"}) as answer:
                assert answer.status in {200, 401}
                assert "reasons" not in await answer.text()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_cookie_is_for_this_page_alone(tmp_path: Path) -> None:
    config = {"gateway": {"controlUi": {"basePath": "/kernel"}}}
    jar = aiohttp.CookieJar(unsafe=True)
    async with run_gateway(tmp_path, config) as gateway, aiohttp.ClientSession(cookie_jar=jar) as http:
        origin = gateway.url.removesuffix("/kernel")
        link = (await gateway.call("webchat.link"))["url"]
        assert link.startswith(f"{gateway.url}/#code=")
        code = link.partition("#code=")[2]
        async with http.post(f"{gateway.url}/auth/exchange", json={"code": code}, headers={"Origin": origin}) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path=/kernel/" in cookie
        async with http.get(f"{gateway.url}/auth/session") as answer:
            assert answer.status == 200


async def test_neither_code_nor_token_gets_into_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with page(tmp_path) as (gateway, http):
            code = (await gateway.call("webchat.link"))["url"].partition("#code=")[2]
            for _ in range(2):
                async with http.post(f"{gateway.url}/auth/exchange", json={"code": code}, headers={"Origin": gateway.url}):
                    pass
            token = gateway.token
    assert code not in caplog.text
    assert token not in caplog.text
