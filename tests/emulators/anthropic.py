"""The Anthropic Messages API, as strict as the real one: `python -m tests.emulators.anthropic --port 0`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from aiohttp import web

from tests.emulators.anthropic_checks import faults, refusal, without_controls
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
    read_json,
)

_FRAGMENT_CHARACTERS = 7
_DEFAULT_ERRORS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "the request was refused by the script"),
    401: ("authentication_error", "invalid x-api-key"),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "model not found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out"),
    529: ("overloaded_error", "Overloaded"),
}


class AnthropicEmulator(ModelEmulator):
    """Messages, the counting of tokens and the list of models."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._numbers = itertools.count(1)

    def add_routes(self, application: web.Application) -> None:
        application.router.add_post("/v1/messages", self.complete)
        application.router.add_post("/v1/messages/count_tokens", self._count_tokens)
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/v1/models/{model}", self._model)

    def answer_headers(self) -> dict[str, str]:
        return {"request-id": f"req_{next(self._numbers):06d}"}

    def refuse(self, request: web.Request, body: Any) -> Refusal | None:
        denied = self._denied(request)
        if denied is not None:
            return denied
        if not isinstance(body, dict):
            return refusal("The request body is not valid JSON")
        checked = without_controls(body, request.headers.get("anthropic-beta", ""))
        return next(self._faults(checked, request), None)

    def _denied(self, request: web.Request) -> Refusal | None:
        if self.settings.api_keys is not None:
            key = request.headers.get("x-api-key") or bearer(request)
            if key is None:
                return refusal("x-api-key header is required", status=401, kind="authentication_error")
            if key not in self.settings.api_keys:
                by_header = "x-api-key" in request.headers
                text = "invalid x-api-key" if by_header else "Invalid bearer token"
                return refusal(text, status=401, kind="authentication_error")
        if "anthropic-version" not in request.headers:
            return refusal("anthropic-version: header is required")
        return None

    def _faults(self, body: dict[str, Any], request: web.Request, *, counting: bool = False) -> Iterator[Refusal]:
        yield from faults(body, version=request.headers["anthropic-version"], counting=counting)
        if body["model"] not in self.settings.models:
            yield refusal(f"model: {body['model']}", status=404, kind="not_found_error")
        tokens = _prompt_tokens(body)
        if tokens > self.settings.context_tokens:
            yield refusal(f"prompt is too long: {tokens} tokens > {self.settings.context_tokens} maximum")

    def error_of(self, error: ErrorTurn) -> Refusal:
        kind, message = _DEFAULT_ERRORS.get(error.status, _DEFAULT_ERRORS[500])
        headers = dict(error.headers)
        if error.status == 429:
            seconds = error.retry_after if error.retry_after is not None else 20.0
            headers = {
                "retry-after": f"{seconds:g}",
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:00Z",
                **headers,
            }
        elif error.retry_after is not None:
            headers = {"retry-after": f"{error.retry_after:g}", **headers}
        built = refusal(error.message or message, status=error.status, kind=error.type or kind)
        return Refusal(built.status, built.body, headers)

    def last_text(self, body: dict[str, Any]) -> str:
        spoken = [message for message in body["messages"] if message["role"] != "system"]
        return _text_of(spoken[-1]["content"])

    def frames(self, turn: Turn, body: dict[str, Any]) -> Sequence[Frame]:
        return list(self._events(turn, body))

    def _events(self, turn: Turn, body: dict[str, Any]) -> Iterator[Frame]:
        message = self._message(turn, body)
        usage = message["usage"]
        opening = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        yield _event("message_start", message=opening)
        blocks = itertools.count()
        if turn.thinking:
            signature = {"type": "signature_delta", "signature": "c2lnbmF0dXJl"}
            deltas = [{"type": "thinking_delta", "thinking": turn.thinking}, signature]
            yield from _block(next(blocks), {"type": "thinking", "thinking": "", "signature": ""}, deltas)
        yield _event("ping")
        if turn.pieces():
            deltas = [{"type": "text_delta", "text": piece} for piece in turn.pieces()]
            yield from _block(next(blocks), {"type": "text", "text": ""}, deltas)
        for call in turn.tool_calls:
            start = {"type": "tool_use", "id": self._call_id(call), "name": call.name, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _fragments(call)]
            yield from _block(next(blocks), start, deltas)
        delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage=usage)
        yield _event("message_stop")

    def in_stream_error(self, refusal: Refusal) -> bytes:
        return f"event: error\ndata: {json.dumps(refusal.body)}\n\n".encode()

    def whole(self, turn: Turn, body: dict[str, Any]) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if turn.thinking:
            content.append({"type": "thinking", "thinking": turn.thinking, "signature": "c2lnbmF0dXJl"})
        if turn.pieces():
            content.append({"type": "text", "text": turn.whole_text()})
        for call in turn.tool_calls:
            given = json.loads(call.arguments) if isinstance(call.arguments, str) else call.arguments
            content.append({"type": "tool_use", "id": self._call_id(call), "name": call.name, "input": given})
        return {**self._message(turn, body), "content": content}

    def _call_id(self, call: ToolCallTurn) -> str:
        return call.id or f"toolu_{next(self._numbers):06d}"

    def _message(self, turn: Turn, body: dict[str, Any]) -> dict[str, Any]:
        written = turn.whole_text() + "".join("".join(_fragments(call)) for call in turn.tool_calls)
        prompt = turn.input_tokens if turn.input_tokens is not None else _prompt_tokens(body)
        return {
            "id": f"msg_{next(self._numbers):06d}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": turn.finish or ("tool_use" if turn.tool_calls else "end_turn"),
            "stop_sequence": None,
            "usage": {
                "input_tokens": prompt,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": turn.cached_tokens,
                "output_tokens": turn.output_tokens if turn.output_tokens is not None else estimate_tokens(written),
                "service_tier": "standard",
            },
        }

    async def _count_tokens(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        await self.record(request, body)
        denied = self._denied(request)
        if denied is None and not isinstance(body, dict):
            denied = refusal("The request body is not valid JSON")
        denied = denied or next(self._faults(body, request, counting=True), None)
        if denied is not None:
            return self.refusal_response(denied)
        return web.json_response({"input_tokens": _prompt_tokens(body)}, headers=self.answer_headers())

    async def _models(self, request: web.Request) -> web.Response:
        await self.record(request, None)
        denied = self._denied(request)
        if denied is not None:
            return self.refusal_response(denied)
        listed = [_model_entry(model) for model in self.settings.models]
        page = {"data": listed, "has_more": False, "first_id": listed[0]["id"], "last_id": listed[-1]["id"]}
        return web.json_response(page, headers=self.answer_headers())

    async def _model(self, request: web.Request) -> web.Response:
        await self.record(request, None)
        model = request.match_info["model"]
        denied = self._denied(request)
        if denied is None and model not in self.settings.models:
            denied = refusal(f"model: {model}", status=404, kind="not_found_error")
        if denied is not None:
            return self.refusal_response(denied)
        return web.json_response(_model_entry(model), headers=self.answer_headers())


def _event(kind: str, *, is_content: bool = False, **fields: Any) -> Frame:
    data = json.dumps({"type": kind, **fields})
    return Frame(f"event: {kind}\ndata: {data}\n\n".encode(), is_content=is_content)


def _block(index: int, start: dict[str, Any], deltas: list[dict[str, Any]]) -> Iterator[Frame]:
    yield _event("content_block_start", index=index, content_block=start)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta, is_content=True)
    yield _event("content_block_stop", index=index)


def _fragments(call: ToolCallTurn) -> list[str]:
    text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    # The real stream opens with an empty fragment.
    return ["", *(text[start : start + _FRAGMENT_CHARACTERS] for start in range(0, len(text), _FRAGMENT_CHARACTERS))]


def _text_of(content: Any) -> str:
    """The last text of a message's content, or the text of its tool results where it has none."""
    if isinstance(content, str):
        return content
    texts = [block["text"] for block in content if block["type"] == "text"]
    if texts:
        return str(texts[-1])
    return "".join(_text_of(block.get("content") or "") for block in content if block["type"] == "tool_result")


def _prompt_tokens(body: dict[str, Any]) -> int:
    return estimate_tokens([body.get("system"), body["messages"], body.get("tools")])


def _model_entry(model: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model,
        "display_name": model.replace("-", " ").title(),
        "created_at": "2025-01-01T00:00:00Z",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


MODELS = [
    "claude-fable-5",
    "claude-haiku-5-5",
    "claude-opus-4-7",
    "claude-opus-4-8",
    "claude-opus-5",
    "claude-opus-5-5",
    "claude-sonnet-5",
    "claude-sonnet-5-5",
    "claude-opus-4-1",
    "claude-opus-4-5",
    "claude-opus-4-6",
    "claude-sonnet-4-5",
    "claude-sonnet-4-5-20250929",
    "claude-sonnet-4-6",
    "claude-haiku-4-5",
    "claude-haiku-4-5-20251001",
]

if __name__ == "__main__":
    main(AnthropicEmulator, Settings(context_tokens=200_000, models=MODELS))
