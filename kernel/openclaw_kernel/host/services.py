"""What the kernel offers of what plugins registered: each call guarded, each fault named."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

from openclaw_kernel.api.channel import AccountStatus, Channel, ChannelCapabilities, SendFailed
from openclaw_kernel.api.command import Command, CommandCall
from openclaw_kernel.api.errors import Forbidden, InvalidRequest, ProviderError, ProviderErrorKind, ToolError, Unavailable
from openclaw_kernel.api.messages import InboundMessage, OutboundMessage, Progress, Receipt
from openclaw_kernel.api.policy import Admission, Route, Verdict
from openclaw_kernel.api.provider import Completed, ModelEvent, ModelInfo, ModelRequest, TextDelta, ThinkingDelta, ToolStep
from openclaw_kernel.api.tool import Tool, ToolContext, ToolResult
from openclaw_kernel.host.calls import in_force
from openclaw_kernel.host.component import Component, ComponentState
from openclaw_kernel.host.contract import ContractBroken, expect, expect_all, expect_line
from openclaw_kernel.host.explain import explain, suggest
from openclaw_kernel.host.guard import Guard, PluginFault, PluginHung, text_of
from openclaw_kernel.host.lines import encodable
from openclaw_kernel.host.manager import PluginManager
from openclaw_kernel.host.progress import ProgressRelay
from openclaw_kernel.host.registry import Owned, Registry
from openclaw_kernel.host.secrets import SecretBroker, ToolSecrets
from openclaw_kernel.host.timing import Timing

logger: Final = logging.getLogger(__name__)

_LONGEST_DELAY_SECONDS: Final = 24 * 3600.0

Report = Callable[[PluginFault], None]


class HostedChannels:
    """Implements `openclaw_kernel.api.Channels`. `component` finds what drives a channel, None before the start."""

    def __init__(
        self,
        registry: Registry,
        guard: Guard,
        timing: Timing,
        *,
        component: Callable[[str], Component | None],
    ) -> None:
        self._registry = registry
        self._guard = guard
        self._timing = timing
        self._component = component
        self._progress = ProgressRelay(guard, timing.progress)

    def ids(self) -> Sequence[str]:
        """Return the ids of all channels of loaded plugins."""
        return list(self._registry.channels)

    def label(self, channel: str) -> str:
        """Return the channel's name for people; an unknown one is its id."""
        return self._registry.labels.get(channel, channel)

    def capabilities(self, channel: str) -> ChannelCapabilities | None:
        """Return None for a channel that does not run."""
        return self._registry.capabilities[channel] if self._running(channel) is not None else None

    def status(self, channel: str) -> Sequence[AccountStatus]:
        """Return the state of each account; of a channel that fails to say, one account with the reason."""
        owned = self._registry.channels.get(channel)
        if owned is None:
            return ()
        try:
            accounts = self._guard.call(
                owned.plugin_id, f"status of channel {channel}", lambda: expect_all(owned.item.status(), AccountStatus)
            )
        except PluginFault as fault:
            return (AccountStatus(account_id="default", last_error=str(fault)),)
        component = self._component(channel)
        if component is None or component.state is ComponentState.RUNNING:
            return accounts
        reason = component.reason or component.state.value
        shown = accounts or (AccountStatus(account_id="default"),)
        return [replace(account, running=False, connected=False, last_error=account.last_error or reason) for account in shown]

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send; every failure is a `SendFailed`."""
        channel = message.target.channel
        owned = await in_force(lambda: self._registry.channels.get(channel))
        if owned is None:
            cure = suggest(channel, self._registry.channels)
            # Not for ever: who switched it off may switch it on again.
            raise SendFailed(f"there is no channel {channel!r}; {cure}")
        if self._running(channel) is None:
            component = self._component(channel)
            reason = (component.reason if component is not None else None) or "it is not started"
            raise SendFailed(f"channel {channel!r} is not running: {reason}")
        what = f"send on channel {channel}"
        try:
            with owned.calls.call():
                return await self._guard.run(owned.plugin_id, what, lambda: _send(owned.item, message), self._timing.send)
        except PluginHung as fault:
            raise SendFailed(str(fault), unknown=True) from fault
        except PluginFault as fault:
            if isinstance(fault.error, SendFailed):
                raise _plain(fault.error) from fault.error.__cause__
            # It may have raised before or after the message left.
            raise SendFailed(str(fault), unknown=True) from fault

    def show_progress(self, progress: Progress) -> None:
        """Pass it on without waiting."""
        owned = self._running(progress.target.channel)
        if owned is not None and self._registry.capabilities[progress.target.channel].progress:
            self._progress.offer(owned, progress)

    async def start(self, channel: str) -> bool:
        """Start a stopped or failed channel; raise `InvalidRequest` for an unknown one. `status` tells how it went."""
        component = self._known(channel)
        if component.state in {ComponentState.RUNNING, ComponentState.STARTING}:
            return False
        await component.start()
        return True

    async def stop(self, channel: str) -> bool:
        """Stop a channel until it is started again."""
        component = self._known(channel)
        if component.state in {ComponentState.STOPPED, ComponentState.IDLE}:
            return False
        fault = await component.stop(self._timing.call)
        if fault is not None:
            logger.error("%s", fault)
        return True

    async def close(self, timeout: float) -> None:
        """End the workers that show progress."""
        await self._progress.close(timeout)

    def _running(self, channel: str) -> Owned[Channel] | None:
        component = self._component(channel)
        if component is None or component.state is not ComponentState.RUNNING:
            return None
        return self._registry.channels.get(channel)

    def _known(self, channel: str) -> Component:
        component = self._component(channel)
        if component is None:
            cure = suggest(channel, self._registry.channels)
            raise InvalidRequest(f"channel: there is no channel {channel!r}; {cure}")
        return component


class HostedProviders:
    """Implements `openclaw_kernel.api.Providers`. `unstarted` says why an instance does not run, None where it does."""

    def __init__(
        self, registry: Registry, guard: Guard, broker: SecretBroker, *, unstarted: Callable[[str], str | None], report: Report
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._guard = guard
        self._unstarted = unstarted
        self._report = report

    def ids(self) -> Sequence[str]:
        """Return the ids of the instances."""
        return list(self._registry.providers)

    def models(self) -> Sequence[ModelInfo]:
        """Return all known models, those of the first provider that can answer first."""
        able: list[ModelInfo] = []
        unable: list[ModelInfo] = []
        for provider in self._registry.providers:
            found = self._models_of(provider)
            if able or self.problem(provider) is None:
                able.extend(found)
            else:
                unable.extend(found)
        return [*able, *unable]

    def find(self, ref: str) -> ModelInfo | None:
        """Resolve `provider/model`, or a bare provider id to its first model."""
        provider, slash, model = ref.partition("/")
        found = self._models_of(provider)
        if not slash:
            return found[0] if found else None
        return next((info for info in found if info.id == model), None)

    def problem(self, provider: str) -> str | None:
        """Say why the provider cannot answer now."""
        owned = self._registry.providers.get(provider)
        if owned is None:
            return f"there is no provider {provider!r}; {suggest(provider, self._registry.providers)}"
        unstarted = self._unstarted(provider)
        if unstarted is not None:
            return unstarted
        try:
            return self._guard.call(owned.plugin_id, f"problem of provider {provider}", lambda: expect_line(owned.item.problem()))
        except PluginFault as fault:
            return str(fault)

    async def stream(self, provider: str, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Call a model; every failure leaves as `ProviderError`."""
        owned = await in_force(lambda: self._registry.providers.get(provider))
        if owned is None:
            reason = f"there is no provider {provider!r}; {suggest(provider, self._registry.providers)}"
            raise ProviderError(ProviderErrorKind.NOT_FOUND, reason, provider=provider, model=request.model)
        if not self._broker.permits_provider(request.agent_id, provider, owned.plugin_id):
            reason = f"agent {request.agent_id!r} may not use provider {provider!r}; its scope is agents.entries.<agent>.providers"
            raise ProviderError(ProviderErrorKind.NOT_FOUND, reason, provider=provider, model=request.model)
        what = f"call of provider {provider}"
        completed = False
        with owned.calls.call():
            events = self._guard.iterate(owned.plugin_id, what, lambda: owned.item.stream(request))
            try:
                async for event in events:
                    completed = isinstance(event, Completed)
                    yield self._guard.call(owned.plugin_id, what, partial(_event, event))
            except PluginFault as fault:
                if isinstance(fault.error, ProviderError):
                    raise _plain_provider_error(fault.error, provider, request.model) from fault.error.__cause__
                raise ProviderError(ProviderErrorKind.UNAVAILABLE, str(fault), provider=provider, model=request.model) from fault
            finally:
                await events.aclose()
        if not completed:
            reason = f"plugin {owned.plugin_id!r}: {what} ended without Completed; update the plugin"
            raise ProviderError(ProviderErrorKind.UNAVAILABLE, reason, provider=provider, model=request.model)

    def _models_of(self, provider: str) -> list[ModelInfo]:
        owned = self._registry.providers.get(provider)
        if owned is None:
            return []
        try:
            return self._guard.call(owned.plugin_id, f"models of provider {provider}", lambda: expect_all(owned.item.models(), ModelInfo))
        except PluginFault as fault:
            self._report(fault)
            return []


class HostedTools:
    """Implements `openclaw_kernel.api.Tools`."""

    def __init__(self, registry: Registry, guard: Guard, broker: SecretBroker) -> None:
        self._registry = registry
        self._broker = broker
        self._guard = guard

    def all(self) -> Sequence[Tool[Any]]:
        """Return the registered tools."""
        return [owned.item for owned in self._registry.tools.values()]

    def source(self, name: str) -> str:
        """Return the id of the plugin that registered the tool; raise `LookupError`."""
        owned = self._registry.tools.get(name)
        if owned is None:
            raise LookupError(f"there is no tool {name!r}; {suggest(name, self._registry.tools)}")
        return owned.plugin_id

    async def run(self, name: str, context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:
        """Validate and run; every failure is an error result for the model."""
        owned = await in_force(lambda: self._registry.tools.get(name))
        if owned is None:
            return _tool_error(f"there is no tool {name!r}; {suggest(name, self._registry.tools)}")
        secrets = ToolSecrets(self._broker, agent_id=context.agent_id, plugin_id=owned.plugin_id)
        with owned.calls.call():
            result = await self._run(owned, replace(context, secrets=secrets), arguments)
        return replace(result, text=secrets.clean(result.text))

    async def _run(self, owned: Owned[Tool[Any]], context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:
        tool, name = owned.item, owned.item.name
        try:
            params = self._guard.call(owned.plugin_id, f"arguments of tool {name}", lambda: tool.params.model_validate(dict(arguments)))
            return await self._guard.run(owned.plugin_id, f"tool {name}", lambda: _run(tool, context, params), tool.timeout_seconds)
        except PluginHung:
            return _tool_error(f"{name} did not end in {tool.timeout_seconds:g} s and was stopped; try a smaller task")
        except PluginFault as fault:
            return _tool_error(_what_a_model_is_told(tool, arguments, fault))


class HostedCommands:
    """Implements `openclaw_kernel.api.Commands`: `run` of what it returns never raises and has a deadline."""

    def __init__(self, registry: Registry, guard: Guard, timing: Timing) -> None:
        self._registry = registry
        self._guard = guard
        self._timing = timing

    def all(self) -> Sequence[Command]:
        """Return the registered commands."""
        return [self._guarded(owned) for owned in self._registry.commands.values()]

    def find(self, text: str) -> tuple[Command, str] | None:
        """Return the command a message is, with its arguments."""
        message = text.strip()
        if message.startswith("/"):
            word, *rest = message[1:].split(maxsplit=1)[:2] or [""]
            owned = self._registry.commands.get(word.partition("@")[0].lower())
            return None if owned is None else (self._guarded(owned), rest[0].strip() if rest else "")
        lowered = message.lower()
        for owned in self._registry.commands.values():
            if lowered in owned.item.aliases:
                return self._guarded(owned), ""
        return None

    def _guarded(self, owned: Owned[Command]) -> Command:
        async def run(call: CommandCall) -> str:
            what = f"command /{owned.item.name}"
            current = await in_force(lambda: self._registry.commands.get(owned.item.name))
            if current is None:
                return f"/{owned.item.name} is gone: the plugin {owned.plugin_id} does not run any more"
            try:
                with current.calls.call():
                    return await self._guard.run(current.plugin_id, what, lambda: _answer(current.item, call), self._timing.command)
            except PluginFault as fault:
                logger.warning("%s", fault, exc_info=fault.error)
                return f"/{owned.item.name} failed: {fault}"

        return replace(owned.item, run=run)


class HostedPolicies:
    """Implements `openclaw_kernel.api.Policies`."""

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager

    def route(self, message: InboundMessage) -> Route:
        """Decide agent and session; raise `Unavailable` where no plugin decides."""
        route = self._manager.decide_route(message)
        if route is None:
            raise Unavailable("no plugin decided where the message goes; enable the plugin 'routing'")
        return route

    def admit(self, message: InboundMessage, route: Route) -> Admission:
        """Decide whether a turn may start; where no plugin decides, it may not."""
        verdict = self._manager.decide_admission(message, route)
        if verdict is None:
            reason = "no plugin decided who may start a turn; enable the plugin 'admission'"
            return Admission(verdict=Verdict.DROP, reason=reason)
        return verdict


async def _send(channel: Channel, message: OutboundMessage) -> Receipt:
    return expect(await channel.send(message), Receipt)


def _plain(failed: SendFailed) -> SendFailed:
    """Return the error with a delay that can be waited for: a plugin may have taken it from a platform's answer."""
    # A class of the plugin's own may not have called this one's constructor.
    return SendFailed(
        text_of(failed),
        permanent=getattr(failed, "permanent", False) is True,
        unknown=getattr(failed, "unknown", False) is True,
        retry_after=_delay(failed),
        whole_account=getattr(failed, "whole_account", False) is True,
    )


def _plain_provider_error(error: ProviderError, provider: str, model: str) -> ProviderError:
    """Return the error with a kind that exists and a delay that can be waited for."""
    kind = getattr(error, "kind", None)
    usable = kind if isinstance(kind, ProviderErrorKind) else ProviderErrorKind.UNAVAILABLE
    return ProviderError(usable, text_of(error), provider=provider, model=model, retry_after=_delay(error))


def _delay(error: SendFailed | ProviderError) -> float | None:
    delay: object = getattr(error, "retry_after", None)
    return float(delay) if isinstance(delay, int | float) and 0 <= delay <= _LONGEST_DELAY_SECONDS else None


async def _run(tool: Tool[Any], context: ToolContext, params: Any) -> ToolResult:
    result = expect(await tool.run(context, params), ToolResult)
    return replace(result, text=encodable(result.text))


async def _answer(command: Command, call: CommandCall) -> str:
    return encodable(expect(await command.run(call), str))


def _event(event: object) -> ModelEvent:
    """Return what a model said; raise `ContractBroken` for what is no event."""
    match event:
        case TextDelta() | ThinkingDelta():
            said = expect(event, type(event))
            return said if said.text.isascii() else type(said)(encodable(said.text))
        case ToolStep() | Completed():
            return expect(event, type(event))
        case _:
            raise ContractBroken(f"yielded {type(event).__name__}", "yield TextDelta, ThinkingDelta, ToolStep or Completed")


def _tool_error(text: str) -> ToolResult:
    return ToolResult(text=text, is_error=True)


def _what_a_model_is_told(tool: Tool[Any], arguments: Mapping[str, Any], fault: PluginFault) -> str:
    if isinstance(fault.error, ToolError | Forbidden):
        return text_of(fault.error)
    if isinstance(fault.error, ValidationError):
        return f"{tool.name}: {'; '.join(explain(tool.params, 'arguments', arguments, fault.error))}"
    logger.warning("%s", fault, exc_info=fault.error)
    return f"{tool.name} failed: {fault}"
