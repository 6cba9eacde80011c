"""What the Messages API refuses, in its own words. Each check yields refusals; the first one is the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.emulators.model_common import Refusal

_ID = re.compile(r"^[a-zA-Z0-9_-]+$")
_TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
_KNOWN_PARAMETERS = frozenset(
    "model messages max_tokens system stream stop_sequences temperature top_p top_k tools tool_choice metadata "
    "thinking service_tier container context_management mcp_servers output_config output_format cache_control "
    "inference_geo speed betas diagnostics fallbacks".split()
)
_USER_BLOCKS = ("text", "image", "document", "tool_result", "search_result")
_ASSISTANT_BLOCKS = ("text", "tool_use", "thinking", "redacted_thinking")
#: Under this version a system message belongs into the top-level `system` alone.
_OLD_VERSION = "2023-06-01"
#: An assistant message at the end is still taken by these.
_WITH_PREFILL = ("claude-3", "claude-opus-4-1", "claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")


def refusal(message: str, *, status: int = 400, kind: str = "invalid_request_error") -> Refusal:
    """An error in Anthropic's form."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_emulator"}
    return Refusal(status, body)


def without_controls(body: Any, betas: str) -> Any:
    """The body without the empty system messages that carry settings for one turn, where that beta is asked for."""
    if "per-turn-control" not in betas or not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return body
    kept = [item for item in body["messages"] if not (isinstance(item, dict) and item.get("role") == "system")]
    return {**body, "messages": kept}


def faults(body: dict[str, Any], *, version: str, counting: bool) -> Iterator[Refusal]:
    """Everything wrong with a request, in the order the server looks.

    `version` is the request's `anthropic-version`; `counting` is for count_tokens.
    """
    if not isinstance(body.get("model"), str) or not body["model"]:
        yield refusal("model: Field required")
        return
    if not counting:
        yield from _max_tokens_faults(body)
    for name in body:
        if name not in _KNOWN_PARAMETERS:
            yield refusal(f"{name}: Extra inputs are not permitted")
    messages = body.get("messages")
    if not isinstance(messages, list):
        yield refusal("messages: Field required" if messages is None else "messages: Input should be a valid list")
        return
    if not messages:
        yield refusal("messages: at least one message is required")
    yield from _system_faults(body.get("system"))
    for index, message in enumerate(messages):
        yield from _message_faults(message, index, version=version, is_last=index == len(messages) - 1)
    yield from _ending_faults(messages, body["model"])
    yield from _pairing_faults(messages)
    yield from _tools_faults(body)
    yield from _sampling_faults(body)


def _max_tokens_faults(body: dict[str, Any]) -> Iterator[Refusal]:
    limit = body.get("max_tokens")
    if limit is None:
        yield refusal("max_tokens: Field required")
    elif not isinstance(limit, int):
        yield refusal("max_tokens: Input should be a valid integer")
    elif limit < 1:
        yield refusal("max_tokens: Input should be greater than or equal to 1")


def _system_faults(system: Any) -> Iterator[Refusal]:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        yield refusal("system: Input should be a valid list")
        return
    for index, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text":
            yield refusal(f"system.{index}.type: Input should be 'text'")
        elif not block.get("text"):
            yield refusal("system: text content blocks must be non-empty")


def _message_faults(message: Any, index: int, *, version: str, is_last: bool) -> Iterator[Refusal]:
    where = f"messages.{index}"
    if not isinstance(message, dict):
        yield refusal(f"{where}: Input should be a valid dictionary")
        return
    role = message.get("role")
    if role == "system" and version == _OLD_VERSION:
        yield refusal(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.'
        )
    if role not in ("user", "assistant", "system"):
        yield refusal(f"{where}.role: Input should be 'user' or 'assistant'")
        return
    for name in message:
        if name not in ("role", "content"):
            yield refusal(f"{where}.{name}: Extra inputs are not permitted")
    yield from _content_faults(message.get("content"), where, role, may_be_empty=role != "user" and is_last)


def _content_faults(content: Any, where: str, role: str, *, may_be_empty: bool) -> Iterator[Refusal]:
    if content is None:
        yield refusal(f"{where}.content: Field required")
    elif not isinstance(content, str | list):
        yield refusal(f"{where}.content: Input should be a valid string or list")
    elif not content and role == "user":
        yield refusal(f"{where}: user messages must have non-empty content")
    elif not content and not may_be_empty:
        yield refusal(f"{where}: all messages must have non-empty content except for the optional final assistant message")
    elif isinstance(content, str) and content and not content.strip():
        yield refusal("messages: text content blocks must contain non-whitespace text")
    elif isinstance(content, list):
        for number, block in enumerate(content):
            yield from _block_faults(block, f"{where}.content.{number}", role)


def _block_faults(block: Any, where: str, role: str) -> Iterator[Refusal]:
    kind = block.get("type") if isinstance(block, dict) else None
    allowed = {"user": _USER_BLOCKS, "assistant": _ASSISTANT_BLOCKS, "system": ("text",)}[role]
    if kind not in allowed:
        if kind in (*_USER_BLOCKS, *_ASSISTANT_BLOCKS):
            other = "assistant" if role == "user" else "user"
            yield refusal(f"{where}: `{kind}` blocks can only be in `{other}` messages")
        yield refusal(f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
        return
    if kind == "text":
        yield from _text_faults(block, where)
    elif kind == "tool_use":
        yield from _tool_use_faults(block, where)
    elif kind == "tool_result":
        yield from _tool_result_faults(block, where)
    elif kind in ("image", "document") and not isinstance(block.get("source"), dict):
        yield refusal(f"{where}.{kind}.source: Field required")
    elif kind == "thinking" and not block.get("signature"):
        yield refusal(f"{where}.thinking.signature: Field required")


def _text_faults(block: dict[str, Any], where: str) -> Iterator[Refusal]:
    text = block.get("text")
    if not isinstance(text, str):
        yield refusal(f"{where}.text.text: Field required")
    elif not text:
        yield refusal("messages: text content blocks must be non-empty")
    elif not text.strip():
        yield refusal("messages: text content blocks must contain non-whitespace text")


def _tool_use_faults(block: dict[str, Any], where: str) -> Iterator[Refusal]:
    if not _ID.match(str(block.get("id", ""))):
        yield refusal(f"{where}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if not _TOOL_NAME.match(str(block.get("name", ""))):
        yield refusal(f"{where}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,200}}$'")
    if not isinstance(block.get("input"), dict):
        yield refusal(f"{where}.tool_use.input: Input should be a valid dictionary")


def _tool_result_faults(block: dict[str, Any], where: str) -> Iterator[Refusal]:
    if not isinstance(block.get("tool_use_id"), str):
        yield refusal(f"{where}.tool_result.tool_use_id: Field required")
    content = block.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        yield refusal(f"{where}.tool_result.content: Input should be a valid list")
        return
    for number, inner in enumerate(content):
        if isinstance(inner, dict) and inner.get("type") == "text":
            yield from _text_faults(inner, f"{where}.tool_result.content.{number}")


def _ending_faults(messages: list[dict[str, Any]], model: str) -> Iterator[Refusal]:
    if messages[-1]["role"] != "assistant":
        return
    if not model.startswith(_WITH_PREFILL):
        yield refusal("This model does not support assistant message prefill. The conversation must end with a user message.")
    content = messages[-1]["content"]
    last = content if isinstance(content, str) else content[-1].get("text", "") if content else ""
    if last != last.rstrip():
        yield refusal("messages: final assistant content cannot end with trailing whitespace")


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else []


def _merged(messages: list[dict[str, Any]]) -> list[tuple[int, str, list[dict[str, Any]]]]:
    """(index of the first message, role, blocks), consecutive messages of a role joined as the server does."""
    turns: list[tuple[int, str, list[dict[str, Any]]]] = []
    for index, message in enumerate(messages):
        blocks = _blocks(message) or [{"type": "text", "text": message["content"]}]
        if turns and turns[-1][1] == message["role"]:
            turns[-1][2].extend(blocks)
        else:
            turns.append((index, message["role"], list(blocks)))
    return turns


def _pairing_faults(messages: list[dict[str, Any]]) -> Iterator[Refusal]:
    turns = _merged(messages)
    seen: set[str] = set()
    for place, (index, role, blocks) in enumerate(turns):
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(called)) < len(called) or seen.intersection(called):
            yield refusal("messages: `tool_use` ids must be unique")
        seen.update(called)
        following = turns[place + 1][2] if place + 1 < len(turns) else []
        answered = _leading_results(following)
        missing = [identity for identity in called if identity not in answered]
        if missing:
            yield refusal(
                f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        before = [block["id"] for block in turns[place - 1][2] if block["type"] == "tool_use"] if place else []
        if role == "user":
            yield from _result_faults(blocks, before, index)


def _leading_results(blocks: list[dict[str, Any]]) -> set[str]:
    """The ids answered at the head of a user message: after other content a result does not count."""
    answered: set[str] = set()
    for block in blocks:
        if block["type"] != "tool_result":
            break
        answered.add(block["tool_use_id"])
    return answered


def _result_faults(blocks: list[dict[str, Any]], called: list[str], index: int) -> Iterator[Refusal]:
    answered: set[str] = set()
    for number, block in enumerate(blocks):
        if block["type"] != "tool_result":
            continue
        identity = block["tool_use_id"]
        if identity not in called:
            yield refusal(
                f"messages.{index}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{identity}. Each `tool_result` block must have a corresponding `tool_use` block in the previous "
                "message."
            )
        if identity in answered:
            yield refusal(
                f"messages.{index}.content.{number}: each tool_use must have a single result. Found multiple "
                f"`tool_result` blocks with id: {identity}"
            )
        answered.add(identity)


def _tools_faults(body: dict[str, Any]) -> Iterator[Refusal]:
    tools = body.get("tools")
    if tools is None:
        if body.get("tool_choice") is not None:
            yield refusal("tool_choice: may only be specified while providing tools")
        return
    if not isinstance(tools, list):
        yield refusal("tools: Input should be a valid list")
        return
    names = [tool.get("name") for tool in tools]
    if len(set(names)) < len(names):
        yield refusal("tools: Tool names must be unique.")
    for index, tool in enumerate(tools):
        # A tool the server runs itself carries a dated type and no schema.
        if tool.get("type") not in (None, "custom"):
            continue
        if not _TOOL_NAME.match(str(tool.get("name", ""))):
            yield refusal(f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        schema = tool.get("input_schema")
        if not isinstance(schema, dict):
            yield refusal(f"tools.{index}.custom.input_schema: Field required")
        elif schema.get("type") != "object":
            yield refusal(f"tools.{index}.custom.input_schema.type: Input should be 'object'")


def _sampling_faults(body: dict[str, Any]) -> Iterator[Refusal]:
    temperature = body.get("temperature")
    if temperature is not None and not 0 <= temperature <= 1:
        yield refusal("temperature: range: 0..1")
    thinking = body.get("thinking") or {}
    if thinking.get("type") != "enabled":
        return
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < 1024:
        yield refusal("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    elif budget >= body.get("max_tokens", budget + 1):
        yield refusal("`max_tokens` must be greater than `thinking.budget_tokens`")
    if temperature not in (None, 1):
        yield refusal("`temperature` may only be set to 1 when thinking is enabled")
