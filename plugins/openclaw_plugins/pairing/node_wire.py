"""Nodes on the wire: params, results and event payloads of node.pair.*, node.list, node.describe and node.rename."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from openclaw_kernel.api import EventSpec, Params, Scope
from openclaw_plugins.pairing.node_records import Node, NodeRequest, Surface, scopes_to_approve
from openclaw_plugins.pairing.records import About, Device

Id = Annotated[str, Field(min_length=1)]

EVENTS: Final = (
    EventSpec(name="node.pair.requested", scope=Scope.PAIRING, doc="A node declares what nobody has approved yet."),
    EventSpec(name="node.pair.resolved", scope=Scope.PAIRING, doc="A request of a node was decided, ended, or went with its node."),
)


class NodeParams(Params):
    node_id: Id


class RenameParams(Params):
    node_id: Id
    display_name: Annotated[str, Field(min_length=1)]


class SurfaceRow(TypedDict):
    caps: list[str]
    commands: list[str]
    permissions: dict[str, bool]


class AboutRow(SurfaceRow):
    nodeId: str
    displayName: NotRequired[str]
    platform: NotRequired[str]
    version: NotRequired[str]
    deviceFamily: NotRequired[str]
    modelIdentifier: NotRequired[str]
    remoteIp: NotRequired[str]
    clientId: NotRequired[str]
    clientMode: NotRequired[str]


class PendingNode(AboutRow):
    requestId: str
    requiredApproveScopes: list[str]
    silent: bool
    ts: int


class PairedNode(AboutRow):
    createdAtMs: int
    approvedAtMs: int
    connected: bool


class NodeRow(AboutRow):
    approvalState: Literal["unapproved", "pending-approval", "pending-reapproval", "approved"]
    pendingRequestId: NotRequired[str]
    approvedAtMs: NotRequired[int]
    paired: bool
    connected: bool


class NodePairListResult(TypedDict):
    pending: list[PendingNode]
    paired: list[PairedNode]


class NodeApproveResult(TypedDict):
    requestId: str
    node: PairedNode


class NodeRejectResult(TypedDict):
    requestId: str
    nodeId: str


class NodeRemoveResult(TypedDict):
    nodeId: str


class NodeRenameResult(TypedDict):
    nodeId: str
    displayName: str


class NodeListResult(TypedDict):
    ts: int
    nodes: list[NodeRow]


class NodeDescribeResult(NodeRow):
    ts: int


def surface(found: Surface) -> dict[str, Any]:
    """A surface."""
    return {
        "caps": list(found.caps),
        "commands": list(found.commands),
        "permissions": dict.fromkeys(found.permissions, True),
    }


def pending(request: NodeRequest, about: About, label: str | None = None) -> dict[str, Any]:
    """A request, in the list and as the payload of `node.pair.requested`."""
    return {
        "requestId": request.request_id,
        "nodeId": request.node_id,
        **_about(about, label, request.version, request.model),
        **surface(request.surface),
        "requiredApproveScopes": list(scopes_to_approve(request.surface)),
        "silent": False,
        "ts": request.created_ms,
    }


def paired(node: Node, device: Device, *, connected: bool) -> dict[str, Any]:
    """An approved node in the list of node.pair.list."""
    return {
        "nodeId": node.node_id,
        **_about(device.about, device.label, node.version, node.model),
        **surface(node.surface),
        "createdAtMs": node.created_ms,
        "approvedAtMs": node.approved_ms,
        "connected": connected,
    }


def row(device: Device, node: Node | None, request: NodeRequest | None, *, connected: bool) -> dict[str, Any]:
    """A node in node.list: what of it counts."""
    state = "unapproved" if request is None else "pending-approval"
    if node is not None:
        state = "approved" if request is None else "pending-reapproval"
    known = node or request
    return {
        "nodeId": device.device_id,
        **_about(device.about, device.label, None if known is None else known.version, None if known is None else known.model),
        **surface(Surface() if node is None else node.surface),
        "approvalState": state,
        **({} if request is None else {"pendingRequestId": request.request_id}),
        **({} if node is None else {"approvedAtMs": node.approved_ms}),
        "paired": node is not None,
        "connected": connected,
    }


def _about(about: About, label: str | None, version: str | None, model: str | None) -> dict[str, str]:
    told = {
        "displayName": label or about.display_name,
        "platform": about.platform,
        "version": version,
        "deviceFamily": about.device_family,
        "modelIdentifier": model,
        "remoteIp": about.address,
        "clientId": about.client_id,
        "clientMode": about.client_mode,
    }
    return {key: value for key, value in told.items() if value}
