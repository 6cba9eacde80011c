"""The conversation plugin: the ledger, lanes, sessions, transcripts, delivery, and the methods and commands on them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from openclaw_kernel.api import ConfigChange, Delivery, Ingress, PluginContext, Registrar, Sessions, hookimpl
from openclaw_plugins.conversation.chat_events import EVENTS
from openclaw_plugins.conversation.commands import BuiltinCommands
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.methods_agent import AgentMethods
from openclaw_plugins.conversation.methods_changes import SessionChanges
from openclaw_plugins.conversation.methods_chat import ChatMethods
from openclaw_plugins.conversation.methods_message_action import MessageActionMethods
from openclaw_plugins.conversation.methods_sessions import SessionMethods
from openclaw_plugins.conversation.methods_startup import StartupMethods
from openclaw_plugins.conversation.methods_wake import WakeMethods
from openclaw_plugins.conversation.methods_why import WhyMethods
from openclaw_plugins.conversation.settings import ConversationSettings
from openclaw_plugins.conversation.tables import MIGRATIONS


class _Unit:
    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def start(self) -> None:
        await self._conversation.open()

    @property
    def drain_seconds(self) -> float:
        return self._conversation.drain_seconds

    async def drain(self) -> None:
        await self._conversation.drain()

    async def reload(self, _change: ConfigChange) -> None:
        self._conversation.reloaded()

    async def stop(self) -> None:
        await self._conversation.close()


class ConversationPlugin:
    """Makes one `Conversation` and registers everything that leads to it."""

    settings: ClassVar[type[BaseModel] | None] = ConversationSettings

    def __init__(self, context: PluginContext) -> None:
        self._conversation = Conversation(context)

    @hookimpl
    def openclaw_register_services(self, registrar: Registrar) -> None:
        registrar.add_migrations(MIGRATIONS)
        registrar.provide(Ingress, self._conversation)
        registrar.provide(Delivery, self._conversation)
        registrar.provide(Sessions, self._conversation)
        registrar.add_unit(_Unit(self._conversation))

    @hookimpl
    def openclaw_register_commands(self, registrar: Registrar) -> None:
        for command in BuiltinCommands(self._conversation).all():
            registrar.add_command(command)

    @hookimpl
    def openclaw_register_methods(self, registrar: Registrar) -> None:
        for owner in (
            ChatMethods,
            StartupMethods,
            SessionMethods,
            SessionChanges,
            AgentMethods,
            MessageActionMethods,
            WakeMethods,
            WhyMethods,
        ):
            registrar.add_methods(owner(self._conversation))
        registrar.add_events(EVENTS)
