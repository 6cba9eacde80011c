"""The second gate of a node: what it declares counts once a person approved it, and of what grew only what was approved before."""

from __future__ import annotations

import sqlite3
import uuid
from dataclasses import replace
from functools import partial
from typing import Any

from openclaw_kernel.api import (
    BY_GATEWAY,
    AuditAction,
    AuditEntry,
    AuditLog,
    AuditOrigin,
    Connections,
    DeviceClaim,
    DeviceGrant,
    Events,
    InvalidRequest,
    PluginContext,
    device_principal,
    state_digest,
)
from openclaw_plugins.pairing import node_tables, node_wire
from openclaw_plugins.pairing.changes import Allowed, there
from openclaw_plugins.pairing.node_records import Node, NodeRequest, Surface
from openclaw_plugins.pairing.records import About
from openclaw_plugins.pairing.roster import Roster, Step
from openclaw_plugins.pairing.rules import NODE


class NodeBook:
    """The nodes and their requests: in memory, and on disk before a change counts."""

    def __init__(self, context: PluginContext, roster: Roster) -> None:
        self._context = context
        self._roster = roster
        self.nodes: dict[str, Node] = {}
        self.requests: dict[str, NodeRequest] = {}
        self._asking: set[str] = set()
        roster.when_withdrawn.append(self.forget)

    async def load(self) -> None:
        """Read what is on disk, once the devices are there; a surface that is older than its node's role counts no longer."""
        nodes, requests = await self._context.store.read(node_tables.load)
        roles = {device.device_id: device.roles.get(NODE) for device in self._roster.devices.values()}
        live = {node_id: role for node_id, role in roles.items() if role is not None and role.revoked_ms is None}
        self.nodes = {
            node.node_id: node for node in nodes if node.node_id in live and node.generation >= self._roster.node_floor(node.node_id)
        }
        self.requests = {request.request_id: request for request in requests if request.node_id in live}

    # --- what the handshake asks ---

    def granted(self, claim: DeviceClaim, grant: DeviceGrant) -> DeviceGrant:
        """What of the declared surface counts; the rest is asked for."""
        declared, node = Surface.of(claim), self.nodes.get(claim.device_id)
        approved = Surface() if node is None else node.surface
        if node is None or declared.within(approved) != declared:
            self._ask(claim, declared)
        found = declared.within(approved)
        return replace(grant, caps=found.caps, commands=found.commands)

    def _ask(self, claim: DeviceClaim, declared: Surface) -> None:
        if claim.device_id not in self._asking:
            self._asking.add(claim.device_id)
            self._context.spawn("request of a node", self._asked(claim, declared))

    async def _asked(self, claim: DeviceClaim, declared: Surface) -> None:
        try:
            async with self._roster.changes.lock:
                await self._keep(claim, declared)
        finally:
            self._asking.discard(claim.device_id)

    async def _keep(self, claim: DeviceClaim, declared: Surface) -> None:
        # Its role may be gone since it connected, and what ended with the role must not come back.
        if not self._roster.changes.is_open or self._roster.live_role(claim.device_id, NODE) is None:
            return
        now_ms, about = self._context.now_ms(), About.of(claim)
        earlier = next((request for request in self.requests.values() if request.node_id == claim.device_id), None)
        if earlier is not None and earlier.surface == declared and earlier.expires_ms >= now_ms:
            self.requests[earlier.request_id] = replace(earlier, refreshed_ms=now_ms)
            await self._context.store.write(lambda connection: node_tables.refresh_request(connection, earlier.request_id, now_ms))
            return
        fresh = NodeRequest(
            request_id=str(uuid.uuid4()),
            node_id=claim.device_id,
            surface=declared,
            version=claim.version,
            model=claim.model_identifier,
            created_ms=now_ms,
            refreshed_ms=now_ms,
        )
        origin = AuditOrigin(actor=device_principal(claim.device_id), surface="ws", address=about.address)
        asked = self._audit(AuditAction.NODE_REQUESTED, origin, fresh.node_id, after=declared, details={"requestId": fresh.request_id})

        def keep(connection: sqlite3.Connection) -> bool:
            if not node_tables.put_request(connection, fresh):
                return False
            asked(connection)
            return True

        if not await self._context.store.write(keep):
            self._context.logger.warning("%d nodes wait for approval; approve or reject some", node_tables.MOST_REQUESTS)
            return
        if earlier is not None:
            del self.requests[earlier.request_id]
            self._tell_resolved(earlier, "expired" if earlier.expires_ms < now_ms else "rejected")
        self.requests[fresh.request_id] = fresh
        self._context.service(Events).broadcast("node.pair.requested", node_wire.pending(fresh, about))

    # --- what people do ---

    def request(self, request_id: str) -> NodeRequest:
        """A request that waits; raise `InvalidRequest`."""
        self._roster.changes.must_be_open()
        found = self.requests.get(request_id)
        if found is None:
            raise InvalidRequest(f"unknown requestId {request_id[:64]!r}; it was decided, replaced or is over; see node.pair.list")
        return found

    def node_device(self, node_id: str) -> None:
        """Raise `InvalidRequest` unless a device has the role node."""
        if self._roster.live_role(node_id, NODE) is None:
            raise InvalidRequest(f"unknown nodeId {node_id[:80]!r}; see node.list")

    async def approve(self, request_id: str, origin: AuditOrigin, *, allowed: Allowed) -> Node:
        """Approve what a node declared; its open connection has it at once."""
        request = self.request(request_id)
        return await self._roster.changes.make("approve node", partial(self._approve, request, origin), allowed)

    async def reject(self, request_id: str, origin: AuditOrigin, *, allowed: Allowed) -> NodeRequest:
        """Forget a request; what was approved before stays."""
        request = self.request(request_id)
        await self._roster.changes.make("reject node", partial(self._reject, request, origin), allowed)
        return request

    def forget(self, device_id: str, origin: AuditOrigin) -> Step:
        """The step that forgets a node whose role or device is taken away; memory forgets it at once."""
        node, waiting = self.nodes.pop(device_id, None), [one for one in self.requests.values() if one.node_id == device_id]
        for request in waiting:
            del self.requests[request.request_id]
            self._tell_resolved(request, "removed")
        if node is None:
            return lambda connection: node_tables.drop_node(connection, device_id)
        audited = self._audit(AuditAction.NODE_REMOVED, origin, device_id, before=node.surface)

        def drop(connection: sqlite3.Connection) -> None:
            node_tables.drop_node(connection, device_id)
            audited(connection)

        return drop

    async def expire(self) -> None:
        """End the requests of nodes that left long enough ago."""
        async with self._roster.changes.lock:
            await self._expire()

    async def _expire(self) -> None:
        now_ms, connections = self._context.now_ms(), self._context.service(Connections)
        over = [
            request
            for request in self.requests.values()
            if request.expires_ms < now_ms and not connections.are_open(device_principal(request.node_id))
        ]
        if not over:
            return
        rows = [
            self._audit(AuditAction.NODE_REJECTED, BY_GATEWAY, one.node_id, reason="expired", details={"requestId": one.request_id})
            for one in over
        ]

        def drop(connection: sqlite3.Connection) -> None:
            for request, row in zip(over, rows, strict=True):
                node_tables.drop_request(connection, request.node_id)
                row(connection)

        await self._context.store.write(drop)
        for request in over:
            self.requests.pop(request.request_id, None)
            self._tell_resolved(request, "expired")

    async def _approve(self, request: NodeRequest, origin: AuditOrigin) -> Node:
        now_ms, earlier = self._context.now_ms(), self.nodes.get(request.node_id)
        self.node_device(request.node_id)
        node = Node(
            node_id=request.node_id,
            surface=request.surface,
            created_ms=now_ms if earlier is None else earlier.created_ms,
            approved_ms=now_ms,
            generation=self._roster.next_generation(),
            version=request.version,
            model=request.model,
        )
        before = None if earlier is None else earlier.surface
        details = {"requestId": request.request_id, "commands": list(request.surface.commands)}
        audited = self._audit(AuditAction.NODE_APPROVED, origin, node.node_id, before=before, after=node.surface, details=details)
        await self._roster.write(self._taken(request), lambda connection: node_tables.put_node(connection, node), audited)
        self.requests.pop(request.request_id, None)
        self.nodes[node.node_id] = node
        principal = device_principal(node.node_id)
        self._context.service(Connections).grant_surface(principal, caps=node.surface.caps, commands=node.surface.commands)
        self._tell_resolved(request, "approved")
        return node

    async def _reject(self, request: NodeRequest, origin: AuditOrigin) -> None:
        audited = self._audit(AuditAction.NODE_REJECTED, origin, request.node_id, details={"requestId": request.request_id})
        await self._roster.write(self._taken(request), audited)
        self.requests.pop(request.request_id, None)
        self._tell_resolved(request, "rejected")

    def _taken(self, request: NodeRequest) -> Step:
        def take(connection: sqlite3.Connection) -> None:
            there(node_tables.take_request(connection, request.request_id) or None, "requestId")

        return take

    def _tell_resolved(self, request: NodeRequest, decision: str) -> None:
        payload = {"requestId": request.request_id, "nodeId": request.node_id, "decision": decision, "ts": self._context.now_ms()}
        self._context.service(Events).broadcast("node.pair.resolved", payload)

    def _audit(
        self,
        action: AuditAction,
        origin: AuditOrigin,
        node_id: str,
        *,
        before: Surface | None = None,
        after: Surface | None = None,
        reason: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> Step:
        log = self._context.service(AuditLog)

        def append(connection: sqlite3.Connection) -> None:
            digests = [None if one is None else state_digest(node_wire.surface(one)) for one in (before, after)]
            entry = AuditEntry(
                action=action,
                origin=origin,
                subject=device_principal(node_id),
                reason=reason,
                before=digests[0],
                after=digests[1],
                details=details or {},
            )
            log.append(connection, entry)

        return append
