"""An isolated Python plugin: speaks the contract on behalf of a plugin that knows nothing of it.

Run as `python -I -m openclaw_kernel.children.runner` by the gateway. The plugin is loaded by the host's own loader, so that what it may
register, and how its faults read, are the same as in the gateway; what it needs of the gateway goes over the pipe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

from openclaw_config.models import Config
from openclaw_kernel.api.conversations import Ingress
from openclaw_kernel.api.services import Commands, PluginState, PluginStatus
from openclaw_kernel.api.store import KeyValue
from openclaw_kernel.children.errors import Code, ContractBroken, RpcError
from openclaw_kernel.children.exchange import Exchange
from openclaw_kernel.children.far import FarCommands, FarIngress, FarKeyValue, FarStore
from openclaw_kernel.children.peer import CHUNK_BYTES, Bounds, Handler, Notice, Params, Peer
from openclaw_kernel.children.serving import Serving, registered_by
from openclaw_kernel.children.wire import PROTOCOL, to_wire
from openclaw_kernel.host.context import HostedContext, Snapshot
from openclaw_kernel.host.discovery import Found
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.loading import Loader
from openclaw_kernel.host.manager import PluginManager
from openclaw_kernel.host.manifest import Manifest
from openclaw_kernel.host.registry import KERNEL, Owned, Registry, Unclassified
from openclaw_kernel.host.sections import Share
from openclaw_kernel.host.state import Standing
from openclaw_kernel.tasks import run_whole

logger: Final = logging.getLogger(__name__)

_SERVED: Final = ("start", "stop", "drain", "channel.start", "channel.stop", "channel.send", "tool.run", "command.run")
_SEVERITY: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class Runner:
    """The plugin of this process, from `initialize` to its end."""

    def __init__(self) -> None:
        self.peer: Peer
        self._serving: Serving | None = None

    @property
    def handlers(self) -> dict[str, Handler]:
        """The requests of the gateway."""
        first: dict[str, Handler] = {"initialize": self._initialize, "register": self._register, "ping": self._ping}
        return first | {name: self._serve(name) for name in _SERVED}

    def progress(self, params: Params) -> None:
        """The notification `channel.progress`."""
        if self._serving is not None:
            self._serving.progress(params)

    async def close(self) -> None:
        """Cancel what the plugin has running."""
        if self._serving is not None:
            await self._serving.close()

    @property
    def _loaded(self) -> Serving:
        if self._serving is None:
            raise RpcError(Code.INVALID_REQUEST, "initialize has to come first")
        return self._serving

    def _serve(self, name: str) -> Handler:
        async def serve(params: Params) -> Any:
            return await self._loaded.answer(name, params)

        return serve

    async def _ping(self, _: Params) -> dict[str, Any]:
        return {}

    async def _register(self, _: Params) -> dict[str, Any]:
        return to_wire(registered_by(self._loaded.registry))

    async def _initialize(self, params: Params) -> dict[str, Any]:
        python = params["python"]
        logging.getLogger().setLevel(str(python["logLevel"]).upper())
        # The plugin is where it is for the gateway.
        sys.path[:] = [*python["path"], *(entry for entry in sys.path if entry not in python["path"])]
        found = Found(
            id=params["plugin"],
            kind=python["kind"],
            distribution=python["distribution"],
            version=python["version"],
            bundled=False,
            entry_point=EntryPoint(*python["entryPoint"]),
            manifest=Manifest.model_validate(python["manifest"]),
            state="discovered",
        )
        self._serving = await self._load(found, params)
        return {"protocol": PROTOCOL, "name": found.distribution, "version": found.version}

    async def _load(self, found: Found, params: Params) -> Serving:
        guard, registry, exchange = Guard(), Registry(), Exchange(Path(params["exchangeFolder"]))
        manager = PluginManager(guard, _report)
        timeout = float(params["python"]["callTimeoutSeconds"])
        standing = Standing(found, self._tell, _now_ms)
        commands = FarCommands(self.peer)
        registry.services[Ingress] = Owned(KERNEL, FarIngress(self.peer, exchange))
        registry.services[Commands] = Owned(KERNEL, commands)
        loader = _FarLoader(
            registry=registry,
            manager=manager,
            guard=guard,
            config=_config_of(found, params["settings"], timeout),
            home=Path(params["stateFolder"]),
            store=FarStore(),
            now_ms=_now_ms,
        )
        loader.far_storage = FarKeyValue(self.peer)
        try:
            loaded = await loader.load([(standing, Share(section=params["settings"]))])
        except Unclassified as error:
            raise RpcError(Code.INTERNAL, str(error)) from error
        if found.id not in loaded:
            raise RpcError(Code.INTERNAL, standing.reason or "could not be loaded")
        _refuse_what_stays(registry, manager)
        standing.become(PluginState.STARTED)
        return Serving(
            peer=self.peer,
            registry=registry,
            guard=guard,
            context=loaded[found.id].context,
            exchange=exchange,
            commands=commands,
            timeout=timeout,
        )

    def _tell(self, status: PluginStatus) -> None:
        if status.state in {PluginState.STARTED, PluginState.DEGRADED}:
            self.peer.notify("degrade", {"reason": status.reason})


class _FarContext(HostedContext):
    """The gateway as an isolated plugin sees it: its folder is its own, its values are in the gateway."""

    far_storage: KeyValue

    @property
    def state_dir(self) -> Path:
        """The folder of this process."""
        return self.home

    @property
    def storage(self) -> KeyValue:
        """Small durable values of this plugin."""
        return self.far_storage


class _FarLoader(Loader):
    context_class = _FarContext
    far_storage: KeyValue

    def _context(self, standing: Standing, snapshot: Snapshot) -> HostedContext:
        context = super()._context(standing, snapshot)
        if isinstance(context, _FarContext):
            context.far_storage = self.far_storage
        return context


def _config_of(found: Found, section: dict[str, Any], timeout: float) -> Config:
    """Return a config that holds the plugin's own part alone: the rest is none of this process's business."""
    plugins: dict[str, Any] = {"callTimeoutSeconds": timeout}
    if found.kind == "channel":
        return Config.model_validate({"channels": {found.id: section}, "plugins": plugins})
    return Config.model_validate({"plugins": {**plugins, "entries": {found.id: {"config": section}}}})


def _refuse_what_stays(registry: Registry, manager: PluginManager) -> None:
    """Raise `RpcError` where the plugin registered what only works inside the gateway."""
    provided = [kind.__name__ for kind, owned in registry.services.items() if owned.plugin_id != KERNEL]
    kept = {
        "RPC methods": registry.methods,
        "events": registry.events,
        "HTTP routes": registry.routes,
        "model providers": registry.providers,
        "authenticators": registry.authenticators,
        "tables": [each for each in registry.migrations().values() if each],
        f"services for other plugins ({', '.join(provided)})": provided,
        "decisions on messages": [name for name in ("openclaw_decide_route", "openclaw_decide_admission") if manager.implements(name)],
    }
    found = [name for name, items in kept.items() if items]
    if found:
        raise RpcError(Code.INTERNAL, f"has {' and '.join(found)}, which work inside the gateway only; set isolation: inproc")


def _report(fault: PluginFault) -> None:
    logger.warning("%s", fault, exc_info=fault.error)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _ForTheGateway(logging.Formatter):
    """Marks each line with its severity, as the journal reads it."""

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_SEVERITY.get(record.levelname, 6)}>"
        return "\n".join(mark + line for line in super().format(record).splitlines())


async def run(readable: int, writable: int) -> None:
    """Serve until the gateway closes its end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(readable, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(writable, "wb", 0))
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    runner = Runner()
    theirs = Bounds()
    # It asks no more than the gateway answers at a time, and answers all that the gateway asks, however slow the plugin is.
    bounds = Bounds(asked=theirs.handled, handled=2 * theirs.asked)
    notices: dict[str, Notice] = {"channel.progress": runner.progress}
    runner.peer = Peer(reader, writer, name="gateway", handlers=runner.handlers, notices=notices, bounds=bounds)
    try:
        await runner.peer.serve()
    except ContractBroken as error:
        logger.error("the gateway %s", error)  # noqa: TRY400 - its text says all
    await runner.close()
    await runner.peer.close("the gateway closed its end")


def main() -> None:
    """Keep the pipes for the contract, whatever the plugin prints or reads."""
    readable, writable = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    handler = logging.StreamHandler()
    handler.setFormatter(_ForTheGateway("%(name)s: %(message)s"))
    logging.root.addHandler(handler)
    run_whole(run(readable, writable))


if __name__ == "__main__":
    main()
