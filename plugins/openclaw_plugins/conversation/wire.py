"""Params and results of this plugin's methods, as the protocol has them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from openclaw_kernel.api import Params

NonEmpty: TypeAlias = Annotated[str, Field(min_length=1)]
LARGEST: Final = (1 << 53) - 1
"""The largest number that every client can write."""
Count: TypeAlias = Annotated[int, Field(ge=0, le=LARGEST)]
Positive: TypeAlias = Annotated[int, Field(ge=1, le=LARGEST)]
Label: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
PermissionMode: TypeAlias = Literal["read-only", "guarded", "workspace", "full"]
JsonObject: TypeAlias = dict[str, Any]


class AttachmentParams(Params):
    """A file in a request; `content` is base64, also as a data URL."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel, validate_by_alias=True, validate_by_name=False)

    type: str | None = None
    mime_type: str | None = None
    file_name: str | None = None
    content: Any = None


class ChatSendParams(Params):
    session_key: Annotated[str, Field(min_length=1, max_length=512)]
    message: str
    idempotency_key: NonEmpty
    agent_id: NonEmpty | None = None
    session_id: NonEmpty | None = None
    intent: JsonObject | None = None
    thinking: str | None = None
    fast_mode: bool | Literal["auto"] | None = None
    fast_auto_on_seconds: Positive | None = None
    queue_mode: Literal["steer", "followup", "collect", "interrupt"] | None = None
    deliver: bool | None = None
    originating_channel: str | None = None
    originating_to: str | None = None
    originating_account_id: str | None = None
    originating_thread_id: str | None = None
    reply_to_id: NonEmpty | None = None
    attachments: list[AttachmentParams] = []
    tool_bindings: JsonObject | None = None
    timeout_ms: Count | None = None
    system_input_provenance: JsonObject | None = None
    system_provenance_receipt: str | None = None
    suppress_command_interpretation: bool | None = None
    expected_leaf_entry_id: str | None = None
    expected_session_routing_contract: NonEmpty | None = None
    expected_permission_mode: PermissionMode | None = None
    expected_tool_overrides: JsonObject | None = None


class ChatSendResult(TypedDict):
    """Either the acknowledgement of a run, or what a stop word did."""

    runId: NotRequired[str]
    status: NotRequired[Literal["started", "in_flight"]]
    messageSeq: NotRequired[int]
    interruptedActiveRun: NotRequired[bool]
    ok: NotRequired[bool]
    aborted: NotRequired[bool]
    runIds: NotRequired[list[str]]


class ChatHistoryParams(Params):
    session_key: NonEmpty
    agent_id: NonEmpty | None = None
    cursor: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    offset: Count = 0
    pending_before: Positive | None = None
    input_run_ids: Annotated[list[str], Field(min_length=1, max_length=50)] | None = None
    message_id: NonEmpty | None = None
    session_id: NonEmpty | None = None
    max_chars: Annotated[int, Field(ge=1, le=500_000)] | None = None
    max_bytes: Annotated[int, Field(ge=1024)] | None = None


class ChatHistoryResult(TypedDict):
    """A page, oldest first, or with a cursor what came since; `messages` carry `__openclaw: {id, seq}`."""

    sessionKey: NotRequired[str]
    kind: NotRequired[Literal["delta", "reset"]]
    sessionId: NotRequired[str]
    messages: NotRequired[list[Any]]
    deltaCursor: NotRequired[str]
    offset: NotRequired[int]
    nextOffset: NotRequired[int]
    hasMore: NotRequired[bool]
    totalMessages: NotRequired[int]
    defaults: NotRequired[JsonObject]
    sessionInfo: NotRequired[JsonObject]
    thinkingLevel: NotRequired[str]
    verboseLevel: NotRequired[str]
    inFlightRun: NotRequired[JsonObject]


class ChatAbortParams(Params):
    session_key: NonEmpty
    agent_id: NonEmpty | None = None
    run_id: NonEmpty | None = None
    preserve_side_runs: bool | None = None


class ChatAbortResult(TypedDict):
    ok: Literal[True]
    aborted: bool
    runIds: list[str]


class SessionsAbortParams(Params):
    key: NonEmpty | None = None
    run_id: NonEmpty | None = None
    agent_id: NonEmpty | None = None
    clear_queued: bool | None = None


class SessionsAbortResult(TypedDict):
    ok: Literal[True]
    status: Literal["aborted", "no-active-run"]
    abortedRunId: str | None
    runIds: list[str]
    """Beyond the reference: all that was stopped, with what waited."""


class ChatInjectParams(Params):
    session_key: NonEmpty
    agent_id: NonEmpty | None = None
    message: NonEmpty
    label: Annotated[str, Field(max_length=100)] | None = None
    idempotency_key: NonEmpty | None = None
    """Beyond the reference: with one, a repeat gets the first answer and changes nothing."""


class ChatInjectResult(TypedDict):
    ok: Literal[True]
    messageId: str


class SessionsListParams(Params):
    limit: Positive | None = None
    offset: Count = 0
    active_minutes: Positive | None = None
    require_last_interaction: bool | None = None
    sort_by: Literal["updatedAt", "lastInteractionAt", "activity"] | None = None
    include_global: bool = False
    include_unknown: bool = False
    configured_agents_only: bool = False
    include_derived_titles: bool = False
    include_last_message: bool = False
    label: Label | None = None
    board_face: Literal["chat", "dashboard"] | None = None
    creator_id: NonEmpty | None = None
    owner_id: NonEmpty | None = None
    owner_first: bool | None = None
    involving_me: bool | None = None
    involving_profile_id: NonEmpty | None = None
    include_people: bool | None = None
    spawned_by: NonEmpty | None = None
    agent_id: NonEmpty | None = None
    search: str | None = None
    archived: bool | Literal["all"] = False
    has_board: bool | None = None
    exclude_subagents: bool = False
    include_activity_summary: bool = False


class SessionsListResult(TypedDict):
    ts: int
    path: str
    count: int
    totalCount: int
    limitApplied: int
    nextOffset: int | None
    hasMore: bool
    owners: list[JsonObject]
    defaults: JsonObject
    sessions: list[JsonObject]


class SessionsGetParams(Params):
    key: NonEmpty | None = None
    session_key: NonEmpty | None = None
    agent_id: NonEmpty | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 200


class SessionsGetResult(TypedDict):
    messages: list[Any]


class SessionsDescribeParams(Params):
    key: NonEmpty
    agent_id: NonEmpty | None = None
    include_derived_titles: bool = False
    include_last_message: bool = False


class SessionsDescribeResult(TypedDict):
    session: JsonObject | None


class SessionReference(Params):
    """A key as an address has it. `slug` is of a name that the reference makes keys without names of; ours have none such."""

    key: NonEmpty
    slug: NonEmpty | None = None


class SessionsResolveParams(Params):
    key: NonEmpty | None = None
    session_id: NonEmpty | None = None
    label: Label | None = None
    reference: SessionReference | NonEmpty | None = None
    short_id: NonEmpty | None = None
    slug_hint: NonEmpty | None = None
    agent_id: NonEmpty | None = None
    spawned_by: NonEmpty | None = None
    include_global: bool = False
    include_unknown: bool = False
    allow_missing: bool = False


class SessionsResolveResult(TypedDict):
    ok: bool
    key: NotRequired[str]
    agentId: NotRequired[str]
    displayName: NotRequired[str]
    candidates: NotRequired[list[JsonObject]]


class SessionsPreviewParams(Params):
    keys: Annotated[list[NonEmpty], Field(min_length=1)]
    limit: Positive = 12
    max_chars: Annotated[int, Field(ge=20)] = 240


class SessionsPreviewResult(TypedDict):
    ts: int
    previews: list[JsonObject]


class SessionsPatchParams(Params):
    key: NonEmpty
    agent_id: NonEmpty | None = None
    expected_session_id: NonEmpty | None = None
    expected_lifecycle_revision: NonEmpty | None = None
    expected_permission_mode: PermissionMode | None = None
    expected_tool_overrides: JsonObject | None = None
    expected_marked_unread_at: Annotated[float, Field(ge=0)] | None = None
    label: Label | None = None
    icon: str | None = None
    color: str | None = None
    category: Label | None = None
    board_face: Literal["chat", "dashboard"] | None = None
    status_note: Annotated[str, Field(max_length=120)] | None = None
    attention: Literal["hand", "key", "alert", "flag", "lock", "hourglass"] | None = None
    ttl_minutes: Annotated[int, Field(ge=1, le=120)] | None = None
    archived: bool | None = None
    pinned: bool | None = None
    unread: bool | None = None
    context_window: NonEmpty | None = None
    thinking_level: NonEmpty | None = None
    fast_mode: bool | Literal["auto"] | None = None
    tool_overrides: JsonObject | None = None
    verbose_level: NonEmpty | None = None
    trace_level: NonEmpty | None = None
    reasoning_level: NonEmpty | None = None
    response_usage: Literal["off", "tokens", "full", "on"] | None = None
    elevated_level: NonEmpty | None = None
    exec_host: NonEmpty | None = None
    exec_security: NonEmpty | None = None
    exec_ask: NonEmpty | None = None
    exec_node: NonEmpty | None = None
    permission_mode: PermissionMode | None = None
    model: NonEmpty | None = None
    completion_owner_session_key: NonEmpty | None = None
    inherited_tool_policy_version: Literal[1] | None = None
    inherited_tool_allow: list[NonEmpty] | None = None
    inherited_tool_deny: list[NonEmpty] | None = None
    send_policy: Literal["allow", "deny"] | None = None
    group_activation: Literal["mention", "always"] | None = None


class SessionsPatchResult(TypedDict):
    ok: Literal[True]
    path: str
    key: str
    entry: JsonObject
    resolved: JsonObject


class SessionsResetParams(Params):
    key: NonEmpty
    agent_id: NonEmpty | None = None
    reason: Literal["new", "reset"] | None = None
    idempotency_key: NonEmpty | None = None
    """Beyond the reference: with one, a repeat gets the first answer and changes nothing."""


class SessionsResetResult(TypedDict):
    ok: Literal[True]
    key: str
    entry: JsonObject
    resolved: JsonObject


class SessionsDeleteParams(Params):
    key: NonEmpty
    agent_id: NonEmpty | None = None
    delete_transcript: bool = True
    expected_session_id: NonEmpty | None = None
    expected_lifecycle_revision: NonEmpty | None = None
    expected_session_updated_at: Annotated[float, Field(ge=0)] | None = None
    emit_lifecycle_hooks: bool | None = None
    archived_only: bool = False
    idempotency_key: NonEmpty | None = None
    """Beyond the reference: with one, a repeat gets the first answer and changes nothing."""


class SessionsDeleteResult(TypedDict):
    ok: Literal[True]
    key: str
    deleted: bool
    archived: list[str]


class SubscribeResult(TypedDict):
    subscribed: bool
    list: NotRequired[JsonObject]


class MessagesSubscribeParams(Params):
    key: NonEmpty
    agent_id: NonEmpty | None = None
    include_approvals: Literal[True] | None = None


class MessagesUnsubscribeParams(Params):
    key: NonEmpty
    agent_id: NonEmpty | None = None


class MessagesSubscribeResult(TypedDict):
    subscribed: bool
    key: str


class AgentParams(Params):
    message: NonEmpty
    idempotency_key: NonEmpty
    agent_id: NonEmpty | None = None
    provider: str | None = None
    model: str | None = None
    to: str | None = None
    reply_to: str | None = None
    session_id: str | None = None
    session_key: str | None = None
    expected_existing_session_id: NonEmpty | None = None
    thinking: str | None = None
    deliver: bool | None = None
    attachments: list[AttachmentParams] = []
    channel: str | None = None
    reply_channel: str | None = None
    account_id: str | None = None
    reply_account_id: str | None = None
    thread_id: str | None = None
    group_id: str | None = None
    group_channel: str | None = None
    group_space: str | None = None
    timeout: Count | None = None
    best_effort_deliver: bool | None = None
    lane: str | None = None
    cwd: NonEmpty | None = None
    cleanup_bundle_mcp_on_run_end: bool | None = None
    model_run: bool | None = None
    prompt_mode: Literal["full", "minimal", "none"] | None = None
    extra_system_prompt: str | None = None
    bootstrap_context_mode: Literal["full", "lightweight"] | None = None
    bootstrap_context_run_kind: Literal["default", "heartbeat", "cron"] | None = None
    acp_turn_source: Literal["manual_spawn"] | None = None
    internal_runtime_handoff_id: NonEmpty | None = None
    internal_execution_identity_retry: bool | None = None
    internal_execution_identity_recovery_attempt: Positive | None = None
    exec_approval_followup_expected_session_id: NonEmpty | None = None
    internal_events: list[JsonObject] | None = None
    input_provenance: JsonObject | None = None
    suppress_prompt_persistence: bool | None = None
    session_effects: Literal["visible", "internal"] | None = None
    source_reply_delivery_mode: Literal["automatic", "message_tool_only"] | None = None
    disable_message_tool: bool | None = None
    swarm_collector: bool | None = None
    swarm_output_schema: JsonObject | None = None
    force_restart_safe_tools: bool | None = None
    force_code_mode_tools: bool | None = None
    voice_wake_trigger: str | None = None
    label: Label | None = None


class AgentResult(TypedDict):
    """Sent twice on one id: first `accepted`, then how the turn ended."""

    runId: str
    status: Literal["accepted", "in_flight", "ok", "error", "timeout"]
    sessionKey: NotRequired[str]
    agentId: NotRequired[str]
    acceptedAt: NotRequired[int]
    summary: NotRequired[str]
    result: NotRequired[JsonObject]


class AgentWaitParams(Params):
    run_id: NonEmpty
    timeout_ms: Count = 30_000


class AgentWaitResult(TypedDict):
    runId: str
    status: Literal["ok", "error", "timeout", "pending"]
    startedAt: NotRequired[int]
    endedAt: NotRequired[int]
    error: NotRequired[str]
    stopReason: NotRequired[str]


class SendParams(Params):
    to: NonEmpty
    idempotency_key: NonEmpty
    message: str | None = None
    media_url: str | None = None
    media_urls: list[str] | None = None
    buffer: str | None = None
    filename: str | None = None
    content_type: str | None = None
    as_voice: bool | None = None
    gif_playback: bool | None = None
    channel: str | None = None
    account_id: str | None = None
    agent_id: str | None = None
    reply_to_id: str | None = None
    thread_id: str | None = None
    force_document: bool | None = None
    silent: bool | None = None
    parse_mode: Literal["HTML"] | None = None
    session_key: str | None = None


class SendResult(TypedDict):
    runId: str
    messageId: str
    channel: str
    chatId: str
