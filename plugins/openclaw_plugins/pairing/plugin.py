"""The pairing plugin: the devices, and the methods on them."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import DevicePairing, PluginContext, Registrar, hookimpl
from openclaw_plugins.pairing import node_wire, wire
from openclaw_plugins.pairing.book import DeviceBook
from openclaw_plugins.pairing.decisions import Decisions
from openclaw_plugins.pairing.methods import DeviceMethods
from openclaw_plugins.pairing.node_methods import NodeMethods
from openclaw_plugins.pairing.nodes import NodeBook
from openclaw_plugins.pairing.roster import Roster
from openclaw_plugins.pairing.setup_methods import SetupMethods
from openclaw_plugins.pairing.setups import SetupDesk
from openclaw_plugins.pairing.tables import MIGRATIONS
from openclaw_plugins.pairing.upgrade_methods import UpgradeMethods


class _Unit:
    def __init__(self, context: PluginContext, book: DeviceBook) -> None:
        self._context = context
        self._book = book

    async def start(self) -> None:
        await self._book.load()
        self._context.spawn("expiry of requests", self._book.run_expiry())

    async def stop(self) -> None:
        self._book.close()


class PairingPlugin:
    """Makes one `DeviceBook` and registers what leads to it."""

    settings: ClassVar[None] = None

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._roster = Roster(context)
        self._setups = SetupDesk(context, self._roster)
        self._nodes = NodeBook(context, self._roster)
        self._book = DeviceBook(context, self._roster, self._setups, self._nodes)

    @hookimpl
    def openclaw_register_services(self, registrar: Registrar) -> None:
        registrar.add_migrations(MIGRATIONS)
        registrar.provide(DevicePairing, self._book)
        registrar.add_unit(_Unit(self._context, self._book))

    @hookimpl
    def openclaw_register_methods(self, registrar: Registrar) -> None:
        decisions = Decisions(self._roster)
        registrar.add_methods(DeviceMethods(self._context, decisions))
        registrar.add_methods(NodeMethods(self._context, self._nodes, decisions))
        registrar.add_methods(SetupMethods(self._context, self._setups))
        registrar.add_methods(UpgradeMethods(self._context, self._roster, self._book))
        registrar.add_events((*wire.EVENTS, *node_wire.EVENTS))
