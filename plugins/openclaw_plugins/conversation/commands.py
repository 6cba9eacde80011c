"""Chat commands that the conversation answers itself."""

from __future__ import annotations

from openclaw_kernel.api import Command, CommandCall, GatewayError
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.stop_words import STOP_WORDS


class BuiltinCommands:
    """/new, /stop, /status, /model and /help."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    def all(self) -> tuple[Command, ...]:
        """Return the commands to register."""
        return (
            Command(name="new", description="Start a new conversation", run=self._new),
            Command(name="stop", description="Stop what the agent is doing", run=self._stop, aliases=STOP_WORDS),
            Command(name="status", description="Show the state of this conversation", run=self._status),
            Command(
                name="model",
                description="Show or choose the model: /model, /model provider/name, /model default",
                run=self._model,
                accepts_arguments=True,
            ),
            Command(name="help", description="List the commands", run=self._help),
        )

    async def _new(self, call: CommandCall) -> str:
        await self._conversation.new_session(call.session_key)
        if call.arguments:
            return "Started a new conversation. What followed /new was not sent; send it again on its own."
        return "Started a new conversation."

    async def _stop(self, call: CommandCall) -> str:
        at_work = " and ".join(self._conversation.at_work(call.session_key))
        stopped = await self._conversation.stop(call.session_key)
        if not stopped:
            return "Nothing is running."
        waiting = len(stopped) - 1
        told = "Stopped." if not waiting else f"Stopped, and dropped {waiting} waiting message{'s' if waiting > 1 else ''}."
        return f"{told} {at_work} was at work: what it has done until now stays done." if at_work else told

    async def _status(self, call: CommandCall) -> str:
        world = self._conversation.world
        row = await self._conversation.describe(call.session_key)
        provider, model = row.get("modelProvider"), row.get("model")
        shown = f"{provider}/{model}" if provider and model else model or "none is ready"
        lines = [
            f"**Agent** {call.agent_id}",
            f"**Model** {shown}",
            f"**Session** `{call.session_key}`",
            f"**State** {row.get('status') or 'idle'}",
        ]
        waiting = self._conversation.lanes.waiting(call.session_key)
        if waiting:
            lines.append(f"**Waiting** {waiting}")
        if row.get("totalTokens"):
            lines.append(f"**Tokens of the last turn** {row['inputTokens']} in, {row['outputTokens']} out")
        if row.get("estimatedCostUsd"):
            lines.append(f"**Cost** {row['estimatedCostUsd']:.4f} USD")
        problem = world.providers.problem(provider) if provider and provider in world.providers.ids() else None
        if problem:
            lines.append(f"**Problem** {problem}")
        return "  \n".join(lines)

    async def _model(self, call: CommandCall) -> str:
        world = self._conversation.world
        wanted = call.arguments.strip()
        if wanted:
            try:
                await self._conversation.set_model(call.session_key, None if wanted == "default" else wanted)
            except GatewayError as error:
                return error.message
        row = await self._conversation.describe(call.session_key)
        current = "/".join(part for part in (row.get("modelProvider"), row.get("model")) if part) or "none is ready"
        if wanted:
            return f"This conversation now uses {current}."
        known = [f"- `{info.ref}`" for info in list(world.providers.models())[:30]]
        return "\n".join([f"This conversation uses {current}.", *(["", "Choose another with /model:", *known] if known else [])])

    async def _help(self, call: CommandCall) -> str:
        commands = sorted(self._conversation.world.commands.all(), key=lambda command: command.name)
        return "\n".join(f"/{command.name} - {command.description}" for command in commands)
