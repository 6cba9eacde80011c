"""A web server that answers by path and remembers every request it saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Server:
    """Listens on one loopback address; `answers` are whole responses by path."""

    host: str
    port: int = 0
    answers: Mapping[str, bytes] = field(default_factory=dict)
    connections: int = 0
    requests: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, path: str = "/") -> str:
        return f"http://{self.place}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            answer = self.answers.get(head.split(" ")[1])
            if answer is None:
                # A server that has nothing to say, until the other end goes away.
                await reader.read()
                return
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def serve(answers: Mapping[str, bytes] | None = None, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server(host, answers=answers or {})
    listening = await asyncio.start_server(server.answer, host, 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def response(body: bytes | str = b"", *, status: str = "200 OK", **headers: str) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    fields = {"content_length": str(len(raw)), **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def redirect(target: str, status: str = "302 Found") -> bytes:
    return response(status=status, location=target)
