"""One turn: models in order, tool rounds, and everything reported to the sink on the way."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

from openclaw_kernel.api import (
    AssistantMessage,
    AssistantPart,
    Completed,
    Message,
    ModelInfo,
    ModelRequest,
    PairedMessages,
    ProviderError,
    ProviderErrorKind,
    Providers,
    Step,
    StepBegun,
    Text,
    ToolCall,
    ToolContext,
    ToolResultMessage,
    Tools,
    ToolSpec,
    Turn,
    TurnResult,
    TurnSink,
    Usage,
)
from openclaw_plugins.agents.cost import cost_usd, sum_costs, sum_usage, usage_json
from openclaw_plugins.agents.history import PairedTranscript, fit_history, total_tokens
from openclaw_plugins.agents.model_call import ModelCall, Spoken
from openclaw_plugins.agents.plan import AgentPlan, ModelChain
from openclaw_plugins.agents.tokens import cut, estimate
from openclaw_plugins.agents.tool_calls import ToolCaller, offered_tools, tool_specs

DEFAULT_WINDOW: Final = 8_192
DEFAULT_OUTPUT: Final = 4_096
NO_USAGE: Final = Usage()
ErrorKind = Literal["refusal", "timeout", "rate_limit", "context_length", "unknown"]

_OTHERS_MAY_ANSWER: Final = frozenset(
    {
        ProviderErrorKind.AUTH,
        ProviderErrorKind.RATE_LIMIT,
        ProviderErrorKind.OVERLOADED,
        ProviderErrorKind.NETWORK,
        ProviderErrorKind.TIMEOUT,
        ProviderErrorKind.UNAVAILABLE,
        ProviderErrorKind.NOT_FOUND,
    }
)
_WIRE_KINDS: Final[dict[ProviderErrorKind, ErrorKind]] = {
    ProviderErrorKind.REFUSAL: "refusal",
    ProviderErrorKind.TIMEOUT: "timeout",
    ProviderErrorKind.RATE_LIMIT: "rate_limit",
    ProviderErrorKind.CONTEXT_LENGTH: "context_length",
}


class TurnRun:
    """The state of one running turn; `run` is called once."""

    def __init__(
        self,
        *,
        turn: Turn,
        plan: AgentPlan,
        sink: TurnSink,
        providers: Providers,
        tools: Tools,
        system: Callable[[bool], str],
        now_ms: Callable[[], int],
        logger: logging.Logger,
    ) -> None:
        self._turn = turn
        self._plan = plan
        self._sink = sink
        self._providers = providers
        self._tools = tools
        self._system = system
        self._now_ms = now_ms
        self._logger = logger
        self._transcript: list[Message] = [*turn.history, turn.message, *turn.resumed]
        self._usages: list[Usage] = []
        self._costs: list[float | None] = []
        self._model: str | None = None
        self._call: ModelCall | None = None
        self._call_ids = {call.id for message in turn.resumed if isinstance(message, AssistantMessage) for call in message.tool_calls}
        self.spoken = Spoken()
        for message in turn.resumed:
            if isinstance(message, AssistantMessage):
                self.spoken.recall(message)

    async def run(self, chain: ModelChain, *, seconds: float) -> TurnResult:
        """Try the models of the chain in order; `seconds` is the whole turn's time."""
        models = [*chain.ready, *chain.doubtful]
        failures = list(chain.problems)
        for position, info in enumerate(models):
            others = len(models) - position - 1
            doubtful = position >= len(chain.ready)
            try:
                return await self._with_model(info, first_event_seconds=seconds / len(models) if others else None)
            except ProviderError as error:
                await self.record_partial("error")
                failures.append(f"{info.provider if doubtful else info.ref}: {_one_line(error.message)}")
                others_may = doubtful or error.kind in _OTHERS_MAY_ANSWER
                if self.spoken.anything or not others_may or (chain.ready and not others):
                    return self.failed(_describe(failures, error), _WIRE_KINDS.get(error.kind, "unknown"))
                self._logger.warning("model %s failed (%s): %s", info.ref, error.kind, error.message)
        return self.failed(f"no model is ready: {'; '.join(dict.fromkeys(failures))}", "unknown")

    def failed(self, error: str, kind: ErrorKind, *, status: Literal["error", "timeout"] = "error") -> TurnResult:
        """Return the result of a turn that has no proper end."""
        return replace(self._result(stop_reason=None), status=status, error=_one_line(error), error_kind=kind)

    async def record_partial(self, stop_reason: str) -> None:
        """Keep in the transcript what was said in a call that did not end; once a call."""
        call, self._call = self._call, None
        if call is None or not call.said:
            return
        await self._sink.record(
            AssistantMessage(
                content=(Text("".join(call.said).lstrip("\n")),),
                timestamp_ms=self._now_ms(),
                provider=call.provider,
                model=call.request.model,
                stop_reason=stop_reason,
            )
        )

    async def _with_model(self, info: ModelInfo, *, first_event_seconds: float | None) -> TurnResult:
        self._model = info.ref
        window = _window(self._plan, info)
        offered = offered_tools(self._plan, self._tools) if info.tools and self._plan.max_tool_rounds else {}
        specs = tool_specs(offered)
        if _specs_tokens(specs) > _share(window, _output_tokens(self._plan, info, window)):
            self._logger.warning("tools left out: they would fill too much of the context of %s", info.ref)
            offered, specs = {}, ()
        caller = ToolCaller(
            tools=self._tools,
            offered=offered,
            sink=self._sink,
            context=self._tool_context,
            now_ms=self._now_ms,
            result_tokens=max(256, window // 4),
        )
        rounds_left = self._plan.max_tool_rounds - await self._take_up(caller)
        while True:
            may_call = rounds_left > 0
            rounds_left -= 1
            completed = await self._ask(info, specs, may_call=may_call, first_event_seconds=first_event_seconds)
            message = self._message(info, completed, with_calls=may_call and bool(specs))
            self._call = None
            if message.content:
                await self._sink.record(message)
            if completed.stop_reason == "refusal":
                return self.failed(f"{info.ref} refused to answer; ask differently or choose another model", "refusal")
            if not message.tool_calls:
                return self._result(stop_reason="stop" if completed.stop_reason == "tool_calls" else completed.stop_reason)
            self.spoken.tool_steps += len(message.tool_calls)
            self._transcript.append(message)
            self._transcript.extend(await caller.run(message.tool_calls))

    async def _take_up(self, caller: ToolCaller) -> int:
        """Make the calls of the recorded rounds that have no result; return how many rounds there were."""
        recorded = self._transcript[len(self._turn.history) + 1 :]
        rounds = [message for message in recorded if isinstance(message, AssistantMessage) and message.tool_calls]
        answered = {message.call_id for message in recorded if isinstance(message, ToolResultMessage)}
        calls = [call for message in rounds for call in message.tool_calls]
        for call in calls:
            if call.id in answered:
                caller.note(call)
        missing = [call for call in calls if call.id not in answered]
        if missing:
            self._transcript.extend(await caller.run(missing))
        return len(rounds)

    async def _ask(self, info: ModelInfo, specs: tuple[ToolSpec, ...], *, may_call: bool, first_event_seconds: float | None) -> Completed:
        """Call the model; if it finds the conversation too long, once more with half of it."""
        window = _window(self._plan, info)
        output = _output_tokens(self._plan, info, window)
        system = cut(self._system(bool(specs)), _share(window, output))
        ceiling = window - output - estimate(system) - _specs_tokens(specs)
        paired = PairedTranscript(self._transcript, tools=info.tools, images=info.images).messages()
        messages = fit_history(paired, ceiling)
        for last_attempt in (False, True):
            request = self._request(info, system=system, messages=messages, specs=specs, may_call=may_call)
            try:
                return await self._call_model(info, request, first_event_seconds=first_event_seconds)
            except ProviderError as error:
                too_long = error.kind is ProviderErrorKind.CONTEXT_LENGTH
                if not too_long or last_attempt or (self._call is not None and (self._call.said or self._call.acted)):
                    raise
                self._logger.warning("%s found the conversation too long: trying with half of it", info.ref)
                messages = fit_history(paired, total_tokens(messages) // 2)
        raise AssertionError("the second attempt returns or raises")

    async def _call_model(self, info: ModelInfo, request: ModelRequest, *, first_event_seconds: float | None) -> Completed:
        call = ModelCall(info.provider, request, self._sink, self.spoken, self._now_ms)
        self._call = call
        begun = StepBegun(kind="model", name=info.ref, started_ms=self._now_ms(), retry_class=info.retry_class)
        number = await self._sink.begin_step(begun)
        try:
            completed = await call.run(self._providers.stream(info.provider, request), first_event_seconds=first_event_seconds)
        except ProviderError as error:
            await self._sink.end_step(number, self._model_step(begun, error=_one_line(str(error))))
            raise
        cost = cost_usd(info, completed.usage)
        self._usages.append(completed.usage)
        self._costs.append(cost)
        await self._sink.end_step(number, self._model_step(begun, usage=completed.usage, cost=cost))
        return completed

    def _model_step(self, begun: StepBegun, *, usage: Usage = NO_USAGE, cost: float | None = None, error: str | None = None) -> Step:
        return Step(
            kind="model",
            name=begun.name,
            started_ms=begun.started_ms,
            ended_ms=self._now_ms(),
            usage=usage,
            cost_usd=cost,
            error=error,
            retry_class=begun.retry_class.value,
        )

    def _request(
        self, info: ModelInfo, *, system: str, messages: PairedMessages, specs: tuple[ToolSpec, ...], may_call: bool
    ) -> ModelRequest:
        turn, plan = self._turn, self._plan
        return ModelRequest(
            model=info.id,
            system=system,
            messages=messages,
            tools=specs,
            tool_choice="auto" if may_call else "none",
            max_output_tokens=plan.max_output_tokens and _output_tokens(plan, info, _window(plan, info)),
            thinking=(turn.thinking or plan.thinking) if info.reasoning else None,
            agent_id=plan.id,
            session_key=turn.session_key,
            session_id=turn.session_id,
            run_id=turn.run_id,
            workspace=plan.workspace,
        )

    def _message(self, info: ModelInfo, completed: Completed, *, with_calls: bool) -> AssistantMessage:
        said = "".join(self._call.said).lstrip("\n") if self._call is not None else ""
        parts: list[AssistantPart] = [*completed.thinking]
        if said:
            parts.append(Text(said))
        if with_calls:
            parts.extend(self._with_own_id(call) for call in completed.tool_calls)
        return AssistantMessage(
            content=tuple(parts),
            timestamp_ms=self._now_ms(),
            provider=info.provider,
            model=completed.model or info.id,
            stop_reason=completed.stop_reason,
            usage=usage_json(completed.usage, self._costs[-1]),
        )

    def _with_own_id(self, call: ToolCall) -> ToolCall:
        """Give a call an id of its own where the model gave none or one it has used before."""
        call_id, count = call.id or "call", 1
        while call_id in self._call_ids:
            count += 1
            call_id = f"{call.id or 'call'}-{count}"
        self._call_ids.add(call_id)
        return call if call_id == call.id else replace(call, id=call_id)

    def _tool_context(self, call_id: str) -> ToolContext:
        turn = self._turn
        return ToolContext(
            agent_id=turn.agent_id,
            session_key=turn.session_key,
            run_id=turn.run_id,
            call_id=call_id,
            workspace=self._plan.workspace,
        )

    def _result(self, *, stop_reason: str | None) -> TurnResult:
        return TurnResult(
            status="ok",
            text=self.spoken.text,
            stop_reason=stop_reason,
            model=self._model,
            usage=sum_usage(self._usages),
            cost_usd=sum_costs(self._costs),
        )


def _window(plan: AgentPlan, info: ModelInfo) -> int:
    """Return how many tokens question and answer may take together."""
    stated = info.context_window or plan.context_tokens or DEFAULT_WINDOW
    return min(stated, plan.context_tokens or stated)


def _output_tokens(plan: AgentPlan, info: ModelInfo, window: int) -> int:
    """Return what is kept free for the answer: at most a quarter of the window, or half where the config asks for it."""
    if plan.max_output_tokens is not None:
        return min(plan.max_output_tokens, window // 2)
    return min(info.max_output_tokens or DEFAULT_OUTPUT, window // 4)


def _share(window: int, output: int) -> int:
    """Return how much the system prompt may take, and the tools again; a ninth of what the answer leaves is the conversation's."""
    return min(window // 3, (window - output) * 4 // 9)


def _specs_tokens(specs: Sequence[ToolSpec]) -> int:
    return sum(estimate(spec.name) + estimate(spec.description) + estimate(json.dumps(spec.parameters)) for spec in specs)


def _describe(failures: Sequence[str], error: ProviderError) -> str:
    """Join why each model failed and what to do about the last failure."""
    cure = {
        ProviderErrorKind.AUTH: f"check the key under models.providers.{error.provider}",
        ProviderErrorKind.RATE_LIMIT: f"try again in {error.retry_after:.0f} seconds" if error.retry_after else "try again later",
        ProviderErrorKind.OVERLOADED: "try again in a moment",
        ProviderErrorKind.NETWORK: "check the connection and try again",
        ProviderErrorKind.TIMEOUT: "try again in a moment",
        ProviderErrorKind.CONTEXT_LENGTH: "start a new conversation with /new",
        ProviderErrorKind.NOT_FOUND: "choose another model",
    }.get(error.kind)
    lines = "; ".join(dict.fromkeys(failures))
    return f"{lines}; {cure}" if cure else lines


def _one_line(text: str) -> str:
    return " ".join(text.split())
