"""The method `chat.startup`: what a client shows first of a conversation, under the name newer clients ask for it by."""

from __future__ import annotations

from openclaw_kernel.api import Call, Encoded, Scope, rpc
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.methods_chat import ChatMethods
from openclaw_plugins.conversation.wire import ChatHistoryParams, ChatHistoryResult


class StartupMethods:
    """`chat.startup`."""

    def __init__(self, conversation: Conversation) -> None:
        self._chat = ChatMethods(conversation)

    @rpc("chat.startup", scope=Scope.READ, params=ChatHistoryParams, result=ChatHistoryResult)
    async def startup(self, call: Call, params: ChatHistoryParams) -> Encoded:
        """Return what `chat.history` does; models and commands, which may come with it, are asked for by themselves."""
        return await self._chat.history(call, params)
