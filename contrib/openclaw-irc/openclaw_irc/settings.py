"""Settings of `channels.irc`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from openclaw_kernel.api import Secret

Room = Annotated[str, Field(pattern=r"^[#&+!][^\s,\x07]{0,63}$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class RoomSettings(Model):
    require_mention: bool = True
    """Answer only when the nick is mentioned."""
    allow_from: list[str] | None = None
    """Sender ids heard in this room; unset means `groupAllowFrom`."""


class IrcSettings(Model):
    enabled: bool = True
    """Whether the channel runs."""
    server: Annotated[str, Field(min_length=1)]
    """Host name of the IRC server."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """TCP port; unset means 6697 with TLS, else 6667."""
    tls: bool = True
    """Encrypt the connection."""
    nick: Annotated[str, Field(pattern=r"^[A-Za-z\[\]\\`_^{|}][A-Za-z0-9\[\]\\`_^{|}-]{0,29}$")] = "openclaw"
    """The agent's nick; while it is taken, the same with underscores or a number."""
    password: Secret | None = None
    """Server password, where one is needed."""
    rooms: list[Room] = []
    """Rooms to join."""
    dm_policy: Literal["pairing", "allowlist", "open", "disabled"] = "pairing"
    """Who may write in private."""
    allow_from: list[str] = []
    """Sender ids that may write in private: `account:NAME`, else `nick!user@host`; `*` with dmPolicy open."""
    group_policy: Literal["open", "allowlist", "disabled"] = "allowlist"
    """In which rooms the agent answers."""
    group_allow_from: list[str] | None = None
    """Sender ids heard in rooms; unset means `allowFrom`."""
    groups: dict[str, RoomSettings] = {}
    """Rooms by name, lower case."""
    messages_per_second: Annotated[float, Field(ge=0.1, le=20)] = 1.0
    """Pace of outgoing lines; servers throw out who is faster."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return self.server, self.port or (6697 if self.tls else 6667)
