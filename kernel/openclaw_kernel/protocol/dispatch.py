"""Running a method: idempotency, the control-plane limit, and the one place where an exception becomes a wire error."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from openclaw_kernel.api.errors import GatewayError, InvalidRequest, ProviderError, Unavailable
from openclaw_kernel.api.methods import Call, Client, Encoded, Idempotency, Method
from openclaw_kernel.protocol.frames import dumps, failure, response
from openclaw_kernel.protocol.handshake import Phase
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.registry import MethodRegistry
from openclaw_kernel.protocol.session import Invoke
from openclaw_kernel.tasks import TaskOwner

logger = logging.getLogger("openclaw.protocol")


class Caller(Protocol):
    """The connection as the dispatcher needs it."""

    @property
    def client(self) -> Client: ...
    @property
    def address(self) -> str: ...
    def send(self, frame: bytes) -> None: ...


@dataclass(slots=True)
class _Remembered:
    digest: bytes
    expires_ms: int
    answer: asyncio.Future[tuple[bytes | None, GatewayError | None]]


class Dispatcher:
    """Calls handlers; sync ones at once, async ones in a task of the connection."""

    def __init__(self, registry: MethodRegistry, *, limits: Limits, now_ms: Callable[[], int], phase: Callable[[], Phase]) -> None:
        self._registry = registry
        self._limits = limits
        self._now_ms = now_ms
        self._phase = phase
        self._is_async = {method.name: inspect.iscoroutinefunction(method.handler) for method in registry.all()}
        self._remembered: OrderedDict[tuple[str, str, str], _Remembered] = OrderedDict()
        self._joined = TaskOwner("joined calls", _task_failed)
        self._control_plane: dict[tuple[str, str], deque[int]] = {}

    def waits(self, invoke: Invoke) -> bool:
        """Tell whether the call must run in a task."""
        return self._is_async[invoke.method.name] or invoke.method.idempotency is Idempotency.JOIN

    def run_now(self, caller: Caller, invoke: Invoke) -> None:
        """Run a sync method and answer."""
        refusal = self._refusal(caller, invoke)
        if refusal is not None:
            caller.send(failure(invoke.request.id, refusal))
            return
        try:
            payload = _encode(self._call(caller, invoke))
        except Exception as error:
            self._answer(caller, invoke, None, self._to_wire(invoke.method, error))
        else:
            caller.send(response(invoke.request.id, payload))

    async def run(self, caller: Caller, invoke: Invoke) -> None:
        """Run a method that waits and answer."""
        refusal = self._refusal(caller, invoke)
        if refusal is not None:
            caller.send(failure(invoke.request.id, refusal))
            return
        if invoke.method.idempotency is Idempotency.JOIN:
            payload, error = await self._join(caller, invoke)
        else:
            payload, error = await self._run_async(caller, invoke)
        self._answer(caller, invoke, payload, error)

    def _call(self, caller: Caller, invoke: Invoke) -> Any:
        call = Call(
            client=caller.client,
            method=invoke.method.name,
            request_id=invoke.request.id,
            respond_early=lambda value: caller.send(response(invoke.request.id, _encode(value))),
        )
        return invoke.method.handler(call) if invoke.method.params is None else invoke.method.handler(call, invoke.params)

    async def _run_async(self, caller: Caller, invoke: Invoke) -> tuple[bytes | None, GatewayError | None]:
        try:
            value = self._call(caller, invoke)
            return _encode(await value if inspect.isawaitable(value) else value), None
        except Exception as error:
            return None, self._to_wire(invoke.method, error)

    def _to_wire(self, method: Method, error: Exception) -> GatewayError:
        if isinstance(error, GatewayError):
            return error
        owner = self._registry.owner(method.name)
        if isinstance(error, ProviderError):
            return Unavailable(error.message, details={"provider": error.provider, "kind": error.kind.value})
        logger.error("method %s of plugin %s failed", method.name, owner, exc_info=error)
        text = f"method {method.name} of plugin {owner} failed: {type(error).__name__}; the gateway's log has the details"
        return Unavailable(text, details={"method": method.name, "plugin": owner})

    def _answer(self, caller: Caller, invoke: Invoke, payload: bytes | None, error: GatewayError | None) -> None:
        if error is not None:
            caller.send(failure(invoke.request.id, error, None if error.payload is None else dumps(error.payload)))
        elif payload is not None:
            caller.send(response(invoke.request.id, payload))

    def _refusal(self, caller: Caller, invoke: Invoke) -> GatewayError | None:
        phase = self._phase()
        if phase is Phase.DRAINING:
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

    async def _join(self, caller: Caller, invoke: Invoke) -> tuple[bytes | None, GatewayError | None]:
        key = getattr(invoke.params, "idempotency_key", None)
        if not key:
            return await self._run_async(caller, invoke)
        self._forget()
        place = (caller.client.principal, invoke.method.name, key)
        try:
            digest = hashlib.sha256(dumps(invoke.request.params)).digest()
        except TypeError:
            return None, InvalidRequest(f"invalid {invoke.method.name} params: nested too deeply, or a number is too large")
        known = self._remembered.get(place)
        if known is None:
            known = self._begin(caller, invoke, place, digest)
        elif known.digest != digest:
            text = f"idempotencyKey {key[:64]!r} was used for another {invoke.method.name}; use a new key"
            return None, InvalidRequest(text, details={"reason": "idempotency-conflict"})
        return await asyncio.shield(known.answer)

    def _begin(self, caller: Caller, invoke: Invoke, place: tuple[str, str, str], digest: bytes) -> _Remembered:
        # Not a task of the connection: who comes back after a break and repeats the call must find it, not start it again.
        expires = self._now_ms() + int(self._limits.dedupe_seconds * 1000)
        entry = self._remembered[place] = _Remembered(digest, expires, asyncio.get_running_loop().create_future())
        self._joined.spawn(invoke.method.name, self._settle(entry, caller, invoke))
        return entry

    async def _settle(self, entry: _Remembered, caller: Caller, invoke: Invoke) -> None:
        try:
            entry.answer.set_result(await self._run_async(caller, invoke))
        finally:
            if not entry.answer.done():
                entry.answer.set_result((None, Unavailable("the gateway stopped during the call; retry", retryable=True)))

    async def close(self, timeout: float) -> None:
        """End the calls that outlived their connections."""
        hung = await self._joined.close(timeout)
        if hung:
            logger.warning("calls do not end when cancelled and were abandoned: %s", ", ".join(hung))

    def _forget(self) -> None:
        now = self._now_ms()
        while self._remembered:
            place, oldest = next(iter(self._remembered.items()))
            if oldest.expires_ms > now and len(self._remembered) < self._limits.dedupe_entries:
                return
            if not oldest.answer.done():
                # Active calls are exempt; they come up for removal again later.
                self._remembered.move_to_end(place)
                return
            del self._remembered[place]


def _encode(value: Any) -> bytes:
    return value.json if type(value) is Encoded else dumps(value)


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
