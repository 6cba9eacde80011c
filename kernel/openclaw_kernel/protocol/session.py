"""An open session as a state machine without I/O: which request may run, and what answers one that may not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from openclaw_kernel.api.errors import GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.api.methods import Method
from openclaw_kernel.protocol.frames import BadFrame, NotJson, Request, failure, read_request
from openclaw_kernel.protocol.handshake import Close
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.registry import MethodRegistry, authorize, check_extra_scopes, read_params

logger = logging.getLogger("openclaw.protocol")


@dataclass(frozen=True, slots=True)
class Reply:
    """A frame to send, and perhaps the end of the connection."""

    frame: bytes
    close: Close | None = None


@dataclass(slots=True)
class Invoke:
    """A request that may run; `Session.finished` must be told when it has been answered."""

    request: Request
    method: Method
    params: Any


Outcome: TypeAlias = Reply | Invoke | None


def _untold(_request: Request, _error: GatewayError) -> None:
    return


class Session:
    """The rules of one connection after hello-ok."""

    def __init__(
        self,
        *,
        registry: MethodRegistry,
        role: str,
        scopes: frozenset[str],
        limits: Limits,
        refused: Callable[[Request, GatewayError], None] = _untold,
    ) -> None:
        """`refused` is told of each call that role or scopes do not allow."""
        self._tell_refused = refused
        self._registry = registry
        self._role = role
        self._scopes = scopes
        self._limits = limits
        self._waiting = 0
        self._waiting_bytes = 0
        self._wrong_role_calls = 0
        self._allowed: dict[str, Method] = {}

    def receive(self, data: str | bytes) -> Outcome:
        """Take one frame; None means that it is ignored."""
        try:
            request = read_request(data)
        except NotJson:
            return None
        except BadFrame as bad:
            return Reply(failure(bad.request_id, InvalidRequest(f"invalid request frame: {bad.problem}")))
        if request.method == "connect":
            return Reply(failure(request.id, InvalidRequest("already connected; connect is only the first request")))
        method = self._registry.get(request.method)
        # Role and scopes are fixed for the session's life, so what was allowed once stays allowed, until the method is another.
        if method is not None and self._allowed.get(request.method) is method:
            return self._admit(request, method)
        refusal = authorize(method, request.method, self._role, self._scopes)
        if refusal is not None or method is None:
            return self._refused(request, refusal or InvalidRequest(f"unknown method: {request.method}"))
        self._allowed[request.method] = method
        return self._admit(request, method)

    def _admit(self, request: Request, method: Method) -> Outcome:
        limits = self._limits
        if self._waiting >= limits.queued_requests or self._waiting_bytes + request.size > limits.queued_request_bytes:
            text = f"too many requests in flight ({self._waiting}); wait for answers, then retry"
            error = Unavailable(text, details={"method": request.method, "reason": "request-queue-full"}, retry_after_ms=1000)
            return Reply(failure(request.id, error))
        try:
            params = read_params(method, request.params)
            refusal = check_extra_scopes(method, params, self._scopes)
        except InvalidRequest as error:
            return Reply(failure(request.id, error))
        except Exception:  # the params model and its checks are a plugin's code
            owner = self._registry.owner(method.name)
            logger.exception("the params of method %s of plugin %s could not be checked", method.name, owner)
            text = f"the params of {method.name} could not be checked; the fault is in plugin {owner}, the log has the details"
            return Reply(failure(request.id, Unavailable(text, details={"method": method.name, "plugin": owner})))
        if refusal is not None:
            self._tell_refused(request, refusal)
            return Reply(failure(request.id, refusal))
        self._waiting += 1
        self._waiting_bytes += request.size
        return Invoke(request, method, params)

    def _refused(self, request: Request, refusal: GatewayError) -> Reply:
        close = None
        self._tell_refused(request, refusal)
        if isinstance(refusal, InvalidRequest) and refusal.message.startswith("unauthorized role"):
            self._wrong_role_calls += 1
            if self._wrong_role_calls > self._limits.wrong_role_calls:
                close = Close(1008, "repeated unauthorized calls")
        return Reply(failure(request.id, refusal), close)

    def finished(self, request: Request) -> None:
        """Make room: the request has been answered."""
        self._waiting -= 1
        self._waiting_bytes -= request.size
