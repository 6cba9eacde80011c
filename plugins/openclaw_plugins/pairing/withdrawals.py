"""What was taken away, in a file beside the database, which wins over it: an older copy of the database gives nothing back.

Everything given and everything withdrawn has a generation, a number that only grows. What the database holds with a generation below
the one of its withdrawal is dead, whatever the database says of it. The file is on disk before a withdrawal is answered, and is
replaced as a whole. It keeps the newest `MOST` devices; a database older than what it has forgotten is believed in nothing.

What is put back together with the database, as with a copy of the whole state folder, is not known here to be old.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api import ConfigRejected, Unavailable
from openclaw_plugins.pairing.records import Device, Role

FILE_NAME: Final = "withdrawn.json"
MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Of one device: since which generation, and at what time, it is removed, and by role revoked; by role, the oldest good tokens."""

    removed: tuple[int, int] | None = None
    revoked: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """The generation of the last withdrawal."""
        numbers = [number for number, _ in self.revoked.values()]
        return max([*numbers, *self.tokens.values(), 0 if self.removed is None else self.removed[0]])


class Withdrawals:
    """The file. `generation` is the highest that any withdrawal had, `forgotten` the highest of those that are no longer kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.generation = 0
        self.forgotten = 0
        self.devices: dict[str, Withdrawn] = {}
        self.was_missing = False

    async def load(self) -> None:
        """Read the file; raise `ConfigRejected` where it is there and cannot be read: nobody may be let in by guess."""
        try:
            text = await asyncio.to_thread(self._path.read_text, "utf-8")
            found = json.loads(text)
            self.generation, self.forgotten = int(found["generation"]), int(found["forgotten"])
            self.devices = {device_id: _read(row) for device_id, row in found["devices"].items()}
        except FileNotFoundError:
            self.was_missing = True
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            cure = "put the file back; or delete it, and remove the devices that must not come back"
            raise ConfigRejected(str(self._path), f"cannot be read ({type(error).__name__}), so no device is let in", cure) from error

    async def remove(self, device_id: str, generation: int, now_ms: int) -> None:
        """Withdraw a device with all its roles."""
        await self._change(device_id, generation, lambda _: Withdrawn(removed=(generation, now_ms)))

    async def revoke(self, device_id: str, role: str, generation: int, now_ms: int) -> None:
        """Withdraw a role with all its tokens."""
        await self._change(device_id, generation, lambda held: replace(held, revoked={**held.revoked, role: (generation, now_ms)}))

    async def retire(self, device_id: str, role: str, generation: int) -> None:
        """Withdraw the tokens of a role that are older than this generation."""
        await self._change(device_id, generation, lambda held: replace(held, tokens={**held.tokens, role: generation}))

    async def note(self, generation: int) -> None:
        """Note that something was used up: a database that does not know of it is older."""
        await self._write(max(self.generation, generation), self.forgotten, self.devices)

    async def rebuild(self, devices: Mapping[str, Withdrawn], generation: int) -> None:
        """Write the file anew."""
        await self._write(max(self.generation, generation), self.forgotten, dict(devices))

    async def _change(self, device_id: str, generation: int, change: Callable[[Withdrawn], Withdrawn]) -> None:
        devices = {**self.devices, device_id: change(self.devices.get(device_id, Withdrawn()))}
        forgotten = self.forgotten
        while len(devices) > MOST:
            oldest = min(devices, key=lambda name: devices[name].newest)
            forgotten = max(forgotten, devices.pop(oldest).newest)
        await self._write(max(self.generation, generation), forgotten, devices)

    async def _write(self, generation: int, forgotten: int, devices: dict[str, Withdrawn]) -> None:
        rows = {device_id: _row(held) for device_id, held in devices.items()}
        text = json.dumps({"version": 1, "generation": generation, "forgotten": forgotten, "devices": rows})
        try:
            await asyncio.to_thread(_replace, self._path, text)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Unavailable(f"{self._path}: cannot be written ({reason}); nothing was withdrawn; make room, then try again") from error
        self.generation, self.forgotten, self.devices = generation, forgotten, devices


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What of a database holds. `is_older`: it does not know of all withdrawals, so neither its requests nor its codes are believed."""

    devices: dict[str, Device]
    removed: set[str]
    changed: tuple[Device, ...]
    dropped: tuple[Device, ...]
    is_older: bool


def reconcile(devices: list[Device], removed: set[str], generation: int, withdrawn: Withdrawals) -> Reconciled:
    """Apply the withdrawals to what a database says."""
    kept: dict[str, Device] = {}
    changed, dropped = [], []
    is_forgotten = generation < withdrawn.forgotten
    for device in devices:
        held = withdrawn.devices.get(device.device_id, Withdrawn())
        if is_forgotten or (held.removed is not None and device.generation < held.removed[0]):
            dropped.append(device)
            continue
        roles = {name: _role(role, held.revoked.get(name), held.tokens.get(name, 0)) for name, role in device.roles.items()}
        kept[device.device_id] = device if roles == device.roles else replace(device, roles=roles)
        if roles != device.roles:
            changed.append(kept[device.device_id])
    gone = {device_id for device_id, held in withdrawn.devices.items() if held.removed is not None}
    gone |= removed | {device.device_id for device in dropped}
    return Reconciled(kept, gone - set(kept), tuple(changed), tuple(dropped), generation < withdrawn.generation)


def _role(role: Role, revoked: tuple[int, int] | None, oldest: int) -> Role:
    if revoked is not None and role.generation < revoked[0]:
        return replace(role, tokens=(), revoked_ms=role.revoked_ms or revoked[1])
    tokens = tuple(token for token in role.tokens if token.generation >= oldest)
    return role if tokens == role.tokens else replace(role, tokens=tokens)


def _read(row: Mapping[str, Any]) -> Withdrawn:
    removed = row.get("removed")
    return Withdrawn(
        removed=None if removed is None else (int(removed[0]), int(removed[1])),
        revoked={name: (int(number), int(time_ms)) for name, (number, time_ms) in row.get("revoked", {}).items()},
        tokens={name: int(number) for name, number in row.get("tokens", {}).items()},
    )


def _row(held: Withdrawn) -> dict[str, Any]:
    row = {"removed": held.removed, "revoked": dict(held.revoked), "tokens": dict(held.tokens)}
    return {key: value for key, value in row.items() if value}


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    # The name is on disk once its folder is.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
