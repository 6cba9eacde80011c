"""The methods on nodes. Who may approve a surface is decided by `refuse_beyond`, over the scopes that the surface takes."""

from __future__ import annotations

from functools import partial
from typing import Any

from openclaw_kernel.api import (
    Call,
    Client,
    Connections,
    InvalidRequest,
    PluginContext,
    Scope,
    device_of,
    device_principal,
    origin_of,
    refuse_beyond,
    rpc,
)
from openclaw_plugins.pairing import node_wire
from openclaw_plugins.pairing.decisions import Decisions
from openclaw_plugins.pairing.node_records import NodeRequest, scopes_to_approve
from openclaw_plugins.pairing.nodes import NodeBook
from openclaw_plugins.pairing.records import Device, printable
from openclaw_plugins.pairing.rules import NODE, OPERATOR
from openclaw_plugins.pairing.wire import NoParams, RequestParams

_LONGEST_NAME = 64


class NodeMethods:
    """node.pair.*, node.list, node.describe and node.rename."""

    def __init__(self, context: PluginContext, book: NodeBook, decisions: Decisions) -> None:
        self._context = context
        self._book = book
        self._decisions = decisions

    @rpc("node.pair.list", scope=Scope.PAIRING, params=NoParams, result=node_wire.NodePairListResult)
    def pair_list(self, _call: Call, _params: NoParams) -> dict[str, Any]:
        """List the nodes whose surface waits for approval, and those whose surface is approved."""
        devices = {device.device_id: device for device in self._decisions.devices()}
        waiting = sorted(self._book.requests.values(), key=lambda request: (request.created_ms, request.request_id))
        return {
            "pending": [self._pending(request, devices[request.node_id]) for request in waiting],
            "paired": [
                node_wire.paired(node, devices[node_id], connected=self._connected(node_id))
                for node_id, node in sorted(self._book.nodes.items())
            ],
        }

    @rpc(
        "node.pair.approve",
        scope=Scope.PAIRING,
        params=RequestParams,
        result=node_wire.NodeApproveResult,
        repeatable="a request is decided once; a second call finds none",
    )
    async def approve(self, call: Call, params: RequestParams) -> dict[str, Any]:
        """Approve what a node declares: commands take operator.write as well, those that reach the whole machine operator.admin."""
        request = self._book.request(params.request_id)
        allowed = partial(_may_approve, call.client, request)
        allowed()
        node = await self._book.approve(request.request_id, origin_of(call), allowed=allowed)
        device = next(device for device in self._decisions.devices() if device.device_id == node.node_id)
        return {"requestId": request.request_id, "node": node_wire.paired(node, device, connected=self._connected(node.node_id))}

    @rpc(
        "node.pair.reject",
        scope=Scope.PAIRING,
        params=RequestParams,
        result=node_wire.NodeRejectResult,
        repeatable="a request is decided once; a second call finds none",
    )
    async def reject(self, call: Call, params: RequestParams) -> dict[str, Any]:
        """Forget what a node declares in addition; what was approved before stays."""
        request = self._book.request(params.request_id)
        allowed = partial(_may_manage, call.client)
        allowed()
        await self._book.reject(request.request_id, origin_of(call), allowed=allowed)
        return {"requestId": request.request_id, "nodeId": request.node_id}

    @rpc(
        "node.pair.remove",
        scope=Scope.PAIRING,
        params=node_wire.NodeParams,
        result=node_wire.NodeRemoveResult,
        repeatable="a node that is gone is gone",
    )
    async def remove(self, call: Call, params: node_wire.NodeParams) -> dict[str, Any]:
        """Take the role node away from a device, with all that was approved of it, and close its connections."""
        self._book.node_device(params.node_id)
        allowed = partial(refuse_beyond, call.client, params.node_id, NODE)
        allowed()
        await self._decisions.revoke(params.node_id, NODE, origin_of(call), answering=call.client.connection_id, allowed=allowed)
        return {"nodeId": params.node_id}

    @rpc(
        "node.rename",
        scope=Scope.PAIRING,
        params=node_wire.RenameParams,
        result=node_wire.NodeRenameResult,
        repeatable="the same name a second time changes nothing",
    )
    async def rename(self, call: Call, params: node_wire.RenameParams) -> dict[str, Any]:
        """Call a node, and with it its device, by a name of one's own."""
        self._book.node_device(params.node_id)
        name = printable(params.display_name)
        if not 0 < len(name) <= _LONGEST_NAME:
            raise InvalidRequest(f"displayName: has {len(name)} characters that can be shown; give it 1 to {_LONGEST_NAME}")
        allowed = partial(_may_manage, call.client)
        allowed()
        await self._decisions.rename(params.node_id, name, origin_of(call), allowed=allowed)
        return {"nodeId": params.node_id, "displayName": name}

    @rpc("node.list", scope=Scope.READ, params=NoParams, result=node_wire.NodeListResult)
    def list(self, _call: Call, _params: NoParams) -> dict[str, Any]:
        """List the devices with the role node, and what of each counts."""
        rows = [self._row(device) for device in self._decisions.devices() if NODE in device.live_roles]
        return {"ts": self._context.now_ms(), "nodes": rows}

    @rpc("node.describe", scope=Scope.READ, params=node_wire.NodeParams, result=node_wire.NodeDescribeResult)
    def describe(self, _call: Call, params: node_wire.NodeParams) -> dict[str, Any]:
        """Tell of one node."""
        self._book.node_device(params.node_id)
        device = next(device for device in self._decisions.devices() if device.device_id == params.node_id)
        return {"ts": self._context.now_ms(), **self._row(device)}

    def _row(self, device: Device) -> dict[str, Any]:
        request = next((request for request in self._book.requests.values() if request.node_id == device.device_id), None)
        node = self._book.nodes.get(device.device_id)
        return node_wire.row(device, node, request, connected=self._connected(device.device_id))

    def _pending(self, request: NodeRequest, device: Device) -> dict[str, Any]:
        return node_wire.pending(request, device.about, device.label)

    def _connected(self, node_id: str) -> bool:
        return self._context.service(Connections).are_open(device_principal(node_id), role=NODE)


def _may_approve(caller: Client, request: NodeRequest) -> None:
    # A surface takes its scopes of whoever approves it, whatever device that is: it is the second gate, and gives no role.
    refuse_beyond(caller, _own(caller), OPERATOR, scopes_to_approve(request.surface))


def _may_manage(caller: Client) -> None:
    refuse_beyond(caller, _own(caller), OPERATOR)


def _own(caller: Client) -> str:
    return device_of(caller.principal) or ""
