"""The OpenAI chat completions API, as strict as the real one: `python -m tests.emulators.openai --port 0`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp import web

from tests.emulators.model_common import (
    ErrorTurn,
    Frame,
    ModelEmulator,
    Refusal,
    Settings,
    ToolCallTurn,
    Turn,
    bearer,
    estimate_tokens,
    main,
)

_CREATED = 1_760_000_000
_FRAGMENT_CHARACTERS = 7
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_PART_TYPES = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text",),
    "system": ("text",),
    "developer": ("text",),
}
_KNOWN_PARAMETERS = frozenset(
    "messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens "
    "max_tokens metadata modalities n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "reasoning_effort response_format safety_identifier seed service_tier stop store stream stream_options "
    "temperature tool_choice tools top_logprobs top_p user verbosity web_search_options".split()
)
_DEFAULT_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "the request was refused by the script"),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: emul****-key."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Country, region, or territory refused"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    503: ("server_error", None, "The engine is currently overloaded, please try again later"),
}


def refusal(
    status: int, message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> Refusal:
    """An error in OpenAI's form."""
    return Refusal(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def _is_reasoning_model(model: str) -> bool:
    return bool(re.match(r"^(o\d|gpt-5)", model))


class OpenAIEmulator(ModelEmulator):
    """Chat completions and the list of models."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._numbers = itertools.count(1)

    def add_routes(self, application: web.Application) -> None:
        application.router.add_post("/v1/chat/completions", self.complete)
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/v1/models/{model}", self._model)

    def answer_headers(self) -> dict[str, str]:
        return {"x-request-id": f"req_{next(self._numbers):06d}", "openai-processing-ms": "1"}

    def refuse(self, request: web.Request, body: Any) -> Refusal | None:
        denied = self._denied(request)
        if denied is not None:
            return denied
        if not isinstance(body, dict):
            return refusal(400, "We could not parse the JSON body of your request.")
        return next(self.faults(body), None)

    def _denied(self, request: web.Request) -> Refusal | None:
        if self.settings.api_keys is None:
            return None
        key = bearer(request)
        if key is None:
            return refusal(401, "You didn't provide an API key.")
        if key not in self.settings.api_keys:
            shown = f"{key[:4]}****{key[-4:]}"
            return refusal(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
        return None

    def faults(self, body: dict[str, Any]) -> Iterator[Refusal]:
        """Everything wrong with a request, in the order the server looks."""
        model = body.get("model")
        if not isinstance(model, str) or not model:
            yield refusal(400, "you must provide a model parameter")
            return
        if model not in self.settings.models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            yield refusal(404, message, code="model_not_found")
        yield from _parameter_faults(body, model)
        messages = body.get("messages")
        if not isinstance(messages, list):
            yield refusal(400, "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter")
            return
        if not messages:
            yield _empty_array("messages")
        for index, message in enumerate(messages):
            yield from _message_faults(message, f"messages[{index}]")
        yield from _pairing_faults(messages)
        yield from _tool_faults(body)
        yield from self._length_faults(body)

    def _length_faults(self, body: dict[str, Any]) -> Iterator[Refusal]:
        tokens = self._prompt_tokens(body)
        limit = self.settings.context_tokens
        if tokens > limit:
            message = (
                f"This model's maximum context length is {limit} tokens. However, your messages resulted in "
                f"{tokens} tokens. Please reduce the length of the messages."
            )
            yield refusal(400, message, param="messages", code="context_length_exceeded")

    def error_of(self, error: ErrorTurn) -> Refusal:
        kind, code, message = _DEFAULT_ERRORS.get(error.status, _DEFAULT_ERRORS[500])
        headers = dict(error.headers)
        if error.status == 429:
            seconds = error.retry_after if error.retry_after is not None else 20.0
            headers = {
                "retry-after": f"{seconds:g}",
                "retry-after-ms": f"{seconds * 1000:g}",
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": f"{seconds:g}s",
                "x-ratelimit-reset-tokens": f"{seconds * 1000:g}ms",
                **headers,
            }
        elif error.retry_after is not None:
            headers = {"retry-after": f"{error.retry_after:g}", **headers}
        built = refusal(error.status, error.message or message, kind=error.type or kind, code=error.code or code)
        return Refusal(built.status, built.body, headers)

    def last_text(self, body: dict[str, Any]) -> str:
        content = body["messages"][-1].get("content")
        if isinstance(content, str):
            return content
        return "".join(part.get("text", "") for part in content or [])

    def frames(self, turn: Turn, body: dict[str, Any]) -> Sequence[Frame]:
        return list(self._chunks(turn, body))

    def _chunks(self, turn: Turn, body: dict[str, Any]) -> Iterator[Frame]:
        identity = f"chatcmpl-{next(self._numbers):06d}"
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

        def frame(delta: dict[str, Any] | None, finish: str | None = None, *, is_content: bool = False) -> Frame:
            choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
            payload: dict[str, Any] = {
                "id": identity,
                "object": "chat.completion.chunk",
                "created": _CREATED,
                "model": body["model"],
                "system_fingerprint": "fp_emulator",
                "choices": choices,
            }
            if wants_usage:
                payload["usage"] = self._usage(turn, body) if delta is None else None
            return Frame(f"data: {json.dumps(payload)}\n\n".encode(), is_content=is_content)

        yield frame({"role": "assistant", "content": None if turn.tool_calls else "", "refusal": None})
        if turn.thinking:
            yield frame({"reasoning_content": turn.thinking}, is_content=True)
        for piece in turn.pieces():
            yield frame({"content": piece}, is_content=True)
        for index, call in enumerate(turn.tool_calls):
            for delta in self._call_deltas(index, call):
                yield frame({"tool_calls": [delta]}, is_content=True)
        yield frame({}, _finish(turn))
        if wants_usage:
            yield frame(None)
        yield Frame(b"data: [DONE]\n\n")

    def _call_deltas(self, index: int, call: ToolCallTurn) -> Iterator[dict[str, Any]]:
        identity = call.id or f"call_{next(self._numbers):06d}"
        head = {"name": call.name, "arguments": ""}
        yield {"index": index, "id": identity, "type": "function", "function": head}
        arguments = _arguments(call)
        for start in range(0, len(arguments), _FRAGMENT_CHARACTERS):
            yield {"index": index, "function": {"arguments": arguments[start : start + _FRAGMENT_CHARACTERS]}}

    def in_stream_error(self, refusal: Refusal) -> bytes:
        return f"data: {json.dumps(refusal.body)}\n\n".encode()

    def whole(self, turn: Turn, body: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": turn.whole_text() or None, "refusal": None}
        if turn.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id or f"call_{next(self._numbers):06d}",
                    "type": "function",
                    "function": {"name": call.name, "arguments": _arguments(call)},
                }
                for call in turn.tool_calls
            ]
        return {
            "id": f"chatcmpl-{next(self._numbers):06d}",
            "object": "chat.completion",
            "created": _CREATED,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(turn)}],
            "usage": self._usage(turn, body),
            "system_fingerprint": "fp_emulator",
        }

    def _usage(self, turn: Turn, body: dict[str, Any]) -> dict[str, Any]:
        prompt = turn.input_tokens if turn.input_tokens is not None else self._prompt_tokens(body)
        written = turn.whole_text() + "".join(_arguments(call) for call in turn.tool_calls)
        completion = turn.output_tokens if turn.output_tokens is not None else estimate_tokens(written)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": turn.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def _prompt_tokens(self, body: dict[str, Any]) -> int:
        return estimate_tokens([body["messages"], body.get("tools")])

    async def _models(self, request: web.Request) -> web.Response:
        await self.record(request, None)
        denied = self._denied(request)
        if denied is not None:
            return self.refusal_response(denied)
        listed = [_model_entry(model) for model in self.settings.models]
        return web.json_response({"object": "list", "data": listed}, headers=self.answer_headers())

    async def _model(self, request: web.Request) -> web.Response:
        await self.record(request, None)
        denied = self._denied(request)
        model = request.match_info["model"]
        if denied is None and model not in self.settings.models:
            denied = refusal(404, f"The model '{model}' does not exist", param="model", code="model_not_found")
        if denied is not None:
            return self.refusal_response(denied)
        return web.json_response(_model_entry(model), headers=self.answer_headers())


def _model_entry(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": _CREATED, "owned_by": "system"}


def _arguments(call: ToolCallTurn) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def _finish(turn: Turn) -> str:
    return turn.finish or ("tool_calls" if turn.tool_calls else "stop")


def _empty_array(param: str) -> Refusal:
    message = f"Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    return refusal(400, message, param=param, code="empty_array")


def _invalid_type(param: str, expected: str, found: object) -> Refusal:
    names = {dict: "an object", list: "an array", str: "a string", int: "an integer", type(None): "null"}
    message = f"Invalid type for '{param}': expected {expected}, but got {names.get(type(found), 'another type')} instead."
    return refusal(400, message, param=param, code="invalid_type")


def _parameter_faults(body: dict[str, Any], model: str) -> Iterator[Refusal]:
    for name in body:
        if name not in _KNOWN_PARAMETERS:
            yield refusal(400, f"Unrecognized request argument supplied: {name}")
    if body.get("stream_options") is not None and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        yield refusal(400, message, param="stream_options")
    if "max_tokens" in body and "max_completion_tokens" in body:
        yield refusal(400, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    if _is_reasoning_model(model) and body.get("max_tokens") is not None:
        message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        yield refusal(400, message, param="max_tokens", code="unsupported_parameter")
    if _is_reasoning_model(model) and body.get("temperature") not in (None, 1):
        message = "Unsupported value: 'temperature' does not support this value with this model. Only the default (1) value is supported."
        yield refusal(400, message, param="temperature", code="unsupported_value")


def _message_faults(message: Any, param: str) -> Iterator[Refusal]:
    if not isinstance(message, dict):
        yield _invalid_type(param, "an object", message)
        return
    role = message.get("role")
    if role not in _ROLES:
        supported = ", ".join(f"'{name}'" for name in _ROLES)
        text = f"Invalid value: '{role}'. Supported values are: {supported}."
        yield refusal(400, text, param=f"{param}.role", code="invalid_value")
        return
    calls = message.get("tool_calls")
    if role == "assistant" and calls is not None:
        yield from _call_faults(calls, f"{param}.tool_calls")
    content = message.get("content")
    if content is None and not (role == "assistant" and calls):
        yield refusal(400, "Invalid value for 'content': expected a string, got null.", param=f"{param}.content")
    yield from _content_faults(content, role, f"{param}.content")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        name = f"{param}.tool_call_id"
        yield refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def _content_faults(content: Any, role: str, param: str) -> Iterator[Refusal]:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        yield _invalid_type(param, "one of a string or array of objects", content)
        return
    if not content:
        yield _empty_array(param)
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PART_TYPES.get(role, ("text",)):
            text = f"Invalid value: '{kind}'. Supported values are: {_PART_TYPES.get(role, ('text',))}."
            yield refusal(400, text, param=f"{param}[{index}].type", code="invalid_value")
        elif kind == "text" and not isinstance(part.get("text"), str):
            name = f"{param}[{index}].text"
            yield refusal(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
        elif kind == "image_url" and not isinstance(part.get("image_url"), dict):
            yield _invalid_type(f"{param}[{index}].image_url", "an object", part.get("image_url"))


def _call_faults(calls: Any, param: str) -> Iterator[Refusal]:
    if not isinstance(calls, list):
        yield _invalid_type(param, "an array", calls)
        return
    if not calls:
        yield _empty_array(param)
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        name = f"{param}[{index}]"
        if not isinstance(function, dict) or call.get("type") != "function" or not isinstance(call.get("id"), str):
            yield refusal(400, f"Missing required parameter: '{name}.function'.", param=name)
        elif not isinstance(function.get("arguments"), str):
            yield _invalid_type(f"{name}.function.arguments", "a string", function.get("arguments"))
        elif not _TOOL_NAME.match(str(function.get("name"))):
            yield _bad_name(f"{name}.function.name")


def _bad_name(param: str) -> Refusal:
    pattern = "^[a-zA-Z0-9_-]+$"
    text = f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern '{pattern}'."
    return refusal(400, text, param=param, code="invalid_value")


def _pairing_faults(messages: list[dict[str, Any]]) -> Iterator[Refusal]:
    waiting: list[str] = []
    opened_by_call = False
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if not opened_by_call:
                text = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                yield refusal(400, text, param=f"messages.[{index}].role")
            elif message["tool_call_id"] not in waiting:
                yield refusal(400, "Invalid parameter: 'tool_call_id' of a message not found in 'tool_calls'.")
            else:
                waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            break
        calls = message.get("tool_calls") or [] if message["role"] == "assistant" else []
        waiting = [call["id"] for call in calls]
        opened_by_call = bool(calls)
    if waiting:
        text = (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}"
        )
        yield refusal(400, text, param="messages")


def _tool_faults(body: dict[str, Any]) -> Iterator[Refusal]:
    tools = body.get("tools")
    if tools is None:
        if body.get("tool_choice") is not None:
            yield refusal(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
        return
    if not isinstance(tools, list):
        yield _invalid_type("tools", "an array", tools)
        return
    if not tools:
        yield _empty_array("tools")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            yield refusal(400, f"Missing required parameter: 'tools[{index}].function'.", param=f"tools[{index}]")
        elif not _TOOL_NAME.match(str(function.get("name"))):
            yield _bad_name(f"tools[{index}].function.name")
        elif function.get("parameters", {"type": "object"}).get("type") != "object":
            text = f"Invalid schema for function '{function['name']}': schema must be a JSON Schema of 'type: \"object\"'."
            yield refusal(400, text, param=f"tools[{index}].function.parameters", code="invalid_function_parameters")


MODELS = ["gpt-4o-mini", "gpt-4o", "gpt-4.1", "gpt-5", "gpt-5-mini", "o3"]

if __name__ == "__main__":
    main(OpenAIEmulator, Settings(context_tokens=128_000, models=MODELS))
