"""Writes docs/reference/: the protocol as this gateway speaks it, and who may what, from what is registered in a running one.

`python -m tests.support.reference` writes the files. Everything comes from the registry, the params and result types, the limits, the
table of refusals and a conversation that is held while the page is made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from openclaw_config.composed import compose
from openclaw_kernel.api import errors
from openclaw_kernel.api.methods import Access, EventSpec, Idempotency, Method
from openclaw_kernel.configuration.schema_file import file_text
from openclaw_kernel.host.composing import import_models, sections_of
from openclaw_kernel.host.discovery import discover
from openclaw_kernel.protocol.connect import ConnectParams
from openclaw_kernel.protocol.events import EventRegistry
from openclaw_kernel.protocol.limits import PROBE_PROTOCOL_VERSION, PROTOCOL_VERSION, Limits
from openclaw_kernel.testing import RunningGateway, run_gateway
from tests.kernel.protocol.refusals import REFUSALS, Refusal
from tests.support import grants
from tests.support.recorder import Recorder

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "protocol.md"
SCHEMA = PAGE.with_name("openclaw.schema.json")
OURS = ("openclaw_kernel.", "openclaw_plugins.", "openclaw_channels.", "openclaw_providers.")
DEEPEST = 2
WIDEST = 120

LIMITS = {
    "payload_before_hello": "bytes of all frames before hello-ok",
    "max_payload": "bytes of one frame after it",
    "max_buffered": "bytes that may wait for a client that reads slowly",
    "max_buffered_events": "bytes of events among them",
    "unread_answers": "bytes that wait when no more requests are read",
    "attachment_bytes": "bytes of an attachment",
    "attachment_image_bytes": "bytes of an image",
    "tick_interval_ms": "milliseconds between two `tick` events",
    "handshake_seconds": "seconds until hello-ok",
    "ping_seconds": "seconds between two pings",
    "pong_seconds": "seconds until the pong",
    "close_seconds": "seconds between the close frame and the cut",
    "unauthenticated_per_address": "connections before hello-ok from one address or IPv6 network",
    "queued_requests": "requests of one connection in flight",
    "queued_request_bytes": "bytes of them",
    "wrong_role_calls": "calls of another role's methods, one more ends the connection",
    "topics_per_client": "subscriptions of one connection",
    "health_seconds": "seconds after which the health is looked at again",
    "dedupe_entries": "answers kept for a repeated `idempotencyKey`",
    "dedupe_seconds": "seconds for which they are kept",
    "control_plane_calls": "calls of one control-plane method from one address",
    "control_plane_seconds": "seconds in which these are counted",
}
"""The limits that a client can meet."""


def shape(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int = 0) -> str:
    """A JSON schema in the notation of the page."""
    if "$ref" in schema:
        return shape(definitions[schema["$ref"].rpartition("/")[2]], definitions, depth)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        parts = [shape(part, definitions, depth) for part in schema["anyOf"]]
        return " | ".join(dict.fromkeys(parts))
    kind = schema.get("type")
    if kind == "array":
        inner = shape(schema.get("items", {}), definitions, depth)
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    if kind == "object":
        return _object(schema, definitions, depth)
    return str(kind or "any")


def _object(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> str:
    if not schema.get("properties"):
        values = schema.get("additionalProperties")
        return f"{{[key]: {shape(values, definitions, depth + 1)}}}" if isinstance(values, dict) and values else "object"
    if depth >= DEEPEST:
        return "object"
    required = set(schema.get("required", ()))
    keys = [
        f"{key}{'' if key in required else '?'}: {_without_null(shape(value, definitions, depth + 1))}"
        for key, value in schema["properties"].items()
    ]
    return "{" + ", ".join(keys) + "}"


def rows(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None, depth: int = 1) -> Iterator[str]:
    """The keys of an object, a line each, and what is too wide for one line in several; empty where it has none."""
    definitions = definitions or schema.get("$defs", {})
    required = set(schema.get("required", ()))
    for key, value in schema.get("properties", {}).items():
        name = key if key in required else f"{key}?"
        remarks = _remarks(value, required=key in required)
        line = f"{name}: {_without_null(shape(value, definitions, depth))}{remarks}"
        inner = definitions.get(str(value.get("$ref", "")).rpartition("/")[2], value)
        if len(line) <= WIDEST:
            yield line
        elif inner.get("properties"):
            yield f"{name}: {{{remarks}"
            yield from (f"  {row}" for row in rows(inner, definitions, depth + 1))
            yield "}"
        else:
            yield from textwrap.wrap(line, WIDEST, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _without_null(text: str) -> str:
    # A key that may be left out may be null as well; the page says so once.
    return text.removesuffix(" | null")


def _remarks(value: Mapping[str, Any], *, required: bool) -> str:
    inner: dict[str, Any] = dict(value)
    for part in value.get("anyOf", ()):
        inner |= {key: word for key, word in part.items() if key not in inner}
    remarks = [_range(inner, "minLength", "maxLength", "characters"), _range(inner, "minItems", "maxItems", "entries")]
    remarks.append(_range(inner, "minimum", "maximum", ""))
    if not required and not isinstance(value.get("default"), dict | list | None):
        remarks.append(f"default {json.dumps(value['default'])}")
    if "description" in value:
        remarks.append(" ".join(value["description"].split()))
    said = "; ".join(remark for remark in remarks if remark)
    return f"  // {said}" if said else ""


def _range(value: Mapping[str, Any], low: str, high: str, unit: str) -> str:
    least, most = value.get(low), value.get(high)
    # The largest integer of JavaScript, and texts that are not empty, need no word.
    if most is not None and most < 2**53 - 1:
        return f"{least if least is not None else 0} to {most} {unit}".strip()
    return f"at least {least} {unit}".strip() if least is not None and least > 1 else ""


def who(method: Method) -> str:
    """Who may call a method."""
    if method.access is Access.ANYONE:
        return "anyone"
    if method.access is Access.NODE:
        return "role `node`"
    return " or ".join(f"`{scope.value}`" for scope in sorted(method.scopes)) + (", more by its params" if method.requires else "")


def repeats(method: Method) -> str:
    """What a repeated call does."""
    if method.idempotency is Idempotency.NONE:
        why = getattr(method, "repeatable", "")
        return f"a repeat is carried out again: {why}" if why else ""
    if method.idempotency is Idempotency.JOIN:
        return "a repeat of its `idempotencyKey` waits for the first call and gets its answer"
    return "a repeat of its `idempotencyKey` gets the answer of the first call, or `in_flight`"


def section(method: Method) -> str:
    """What the page says of one method."""
    lines = [f"### {method.name}", "", " ".join(method.doc.split()), ""]
    facts = [f"Scope: {who(method)}", repeats(method)]
    facts += ["counted as control plane"] if method.control_plane else []
    facts += ["taken also while the gateway stops"] if method.while_draining else []
    facts += [] if method.advertised else ["not in `features.methods`"]
    lines += ["; ".join(fact for fact in facts if fact) + ".", "", "```ts"]
    params = list(rows(method.params.model_json_schema(by_alias=True))) if method.params else []
    lines += ["params {", *(f"  {row}" for row in params), "}"] if params else ["params {}"]
    result = TypeAdapter(method.result).json_schema(by_alias=True)
    answered = list(rows(result))
    lines += ["result {", *(f"  {row}" for row in answered), "}"] if answered else [f"result {shape(result, result.get('$defs', {}))}"]
    return "\n".join([*lines, "```"])


class Conversation:
    """What a client sees of a short conversation; the examples of the page."""

    def __init__(self, gateway: RunningGateway, records: list[bytes]) -> None:
        self._gateway = gateway
        self._records = records

    async def hold(self) -> None:
        """Subscribe, and have a question answered."""
        call = self._gateway.call
        await call("sessions.subscribe")
        await self._gateway.ask("hello", session_key="agent:main:main")
        await self._gateway.event("sessions.changed", lambda payload: payload.get("reason") is not None or "phase" in payload)
        await call("system-event", {"text": "a laptop", "host": "laptop"})
        await self._gateway.event("presence")

    def event(self, name: str, **wanted: Any) -> str | None:
        """The first event of this name with these values, None where none came."""
        for frame in self._gateway.transcript:
            payload = frame.get("payload")
            if frame.get("event") == name and isinstance(payload, dict) and wanted.items() <= payload.items():
                return example(frame)
        return None

    def request(self, method: str) -> str:
        """The first request for a method, as the gateway read it."""
        for record in self._records:
            head, _, text = record.partition(b"\n")
            if head.startswith(b"I ") and (frame := json.loads(text))["method"] == method:
                return example(frame)
        raise LookupError(f"nobody asked for {method}")

    def answer(self, **wanted: Any) -> str:
        """The first result with these values."""
        results = (frame for frame in self._gateway.transcript if frame["type"] == "res" and isinstance(frame.get("payload"), dict))
        frame = next(frame for frame in results if wanted.items() <= frame["payload"].items())
        # Only there where the turn began before the answer, which is another thing on a busy machine.
        payload = {key: value for key, value in frame["payload"].items() if key != "messageSeq"}
        return example({**frame, "payload": payload})

    def hello(self) -> str:
        """The answer to connect."""
        frame = next(one for one in self._gateway.transcript if one["type"] == "res")
        return example(frame, deepest=3)


def example(frame: Mapping[str, Any], deepest: int = 6) -> str:
    """A frame with what differs from run to run replaced, and what is long left out."""
    return pretty(_still(frame, deepest))


def pretty(value: Any, indent: str = "") -> str:
    """JSON in one line where it fits, else a line a key."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent + line) <= WIDEST or not isinstance(value, dict):
        return line
    deeper = f"{indent}  "
    keys = [f"{deeper}{json.dumps(key)}: {pretty(inner, deeper)}" for key, inner in value.items()]
    return "{\n" + ",\n".join(keys) + f"\n{indent}}}"


_VARYING = {
    "ts": 1750000000000,
    "nonce": "6f0c8d0e-…",
    "runId": "q-1",
    "messageId": "m-1",
    "sessionId": "s-1",
    "version": "0.1.0",
    "token": "the-shared-secret",
    "id": "1",
    "connId": "c-1",
    "bootId": "b-1",
    "appliedConfigHash": "h-1",
    "seq": 7,
    "uptimeMs": 1234,
    "durationMs": 2,
    "presence": 1,
    "health": 1,
}


def _still(value: Any, deepest: int, key: str = "") -> Any:
    if isinstance(value, dict):
        if deepest == 0:
            return {"…": "…"} if value else {}
        return {name: _still(inner, deepest - 1, name) for name, inner in value.items()}
    if isinstance(value, list):
        # Presence names the machine on which the page is made.
        kept = [] if key == "presence" else [_still(inner, deepest - 1, key) for inner in value[:2]]
        return [*kept, "…"] if len(value) > len(kept) else kept
    if key in _VARYING:
        return _VARYING[key]
    if isinstance(value, int) and value > 10**12:
        return 1750000000000
    return _steady(value) if isinstance(value, str) else value


def _steady(text: str) -> str:
    text = re.sub(r"/[^ ]*openclaw-reference[^ /]*", "~/.openclaw-kernel", text)
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "s-1", text)
    return re.sub(r"\b[0-9a-f]{16,}\b", "q-1", text)


def table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    rule = "| " + " | ".join("---" for _ in head) + " |"
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join(["| " + " | ".join(head) + " |", rule, *body])


def events(registry: EventRegistry, conversation: Conversation) -> str:
    """The table of events, and an example of those that the conversation saw."""
    lines = [(f"`{spec.name}`", heard_by(spec), spec.doc) for spec in registry.all() if spec.advertised]
    examples = [
        conversation.event("agent", stream="lifecycle"),
        conversation.event("agent", stream="assistant"),
        conversation.event("chat", state="delta"),
        conversation.event("chat", state="final"),
        conversation.event("tick"),
    ]
    return "\n".join([table(("event", "heard by", "when"), lines), "", "```json", *(one for one in examples if one is not None), "```"])


def heard_by(spec: EventSpec) -> str:
    """Who is told of an event."""
    return "everybody" if spec.scope is Access.ANYONE else f"`{spec.scope.value}`"


def limits() -> str:
    """The table of limits."""
    values = Limits()
    lines = []
    for one in fields(values):
        value = getattr(values, one.name)
        if one.name in LIMITS:
            lines.append((LIMITS[one.name], f"{value:,}" if isinstance(value, int) else f"{value:,g}"))
    return table(("limit", "value"), lines)


def refusals() -> str:
    """The table of close codes and refusals."""

    def line(refusal: Refusal) -> tuple[str, str, str, str]:
        reason = f"`{refusal.reason}`" if refusal.reason else "empty" if refusal.code == "1000" else ""
        return (refusal.code, reason, refusal.detail and f"`{refusal.detail}`", refusal.when)

    return table(("close or answer", "reason", "`details.code` or `details.reason`", "when"), [line(one) for one in REFUSALS if one.tests])


def error_codes() -> str:
    """The table of wire codes."""
    found: dict[str, str] = {}
    for name in sorted(vars(errors)):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.GatewayError) and "code" in vars(kind) and kind is not errors.GatewayError:
            found.setdefault(kind.code, (kind.__doc__ or "").strip().splitlines()[0])
    return table(("code", "meaning"), [(f"`{code}`", meaning) for code, meaning in sorted(found.items())])


BEGINNING = f"""# The protocol

<!-- Made by `make docs`; what is changed here is overwritten. -->

One WebSocket on the gateway's port, any path that is no other route. Each text message is one JSON object:

| frame | keys |
| --- | --- |
| request | `type: "req"`, `id`, `method`, `params?`, `traceparent?` (at most 128 characters), `expectedProfileId?` (1 to 128) |
| response | `type: "res"`, `id`, `ok`, `payload?`, `error? {{code, message, details?, retryable?, retryAfterMs?}}` |
| event | `type: "event"`, `event`, `payload`, `seq?`, `stateVersion? {{presence, health}}` |

Responses come in any order. `agent` answers twice on one id: `accepted`, then the end of the run. Events that are broadcast carry
`seq`, counted for each connection from 1; a gap means that events were left out because the client reads too slowly. Events for one
client alone, the challenge among them, carry none.

In the shapes below a key with `?` may be left out (or be null, in params). Unknown keys in params are refused, in results and
events they may appear at any time.

## Connecting

The gateway sends the challenge, the client the request `connect`, the gateway `hello-ok`. It speaks version {PROTOCOL_VERSION};
the range of the client has to reach it. Probes (mode `probe`) and nodes (role and mode `node`) may still speak
{PROBE_PROTOCOL_VERSION}.
"""


async def pages() -> dict[Path, str]:
    """All pages."""
    # Before a gateway runs, whose watchdog would take these imports for a plugin that blocks the loop.
    schema = config_schema()
    with tempfile.TemporaryDirectory(prefix="openclaw-reference") as folder:
        records: list[bytes] = []
        recorder = Recorder(records.append)
        recorder.install()
        try:
            async with run_gateway(Path(folder), {"models": {"providers": {"echo": {}}}}) as gateway:
                conversation = Conversation(gateway, records)
                await conversation.hold()
                methods = grants.registered(gateway.app.wire.registry, OURS)
                events = gateway.app.facts.events
                return {PAGE: render(methods, events, conversation), grants.PAGE: grants.page(methods, events), SCHEMA: schema}
        finally:
            recorder.remove()


def config_schema() -> str:
    """The schema of `openclaw.yaml` for editors, with the plugins that are bundled."""
    everything = discover()
    bundled = replace(everything, plugins=tuple(found for found in everything.plugins if found.bundled))
    return file_text(compose(sections_of(bundled, import_models(bundled, {}))), "")


def render(methods: list[Method], registry: EventRegistry, conversation: Conversation) -> str:
    """The page from what was collected."""
    index = [(f"[`{one.name}`](#{one.name.replace('.', '')})", who(one), " ".join(one.doc.split())) for one in methods]
    handshake = [conversation.event("connect.challenge") or "", conversation.request("connect"), conversation.hello()]
    parts = [
        BEGINNING,
        "```ts\nparams {\n" + "\n".join(f"  {row}" for row in rows(ConnectParams.model_json_schema(by_alias=True))) + "\n}\n```\n",
        "```json\n" + "\n".join(handshake) + "\n```\n",
        "Then a question, which is answered at once with the run and later by the events `agent` and `chat`:\n",
        "```json\n" + conversation.request("chat.send") + "\n" + conversation.answer(status="started") + "\n```\n",
        "## Errors\n",
        "Tell errors apart by `details.code` or `details.reason`; the messages are for people.\n",
        error_codes() + "\n",
        "## Closes and refusals\n",
        "An error is sent before the close wherever a request was understood. A reason is cut at 120 bytes.\n",
        refusals() + "\n",
        "## Limits\n",
        limits() + "\n",
        "## Events\n",
        events(registry, conversation) + "\n",
        "## Methods\n",
        "Who may call what, and who hears what, is one table in [grants.md](grants.md).\n",
        table(("method", "scope", "does"), index) + "\n",
        *(section(method) + "\n" for method in methods),
    ]
    return "\n".join(parts)


def main() -> None:
    """Write the pages."""
    logging.disable(logging.WARNING)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    for path, text in asyncio.run(pages()).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
