"""Listening sockets that somebody else opened: the service manager (`LISTEN_FDS`), or the process before this one."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_Socket = socket.socket
"""By a name that the field `socket` does not hide."""

FIRST_DESCRIPTOR: Final = 3
"""Where a service manager begins to number what it passes."""
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_FAMILIES: Final = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


class BadSocket(Exception):
    """A descriptor that was passed cannot be served; the message is one line with the cure."""


class Opener(StrEnum):
    """Who opened a socket, and therefore who decides where it listens."""

    CONFIG = "config"
    """A gateway, as its configuration said."""
    MANAGER = "manager"
    """The service manager, as its socket unit says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSocket:
    """One listening socket. Who holds it closes it."""

    socket: socket.socket
    opener: Opener
    name: str = ""
    """What the socket unit calls it."""
    bind: str = ""
    """The `gateway.bind` it was opened for; empty where the manager opened it."""
    port: int = 0
    """The `gateway.port` it was opened for, which may have been 0."""
    spares: list[_Socket] = field(default_factory=list, compare=False)
    """Further descriptors of it, which somebody else holds."""

    def give_up(self) -> None:
        """Close it for everybody, so that its address is free."""
        for each in (self.socket, *self.spares):
            each.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it is bound to."""
        host, port = self.socket.getsockname()[:2]
        return str(host), int(port)

    @property
    def shown(self) -> str:
        """The address as people write it."""
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def reached_at(self) -> str:
        """Where a program of this machine reaches it, as it stands in a URL."""
        host, port = self.address
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - recognised, not bound
        if host == "::" and not self.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return f"127.0.0.1:{port}"
        return f"{everywhere[host]}:{port}" if host in everywhere else self.shown


def from_manager(environment: MutableMapping[str, str]) -> list[HeldSocket]:
    """Take what a service manager passed to this process, and its variables out of the environment; empty where it passed nothing.

    Raises:
        BadSocket: a descriptor is no listening TCP socket.
    """
    pid, count, names = (environment.pop(name, "") for name in _VARIABLES)
    if not count or pid != str(os.getpid()):
        # Meant for another process: somebody between the manager and us did not know of it.
        return []
    if re.fullmatch(r"[0-9]{1,4}", count) is None:
        raise BadSocket(f"LISTEN_FDS: found {count[:64]!r}; the service manager has to say how many sockets it passes")
    called = names.split(":") if names else []
    descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))
    # All are kept from programs that are started later, also where one of them is refused.
    for descriptor in descriptors:
        _keep_from_children(descriptor)
    return [
        HeldSocket(
            socket=listening_socket(descriptor, f"LISTEN_FDS: descriptor {descriptor}"),
            opener=Opener.MANAGER,
            name=called[number] if number < len(called) else "",
        )
        for number, descriptor in enumerate(descriptors)
    ]


def listening_socket(descriptor: int, place: str) -> socket.socket:
    """The descriptor as a socket of ours; raise `BadSocket`, with the descriptor left as it is, where it is no listening TCP socket."""
    cure = "pass one that ListenStream= opened with an address and a port, with Accept=no"
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError as error:
        raise BadSocket(f"{place}: found nothing open there; {cure}") from error
    if not stat.S_ISSOCK(mode):
        raise BadSocket(f"{place}: found no socket; {cure}")
    found = socket.socket(fileno=descriptor)
    wrong = _wrong_with(found)
    if wrong is not None:
        found.detach()
        raise BadSocket(f"{place}: found {wrong}; {cure}")
    found.set_inheritable(False)
    found.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return found


def _wrong_with(found: socket.socket) -> str | None:
    if found.family not in _FAMILIES:
        name = "a UNIX socket" if found.family == socket.AF_UNIX else f"a socket of the family {int(found.family)}"
        return f"{name}, and the gateway serves TCP"
    if found.type != socket.SOCK_STREAM:
        return "a socket that carries no streams"
    if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "a socket that does not listen"
    return None


def _keep_from_children(descriptor: int) -> None:
    try:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the standard library's signature
    except OSError:
        # Not open: told with its number when it is looked at.
        return
