"""Running a method: idempotency, the control-plane limit, and the one place where an exception becomes a wire error."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from openclaw_kernel.api.errors import Forbidden, GatewayError, InvalidRequest, ProviderError, Unavailable
from openclaw_kernel.api.methods import Call, Client, Idempotency, Method
from openclaw_kernel.api.requests import Encoded, KeptAnswer, RequestKey, digest_of
from openclaw_kernel.protocol.frames import dumps, failed_response, failure, response
from openclaw_kernel.protocol.handshake import Phase
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.refusals import Refusals
from openclaw_kernel.protocol.registry import MethodRegistry
from openclaw_kernel.protocol.session import Invoke
from openclaw_kernel.store.requests import RequestTable, conflict, kept_answer
from openclaw_kernel.tasks import TaskOwner

logger = logging.getLogger("openclaw.protocol")

LONGEST_KEY: Final = 512
_KEEPING_SECONDS: Final = 2.0
"""How long a caller waits for its answer to be on disk where the store fails."""


class Caller(Protocol):
    """The connection as the dispatcher needs it."""

    @property
    def client(self) -> Client: ...
    @property
    def address(self) -> str: ...
    def send(self, frame: bytes) -> None: ...


@dataclass(slots=True)
class _Running:
    request: RequestKey
    answer: asyncio.Future[KeptAnswer]


class Dispatcher:
    """Calls handlers; sync ones at once, async ones in a task of the connection."""

    def __init__(
        self,
        registry: MethodRegistry,
        *,
        limits: Limits,
        now_ms: Callable[[], int],
        phase: Callable[[], Phase],
        requests: RequestTable,
        refusals: Refusals | None = None,
    ) -> None:
        self._refusals = refusals or Refusals()
        self._registry = registry
        self._limits = limits
        self._now_ms = now_ms
        self._phase = phase
        self._requests = requests
        self._is_async: dict[str, tuple[Method, bool]] = {}
        self._running: dict[tuple[str, str, str], _Running] = {}
        self._joined = TaskOwner("joined calls", _task_failed)
        self._control_plane: dict[tuple[str, str], deque[int]] = {}

    def waits(self, invoke: Invoke) -> bool:
        """Tell whether the call must run in a task."""
        method = invoke.method
        known = self._is_async.get(method.name)
        if known is None or known[0] is not method:
            known = method, inspect.iscoroutinefunction(method.handler) or method.idempotency is not Idempotency.NONE
            self._is_async[method.name] = known
        return known[1]

    def run_now(self, caller: Caller, invoke: Invoke) -> None:
        """Run a sync method and answer."""
        refusal = self._refusal(caller, invoke)
        if refusal is not None:
            caller.send(failure(invoke.request.id, refusal))
            return
        try:
            payload = _encode(self._call(caller, invoke, None))
        except Exception as error:
            self._note_refusal(caller, invoke, error)
            _answer(caller, invoke, kept_answer(self._to_wire(invoke, error)))
        else:
            caller.send(response(invoke.request.id, payload))

    async def run(self, caller: Caller, invoke: Invoke) -> None:
        """Run a method that waits and answer."""
        refusal = self._refusal(caller, invoke)
        if refusal is not None:
            caller.send(failure(invoke.request.id, refusal))
            return
        try:
            request = None if invoke.method.idempotency is Idempotency.NONE else _key_of(caller, invoke)
        except InvalidRequest as error:
            caller.send(failure(invoke.request.id, error))
            return
        if request is None:
            answer = await self._run_async(caller, invoke, None)
        elif invoke.method.idempotency is Idempotency.JOIN:
            answer = await self._join(caller, invoke, request)
        else:
            answer = await self._handled(caller, invoke, request)
        _answer(caller, invoke, answer)

    def _call(self, caller: Caller, invoke: Invoke, request: RequestKey | None) -> Any:
        call = Call(
            client=caller.client,
            method=invoke.method.name,
            request_id=invoke.request.id,
            respond_early=lambda value: caller.send(response(invoke.request.id, _encode(value))),
            request=request,
            traceparent=invoke.request.traceparent,
        )
        return invoke.method.handler(call) if invoke.method.params is None else invoke.method.handler(call, invoke.params)

    async def _run_async(self, caller: Caller, invoke: Invoke, request: RequestKey | None) -> KeptAnswer:
        try:
            value = self._call(caller, invoke, request)
            return KeptAnswer(_encode(await value if inspect.isawaitable(value) else value))
        except Exception as error:
            self._note_refusal(caller, invoke, error)
            return kept_answer(self._to_wire(invoke, error))

    def _note_refusal(self, caller: Caller, invoke: Invoke, error: Exception) -> None:
        if isinstance(error, Forbidden):
            self._refusals.method(caller.client, invoke.method.name, error, invoke.request.traceparent, by_handler=True)

    def _to_wire(self, invoke: Invoke, error: Exception) -> GatewayError:
        if isinstance(error, GatewayError):
            return error
        method = invoke.method
        owner = self._registry.owner(method.name)
        if isinstance(error, ProviderError):
            return Unavailable(error.message, details={"provider": error.provider, "kind": error.kind.value})
        trace = "" if invoke.request.traceparent is None else f" (traceparent {invoke.request.traceparent})"
        logger.error("method %s of plugin %s failed%s", method.name, owner, trace, exc_info=error)
        text = f"method {method.name} of plugin {owner} failed: {type(error).__name__}; the gateway's log has the details"
        return Unavailable(text, details={"method": method.name, "plugin": owner})

    def _refusal(self, caller: Caller, invoke: Invoke) -> GatewayError | None:
        phase = self._phase()
        if phase is Phase.DRAINING and not invoke.method.while_draining:
            details = {"method": invoke.method.name, "reason": "gateway-restarting", "phase": phase.value}
            return Unavailable("gateway is restarting; retry shortly", details=details, retry_after_ms=1000)
        return self._control_plane_refusal(caller, invoke.method) if invoke.method.control_plane else None

    def _control_plane_refusal(self, caller: Caller, method: Method) -> GatewayError | None:
        now, limits = self._now_ms(), self._limits
        window_ms = int(limits.control_plane_seconds * 1000)
        self._control_plane = {key: calls for key, calls in self._control_plane.items() if calls and now - calls[-1] < window_ms}
        calls = self._control_plane.setdefault((method.name, caller.address), deque())
        while calls and now - calls[0] >= window_ms:
            calls.popleft()
        if len(calls) < limits.control_plane_calls:
            calls.append(now)
            return None
        wait_ms = window_ms - (now - calls[0])
        text = f"rate limit exceeded for {method.name}; retry after {-(-wait_ms // 1000)}s"
        details = {
            "method": method.name,
            "limit": f"{limits.control_plane_calls} per {limits.control_plane_seconds:g}s",
        }
        return Unavailable(text, details=details, retry_after_ms=wait_ms)

    # --- idempotency --------------------------------------------------------------------------------------------------

    async def _handled(self, caller: Caller, invoke: Invoke, request: RequestKey) -> KeptAnswer:
        answer = await self._run_async(caller, invoke, request)
        if answer.error is None or request.looked_up:
            return answer
        # Refused before the method asked for the key: what was answered before still holds, though the world has changed.
        try:
            known = await self._requests.find(request)
        except GatewayError as error:
            return kept_answer(error)
        return answer if known is None or known.answer is None else known.answer

    async def _join(self, caller: Caller, invoke: Invoke, request: RequestKey) -> KeptAnswer:
        place = (request.principal, request.method, request.key)
        running = self._running.get(place)
        if running is None:
            # Not a task of the connection: who comes back after a break and repeats the call must find it, not start it again.
            running = self._running[place] = _Running(request, asyncio.get_running_loop().create_future())
            self._joined.spawn(invoke.method.name, self._settle(running, caller, invoke))
        elif running.request.digest != request.digest:
            return kept_answer(conflict(request))
        return await asyncio.shield(running.answer)

    async def _settle(self, running: _Running, caller: Caller, invoke: Invoke) -> None:
        request = running.request
        try:
            known = await self._known(invoke.method, request)
            if known is not None:
                running.answer.set_result(known)
                return
            answer = await self._run_async(caller, invoke, request)
            keeping = self._joined.spawn(f"keep the answer of {request.method}", self._requests.settle(request, answer))
            # A store that fails is asked until it has the answer; the caller does not wait for that, and repeats join it.
            await asyncio.wait({keeping}, timeout=_KEEPING_SECONDS)
            running.answer.set_result(answer)
            await keeping
        finally:
            if not running.answer.done():
                running.answer.set_result(kept_answer(_unknown(request)))
            self._requests.abandon(request)
            self._running.pop((request.principal, request.method, request.key), None)

    async def _known(self, method: Method, request: RequestKey) -> KeptAnswer | None:
        """Take the key; return what answers the request without running it."""
        try:
            claim = await self._requests.begin(request)
        except GatewayError as error:
            return kept_answer(error)
        if claim.state == "in_flight" and not method.repeatable:
            return kept_answer(_unknown(request))
        return claim.answer

    async def close(self, timeout: float) -> None:
        """End the calls that outlived their connections."""
        hung = await self._joined.close(timeout)
        if hung:
            logger.warning("calls do not end when cancelled and were abandoned: %s", ", ".join(hung))


def _key_of(caller: Caller, invoke: Invoke) -> RequestKey | None:
    key = getattr(invoke.params, "idempotency_key", None)
    if not key:
        return None
    name = invoke.method.name
    if len(key) > LONGEST_KEY:
        # It is kept in every row and told in every event of what it begins.
        raise InvalidRequest(f"invalid {name} params: at idempotencyKey: has {len(key)} characters; use at most {LONGEST_KEY}")
    try:
        digest = digest_of(invoke.params)
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest(f"invalid {name} params: nested too deeply, or a number is too large") from None
    return RequestKey(principal=caller.client.principal, method=name, key=key, digest=digest)


def _unknown(request: RequestKey) -> Unavailable:
    return Unavailable(
        f"{request.method} with idempotencyKey {request.key[:80]!r} was cut off by a stop of the gateway, and may or may not have been"
        " done; look at what it changes, and use a new key to do it again",
        details={"method": request.method, "reason": "idempotency-unknown"},
    )


def _answer(caller: Caller, invoke: Invoke, answer: KeptAnswer) -> None:
    if answer.error is not None:
        caller.send(failed_response(invoke.request.id, answer.error, answer.payload))
    elif answer.payload is not None:
        caller.send(response(invoke.request.id, answer.payload))


def _encode(value: Any) -> bytes:
    return value.json if type(value) is Encoded else dumps(value)


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
