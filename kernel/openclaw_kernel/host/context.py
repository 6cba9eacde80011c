"""The gateway as one plugin sees it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from openclaw_config.models import Config
from openclaw_kernel.api.store import KeyValue, Store
from openclaw_kernel.host.guard import describe
from openclaw_kernel.host.registry import Registry
from openclaw_kernel.host.state import Standing
from openclaw_kernel.store.keyvalue import StoredKeyValue
from openclaw_kernel.tasks import TaskOwner

TASK_LIMIT: Final = 10_000
"""How many tasks one plugin may have at a time."""

ServiceT = TypeVar("ServiceT")
SettingsT = TypeVar("SettingsT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The configuration as one plugin sees it. `section` and `instances` are validated."""

    config: Config
    section: BaseModel | None = None
    instances: Mapping[str, BaseModel] = field(default_factory=dict)


class HostedContext:
    """Implements `openclaw_kernel.api.PluginContext` for one plugin."""

    def __init__(
        self,
        *,
        standing: Standing,
        snapshot: Snapshot,
        home: Path,
        store: Store,
        registry: Registry,
        now_ms: Callable[[], int],
    ) -> None:
        self._standing = standing
        self.snapshot = snapshot
        self._home = home
        self._store = store
        self._storage = StoredKeyValue(store, standing.found.id)
        self._registry = registry
        self._now_ms = now_ms
        self._logger = logging.getLogger(f"openclaw.plugin.{standing.found.id}")
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self.tasks = TaskOwner(standing.found.id, self._task_failed)

    @property
    def plugin_id(self) -> str:
        """The plugin's id."""
        return self._standing.found.id

    @property
    def config(self) -> Config:
        """The resolved configuration in force."""
        return self.snapshot.config

    @property
    def logger(self) -> logging.Logger:
        """A logger whose name is the plugin's."""
        return self._logger

    @property
    def home(self) -> Path:
        """The gateway's state folder."""
        return self._home

    @property
    def state_dir(self) -> Path:
        """A folder of this plugin alone, made on first use, 0700."""
        folder = self._home / "plugins" / self.plugin_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    @property
    def store(self) -> Store:
        """The durable store."""
        return self._store

    @property
    def storage(self) -> KeyValue:
        """Small durable values of this plugin."""
        return self._storage

    def settings(self, model: type[SettingsT]) -> SettingsT:
        """Return the validated section; raise `TypeError` where `model` is not `Plugin.settings`."""
        settings = self.snapshot.section
        if not isinstance(settings, model):
            raise TypeError(
                f"settings({model.__name__}): the section of {self.plugin_id!r} is a {type(settings).__name__};"
                " ask for the class named in the plugin's 'settings'"
            )
        return settings

    def instances(self, model: type[SettingsT]) -> Mapping[str, SettingsT]:
        """Return the validated entries of `models.providers` that are this plugin's, by id."""
        chosen: dict[str, SettingsT] = {}
        for identity, settings in self.snapshot.instances.items():
            if not isinstance(settings, model):
                raise TypeError(
                    f"instances({model.__name__}): the entries of {self.plugin_id!r} are {type(settings).__name__};"
                    " ask for the class named in the plugin's 'settings'"
                )
            chosen[identity] = settings
        return chosen

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """Return what provides this Protocol type; raise `LookupError`."""
        return self._registry.service(kind)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task owned by this plugin; raise `TypeError` for what is no coroutine, `RuntimeError` off the event loop."""
        if not inspect.iscoroutine(coroutine):
            raise TypeError(f"spawn {name!r}: found {type(coroutine).__name__}; give a coroutine")
        refusal = None
        if threading.get_ident() != self._loop_thread:
            refusal = "there is no event loop here; spawn in start, or later"
        elif len(self.tasks) >= TASK_LIMIT:
            refusal = f"plugin {self.plugin_id!r} has {TASK_LIMIT} tasks already; let some end first"
        if refusal is not None:
            # One that nobody awaits would warn.
            coroutine.close()
            raise RuntimeError(f"spawn {name!r}: {refusal}")
        return self.tasks.spawn(name, coroutine)

    def degrade(self, reason: str | None) -> None:
        """Report a fault the plugin copes with, None that it is over; from any thread."""
        if threading.get_ident() == self._loop_thread:
            self._standing.fault("plugin", reason)
        else:
            self._loop.call_soon_threadsafe(self._standing.fault, "plugin", reason)

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        return self._now_ms()

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._logger.error("task %s failed", name, exc_info=error)
        reason = f"task {name} failed: {describe(error)}; see the log, restart the gateway to start it again"
        self._standing.fault(f"task {name}", reason)
