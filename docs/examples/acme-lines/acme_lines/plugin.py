"""A chat channel over TCP. The first line of a connection is the person's name, each further one a message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from openclaw_kernel.api import (
    AccountStatus,
    ChannelCapabilities,
    InboundMessage,
    Ingress,
    NotReady,
    OutboundMessage,
    PluginContext,
    Progress,
    Receipt,
    Registrar,
    SendFailed,
    Target,
    hookimpl,
)


class LinesSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    port: int = Field(default=7777, ge=0, le=65535)
    """TCP port on 127.0.0.1; 0 lets the system choose."""
    allow_from: list[str] = Field(default=[], alias="allowFrom")
    """Names that may start a turn; read by the bundled plugin `admission`."""


class LinesChannel:
    id = "lines"
    label = "Lines"
    capabilities = ChannelCapabilities()

    def __init__(self, context: PluginContext, settings: LinesSettings) -> None:
        self._context = context
        self._settings = settings
        self._server: asyncio.Server | None = None
        self._people: dict[str, asyncio.StreamWriter] = {}
        self._received = 0
        self.port = settings.port

    async def start(self) -> None:
        try:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._settings.port)
        except OSError as error:
            # Tried again with back-off; the plugin is `degraded` with this reason meanwhile.
            raise NotReady(f"channels.lines.port: {self._settings.port}: {error.strerror}; free the port") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._people.values():
            writer.close()
        self._people.clear()

    async def send(self, message: OutboundMessage) -> Receipt:
        writer = self._people.get(message.target.peer_id)
        if writer is None:
            raise SendFailed(f"{message.target.peer_id} is not connected")
        writer.write(message.text.replace("\n", " ").encode() + b"\n")
        await writer.drain()
        return Receipt(message_ids=(message.outbox_id,))

    async def show_progress(self, progress: Progress) -> None:
        """Never called: the capability is not there."""

    def status(self) -> Sequence[AccountStatus]:
        running = self._server is not None
        return [AccountStatus(account_id="default", running=running, connected=running, detail=f"port {self.port}")]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = (await reader.readline()).decode().strip()
        self._people[name] = writer
        # `conversation` keeps every message durably; asked for here, not in the constructor, where it may not exist yet.
        ingress = self._context.service(Ingress)
        try:
            while line := await reader.readline():
                self._received += 1
                await ingress.accept(self._message(name, line.decode().strip()))
        finally:
            self._people.pop(name, None)
            writer.close()

    def _message(self, name: str, text: str) -> InboundMessage:
        return InboundMessage(
            target=Target(channel=self.id, account_id="default", peer_kind="direct", peer_id=name),
            message_id=f"{self._context.now_ms()}-{self._received}",
            sender_id=name,
            text=text,
            timestamp_ms=self._context.now_ms(),
            mentioned=True,
        )


class LinesPlugin:
    settings: ClassVar[type[BaseModel] | None] = LinesSettings

    def __init__(self, context: PluginContext) -> None:
        self._channel = LinesChannel(context, context.settings(LinesSettings))

    @hookimpl
    def openclaw_register_channels(self, registrar: Registrar) -> None:
        registrar.add_channel(self._channel)
