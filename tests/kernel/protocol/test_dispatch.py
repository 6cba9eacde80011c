"""Repeats of a request, without sockets: joined, replayed, refused, and what a crash leaves (P5)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from openclaw_kernel.api import Call, Encoded, Idempotency, InvalidRequest, Params, Scope, Unavailable, rpc
from openclaw_kernel.api.methods import methods_of
from openclaw_kernel.protocol.dispatch import Dispatcher
from openclaw_kernel.protocol.frames import Request
from openclaw_kernel.protocol.handshake import Phase
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.registry import MethodRegistry, RegistryError, read_params
from openclaw_kernel.protocol.session import Invoke
from openclaw_kernel.store.requests import RequestTable
from openclaw_kernel.store.sqlite import SqliteStore
from tests.kernel.protocol.transcript import Clock
from tests.plugins.conversation.harness import TestClient

DEADLINE = 10.0


class KeyParams(Params):
    idempotency_key: str | None = Field(default=None, min_length=1)
    text: str = ""
    more: dict[str, Any] = {}


class Methods:
    """Methods that count how often they ran."""

    def __init__(self, requests: RequestTable, store: SqliteStore) -> None:
        self.ran: list[str] = []
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.refuses = False
        self._requests = requests
        self._store = store

    @rpc("once", scope=Scope.WRITE, params=KeyParams, result=dict[str, Any], idempotency=Idempotency.JOIN)
    async def once(self, call: Call, params: KeyParams) -> dict[str, Any]:
        """Answer when released, with the number of the run."""
        self.ran.append(f"{call.client.principal} {params.text}")
        self.entered.set()
        await self.release.wait()
        if params.text == "fail":
            raise InvalidRequest("refused", details={"run": len(self.ran)})
        if params.text == "later":
            raise Unavailable("not now", retry_after_ms=10)
        if params.text == "break":
            raise KeyError("a fault")
        return {"run": len(self.ran)}

    @rpc(
        "again",
        scope=Scope.WRITE,
        params=KeyParams,
        result=dict[str, Any],
        idempotency=Idempotency.JOIN,
        repeatable="it sets the same thing",
    )
    async def again(self, call: Call, params: KeyParams) -> dict[str, Any]:
        """Do as `once`; a second run does no harm."""
        return await self.once(call, params)

    @rpc("own", scope=Scope.WRITE, params=KeyParams, result=dict[str, Any], idempotency=Idempotency.HANDLED)
    async def own(self, call: Call, params: KeyParams) -> Any:
        """Take the key in the write that does the work."""
        if self.refuses:
            raise InvalidRequest("the world has changed")
        request = call.request
        assert request is not None

        def write(connection: sqlite3.Connection) -> Any:
            known = self._requests.claim(connection, request)
            if known.answer is not None:
                return known.answer
            self.ran.append(params.text)
            answer = {"run": len(self.ran)}
            self._requests.complete(connection, request, answer)
            return Encoded(json.dumps(answer).encode())

        found = await self._store.write(write)
        return found if isinstance(found, Encoded) else found.replay()


class Caller:
    """A connection that keeps what it is sent."""

    address = "127.0.0.1"

    def __init__(self, principal: str = "token") -> None:
        self.client = TestClient(principal=principal)
        self.frames: list[dict[str, Any]] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(json.loads(frame))


class Gateway:
    """A dispatcher on a store; `next_process` is what a start after a kill finds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.store: SqliteStore
        self.methods: Methods
        self.dispatcher: Dispatcher

    async def start(self) -> None:
        self.store = SqliteStore(self.folder / "state.sqlite3")
        await self.store.open({})
        limits = Limits()
        table = RequestTable(self.store, now_ms=self.clock, keep_seconds=limits.dedupe_seconds, limit=limits.dedupe_entries)
        self.methods = Methods(table, self.store)
        self.registry = MethodRegistry(("test", method) for method in methods_of(self.methods))
        self.dispatcher = Dispatcher(self.registry, limits=limits, now_ms=self.clock, phase=lambda: Phase.SERVING, requests=table)

    async def stop(self) -> None:
        await self.dispatcher.close(1.0)
        await self.store.close()

    async def next_process(self) -> None:
        await self.stop()
        await self.start()

    async def call(self, method: str, caller: Caller | None = None, /, **params: Any) -> dict[str, Any]:
        """Return the response; `caller` gets the frame too."""
        caller = caller or Caller()
        declared = self.registry.get(method)
        assert declared is not None
        invoke = Invoke(Request("1", method, params, 0), declared, read_params(declared, params))
        assert self.dispatcher.waits(invoke)
        await self.dispatcher.run(caller, invoke)
        return caller.frames[-1]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path)
    await gateway.start()
    gateway.methods.release.set()
    try:
        yield gateway
    finally:
        await gateway.stop()


def reason_of(frame: dict[str, Any]) -> Any:
    return frame["error"].get("details", {}).get("reason")


@pytest.mark.parametrize("method", ["once", "own"])
async def test_a_repeat_gets_the_first_answer_also_from_the_next_process(gateway: Gateway, method: str) -> None:
    first = await gateway.call(method, idempotencyKey="k", text="one")
    assert await gateway.call(method, idempotencyKey="k", text="one") == first
    assert len(gateway.methods.ran) == 1
    await gateway.next_process()
    assert await gateway.call(method, text="one", idempotencyKey="k") == first
    assert gateway.methods.ran == []


@pytest.mark.parametrize("text", ["fail", "break"])
async def test_a_failure_is_an_answer_too(gateway: Gateway, text: str, caplog: pytest.LogCaptureFixture) -> None:
    first = await gateway.call("once", idempotencyKey="k", text=text)
    assert first["ok"] is False
    await gateway.next_process()
    assert await gateway.call("once", idempotencyKey="k", text=text) == first
    assert gateway.methods.ran == []


async def test_a_failure_that_asks_for_another_try_gets_one(gateway: Gateway) -> None:
    assert (await gateway.call("once", idempotencyKey="k", text="later"))["error"]["retryable"] is True
    await gateway.call("once", idempotencyKey="k", text="later")
    assert len(gateway.methods.ran) == 2


@pytest.mark.parametrize("method", ["once", "own"])
async def test_another_body_is_a_conflict_and_runs_nothing(gateway: Gateway, method: str) -> None:
    await gateway.call(method, idempotencyKey="k", text="one")
    for _ in range(2):
        refused = await gateway.call(method, idempotencyKey="k", text="two")
        assert (refused["error"]["code"], reason_of(refused)) == ("INVALID_REQUEST", "idempotency-conflict")
        await gateway.next_process()
    assert gateway.methods.ran == []


async def test_the_order_of_keys_makes_no_other_body(gateway: Gateway) -> None:
    first = await gateway.call("once", idempotencyKey="k", more={"a": 1, "b": 2})
    assert await gateway.call("once", more={"b": 2, "a": 1}, idempotencyKey="k") == first


@pytest.mark.parametrize("method", ["once", "own"])
async def test_one_client_neither_reads_nor_hinders_the_other(gateway: Gateway, method: str) -> None:
    await gateway.call(method, Caller("device:a"), idempotencyKey="k", text="mine")
    other = await gateway.call(method, Caller("device:b"), idempotencyKey="k", text="yours")
    assert other["payload"] == {"run": 2}
    assert (await gateway.call(method, Caller("device:a"), idempotencyKey="k", text="mine"))["payload"] == {"run": 1}


async def test_calls_without_a_key_are_calls_of_their_own(gateway: Gateway) -> None:
    assert [(await gateway.call("once", text="x"))["payload"]["run"] for _ in range(2)] == [1, 2]


async def test_a_repeat_joins_the_call_that_runs(gateway: Gateway) -> None:
    gateway.methods.release.clear()
    callers = [Caller() for _ in range(3)]
    calls = [asyncio.ensure_future(gateway.call("once", caller, idempotencyKey="k")) for caller in callers]
    await asyncio.wait_for(gateway.methods.entered.wait(), DEADLINE)
    refused = await gateway.call("once", idempotencyKey="k", text="other")
    assert reason_of(refused) == "idempotency-conflict"
    gateway.methods.release.set()
    answers = await asyncio.gather(*calls)
    assert [answer["payload"] for answer in answers] == [{"run": 1}] * 3
    assert len(gateway.methods.ran) == 1


async def cut_off(gateway: Gateway, method: str) -> None:
    """Leave a call in flight, as a kill does."""
    gateway.methods.release.clear()
    call = asyncio.ensure_future(gateway.call(method, idempotencyKey="k", text="one"))
    await asyncio.wait_for(gateway.methods.entered.wait(), DEADLINE)
    await gateway.next_process()
    gateway.methods.release.set()
    assert reason_of(await call) == "idempotency-unknown"


async def test_a_call_that_was_cut_off_is_not_silently_run_again(gateway: Gateway) -> None:
    await cut_off(gateway, "once")
    for _ in range(2):
        told = await gateway.call("once", idempotencyKey="k", text="one")
        assert (told["error"]["code"], reason_of(told)) == ("UNAVAILABLE", "idempotency-unknown")
        assert "retryable" not in told["error"]
        assert "new key" in told["error"]["message"]
    assert gateway.methods.ran == []
    assert (await gateway.call("once", idempotencyKey="k2", text="one"))["ok"] is True


async def test_a_call_that_was_cut_off_runs_again_where_that_does_no_harm(gateway: Gateway) -> None:
    await cut_off(gateway, "again")
    first = await gateway.call("again", idempotencyKey="k", text="one")
    assert first["payload"] == {"run": 1}
    assert await gateway.call("again", idempotencyKey="k", text="one") == first


async def test_what_was_answered_holds_though_the_world_has_changed(gateway: Gateway) -> None:
    first = await gateway.call("own", idempotencyKey="k", text="one")
    gateway.methods.refuses = True
    assert await gateway.call("own", idempotencyKey="k", text="one") == first
    assert reason_of(await gateway.call("own", idempotencyKey="k", text="two")) == "idempotency-conflict"
    assert (await gateway.call("own", idempotencyKey="new", text="one"))["error"]["message"] == "the world has changed"


async def test_a_store_that_cannot_take_the_key_runs_nothing(gateway: Gateway) -> None:
    await gateway.store.close()
    refused = await gateway.call("once", idempotencyKey="k")
    assert refused["error"]["code"] == "UNAVAILABLE"
    assert gateway.methods.ran == []


async def test_params_that_are_no_json_are_named(gateway: Gateway) -> None:
    refused = await gateway.call("once", idempotencyKey="k", more={"n": 1 << 70})
    assert (refused["error"]["code"], "too large" in refused["error"]["message"]) == ("INVALID_REQUEST", True)


@pytest.mark.parametrize("method", ["once", "own"])
async def test_a_key_is_no_place_to_keep_things(gateway: Gateway, method: str) -> None:
    """A key is in every row and event of what it begins, and whatever began can be asked for by it."""
    refused = await gateway.call(method, idempotencyKey="k" * 513)
    assert (refused["error"]["code"], "at most 512" in refused["error"]["message"]) == ("INVALID_REQUEST", True)
    assert gateway.methods.ran == []
    assert (await gateway.call(method, idempotencyKey="k" * 512))["ok"] is True


class Silent:
    @rpc("silent", scope=Scope.WRITE, result=dict[str, Any])
    def silent(self, _call: Call) -> dict[str, Any]:
        """Say nothing of what a repetition does."""
        return {}


class Keyless:
    @rpc("keyless", scope=Scope.WRITE, result=dict[str, Any], idempotency=Idempotency.JOIN)
    def keyless(self, _call: Call) -> dict[str, Any]:
        """Promise what no caller can ask for."""
        return {}


@pytest.mark.parametrize(("owner", "named"), [(Silent(), "repeatable="), (Keyless(), "idempotency_key")])
def test_a_method_that_writes_has_to_say_what_a_repetition_does(owner: object, named: str) -> None:
    with pytest.raises(RegistryError, match=named):
        MethodRegistry(("test", method) for method in methods_of(owner))
