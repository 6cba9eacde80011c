"""The methods that read the audit log."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from openclaw_kernel.api import AuditFilter, AuditReader, Call, Params, PluginContext, Scope, rpc

Text = Annotated[str, Field(min_length=1, max_length=512)]
Millis = Annotated[int, Field(ge=0, le=2**53 - 1)]
Cursor = Annotated[int, Field(ge=0, le=2**53 - 1)]


class ListParams(Params):
    """Which rows, and from where on. `action` is one (`device.approved`), or what stands before its dot (`device`)."""

    cursor: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    order: Literal["newest", "oldest"] = "newest"
    action: Text | None = None
    outcome: Literal["done", "refused"] | None = None
    actor: Text | None = None
    subject: Text | None = None
    trace_id: Text | None = None
    since_ms: Millis | None = None
    until_ms: Millis | None = None


class Nothing(Params):
    """No params."""


class Row(TypedDict):
    """A row with all that its hash is over."""

    v: int
    sequence: int
    timeMs: int
    action: str
    outcome: str
    actor: str
    surface: str
    address: str | None
    subject: str | None
    reason: str | None
    before: str | None
    after: str | None
    traceId: str | None
    details: dict[str, Any]
    previous: str
    hash: str


class ListResult(TypedDict):
    """`cursor` begins the next page; absent at the end. A page may be short, or empty, and still have one."""

    rows: list[Row]
    cursor: NotRequired[int]


class FaultFound(TypedDict):
    """The first row that is not what was written."""

    kind: Literal["changed", "removed", "reordered", "rewritten", "truncated", "unsigned", "checkpoint"]
    row: int
    message: str


class VerifyResult(TypedDict):
    """`signedRow` is the newest row that a checkpoint vouches for, `key` the fingerprint of the key that signed it.

    `brokenRows` are rows by which a start recorded that the log was not as it was left, the newest 20 of them.
    """

    ok: bool
    rows: int
    head: str
    checkpoints: int
    signedRow: int
    fault: FaultFound | None
    brokenRows: list[int]
    key: str | None


class AuditMethods:
    """audit.log.list and audit.log.verify."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @rpc(
        "audit.log.list",
        scope=Scope.ADMIN,
        params=ListParams,
        result=ListResult,
        repeatable="it only reads",
    )
    async def list(self, _call: Call, params: ListParams) -> dict[str, Any]:
        """List what was done and refused: who, from where, what, and the digests of before and after."""
        filters = AuditFilter(
            action=params.action,
            outcome=params.outcome,
            actor=params.actor,
            subject=params.subject,
            trace_id=params.trace_id,
            since_ms=params.since_ms,
            until_ms=params.until_ms,
        )
        reader = self._context.service(AuditReader)
        page = await reader.page(filters, behind=params.cursor, limit=params.limit, oldest_first=params.order == "oldest")
        answer: dict[str, Any] = {"rows": page.rows}
        if page.next is not None:
            answer["cursor"] = page.next
        return answer

    @rpc("audit.log.verify", scope=Scope.ADMIN, params=Nothing, result=VerifyResult, repeatable="it only reads", control_plane=True)
    async def verify(self, _call: Call, _params: Nothing) -> dict[str, Any]:
        """Check the whole chain and its signed checkpoints; name the first row that was changed, removed, reordered or cut off."""
        return dict(await self._context.service(AuditReader).verify())
