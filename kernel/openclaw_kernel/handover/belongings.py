"""What passes from one process of the gateway to the next over `exec`: descriptors that stay open, named in one variable.

Ownership of the state folder and of the port lives in the descriptors, so that there is no moment in which nobody has them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from openclaw_kernel.handover.sockets import BadSocket, HeldSocket, Opener, from_manager, listening_socket

logger: Final = logging.getLogger("openclaw.gateway")

VARIABLE: Final = "OPENCLAW_KERNEL_HANDOVER"
_STANDARD_ERROR: Final = 2
# A folder of the process's own descriptors, on Linux and on macOS.
_DESCRIPTORS: Final = "/dev/fd"
_MOST_DESCRIPTORS: Final = 4096


@dataclass(slots=True, kw_only=True)
class Belongings:
    """The lock's descriptor and the listening sockets. Who holds them closes them, or passes them on."""

    lock: int | None = None
    """An open description of the state folder that carries the flock."""
    sockets: Sequence[HeldSocket] = field(default_factory=list)
    paused_at: float | None = None
    """When the process before stopped to accept, by the machine's monotonic clock; None where there was none."""

    def close(self) -> None:
        """Give all of it up."""
        for held in self.sockets:
            held.socket.close()
        if self.lock is not None:
            os.close(self.lock)
        self.sockets, self.lock = [], None

    def duplicate(self) -> Belongings:
        """The same sockets once more, for a second try where the first closes its own; the lock is taken anew."""
        sockets = [replace(held, socket=held.socket.dup(), spares=[]) for held in self.sockets]
        for held, spare in zip(self.sockets, sockets, strict=True):
            held.spares.append(spare.socket)
        return Belongings(sockets=sockets, paused_at=self.paused_at)

    def drop_closed(self) -> None:
        """Forget the sockets that were given up meanwhile."""
        self.sockets = [held for held in self.sockets if held.socket.fileno() >= 0]

    def to_environment(self) -> dict[str, str]:
        """Keep these descriptors, and no others but the standard ones, open over `exec`.

        Returns:
            The variable that names them to the same process after it.
        """
        close_others_on_exec()
        sockets = []
        for held in self.sockets:
            held.socket.set_inheritable(True)
            sockets.append(
                {"fd": held.socket.fileno(), "opener": held.opener.value, "name": held.name, "bind": held.bind, "port": held.port}
            )
        if self.lock is not None:
            os.set_inheritable(self.lock, True)  # noqa: FBT003 - the standard library's signature
        return {VARIABLE: json.dumps({"pid": os.getpid(), "lock": self.lock, "pausedAt": self.paused_at, "sockets": sockets})}

    def keep_from_children(self) -> None:
        """Undo what `to_environment` did to the descriptors, where there was no `exec`."""
        for held in self.sockets:
            held.socket.set_inheritable(False)
        if self.lock is not None:
            os.set_inheritable(self.lock, False)  # noqa: FBT003 - the standard library's signature


def close_others_on_exec() -> None:
    """Let no descriptor but the standard ones outlive an `exec`, whoever opened it.

    Libraries open some that would: watchdog's inotify instance is one, and the machine has few of those.
    """
    for descriptor in _open_descriptors():
        if descriptor > _STANDARD_ERROR:
            # It may be closed by now, as the one that listed them is.
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)  # noqa: FBT003 - the standard library's signature


def _open_descriptors() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir(_DESCRIPTORS)]  # noqa: PTH208 - numbers are wanted, not paths
    except OSError:
        # No such folder here, or no descriptor left to read it.
        return range(_MOST_DESCRIPTORS)


def receive(environment: MutableMapping[str, str]) -> Belongings:
    """Take what the process before or the service manager passed, and its variables out of the environment.

    What the process before left and cannot be used is logged and done without: a gateway that opens its port anew is better than none.

    Raises:
        BadSocket: the service manager passed what is no listening TCP socket.
    """
    text = environment.pop(VARIABLE, None)
    left = None if text is None else _left_by_before(text)
    return Belongings(sockets=from_manager(environment)) if left is None else left


def _left_by_before(text: str) -> Belongings | None:
    sockets: list[HeldSocket] = []
    try:
        said: dict[str, Any] = json.loads(text)
        if said["pid"] != os.getpid():
            # A program that the gateway started inherited the variable, if anything ever lets it: the descriptors are not its own.
            return None
        lock, paused_at = said["lock"], float(said["pausedAt"])
        sockets += map(_received, said["sockets"])
    except (KeyError, TypeError, ValueError, BadSocket) as error:
        logger.warning("what the process before left cannot be used (%s); the port is opened anew", error)
        Belongings(sockets=sockets).close()
        return None
    if lock is not None:
        try:
            os.set_inheritable(lock, False)  # noqa: FBT003 - the standard library's signature
        except (OSError, TypeError) as error:
            logger.warning("the lock that the process before left cannot be used (%s); it is taken anew", error)
            lock = None
    return Belongings(lock=lock, sockets=sockets, paused_at=paused_at)


def _received(said: dict[str, Any]) -> HeldSocket:
    found = listening_socket(int(said["fd"]), f"{VARIABLE}: descriptor {said['fd']}")
    return HeldSocket(socket=found, opener=Opener(said["opener"]), name=str(said["name"]), bind=str(said["bind"]), port=int(said["port"]))
