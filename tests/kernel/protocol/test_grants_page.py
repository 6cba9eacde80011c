"""What docs/reference/grants.md says of every method and event is what a gateway does: S7, without sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from openclaw_kernel.api import effective_scopes
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.registry import MethodRegistry
from openclaw_kernel.protocol.session import Invoke, Reply, Session
from openclaw_kernel.testing import RunningGateway, run_gateway
from tests.kernel.protocol.transcript import REMOTE, Gate, refused, request
from tests.kernel.test_bus import Listener
from tests.support.grants import CALLERS, PAGE, read, registered
from tests.support.reference import OURS

METHODS, EVENTS = read(PAGE.read_text(encoding="utf-8"))
LIMITS = Limits(wrong_role_calls=10_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    """A gateway with what is bundled."""
    async with run_gateway(tmp_path_factory.mktemp("home"), {"models": {"providers": {"echo": {}}}}) as running:
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


def may_call(registry: MethodRegistry, method: str, role: str, scopes: frozenset[str]) -> bool:
    """Whether a session would carry a call out, or look at its params; nothing is carried out here."""
    outcome = Session(registry=registry, role=role, scopes=scopes, limits=LIMITS).receive(request(method, {"noSuchParam": 1}))
    if isinstance(outcome, Invoke):
        return True
    assert isinstance(outcome, Reply)
    error = json.loads(outcome.frame)["error"]
    if error["message"].startswith(f"invalid {method} params"):
        return True
    assert error["message"].startswith(("missing scope: ", "unauthorized role: ")), error
    return False


async def test_every_method_is_called_by_those_on_the_page_alone(gateway: RunningGateway) -> None:
    """S7: every method at each role and scope."""
    registry = gateway.app.wire.registry
    assert [method.name for method in registered(registry, OURS)] == list(METHODS)
    for method, callers in METHODS.items():
        assert {name for name, caller in CALLERS.items() if may_call(registry, method, *caller)} == callers, method


async def test_every_event_is_heard_by_those_on_the_page_alone(gateway: RunningGateway) -> None:
    bus = gateway.app._bus
    assert [spec.name for spec in gateway.app.facts.events.all()] == list(EVENTS)
    for event, callers in EVENTS.items():
        listeners = {name: Listener(f"listener {name}", scopes, role) for name, (role, scopes) in CALLERS.items()}
        ends = [bus.attach(listener) for listener in listeners.values()]
        bus.broadcast(event, {}, connections=[listener.connection_id for listener in listeners.values()])
        for end in ends:
            end()
        assert {name for name, listener in listeners.items() if listener.offered} == callers, event


async def test_nothing_is_called_before_the_handshake() -> None:
    """S7: every method unauthenticated."""
    for method in METHODS:
        for params in (None, {}, {"auth": {"token": "the-shared-token"}}):
            error, close = refused(Gate().handshake(REMOTE).receive(request(method, params)))
            assert (error["message"], close.code) == ("invalid handshake: first request must be connect", 1008)


async def test_what_is_not_there_looks_like_a_method_of_admins(gateway: RunningGateway) -> None:
    for role, scopes in CALLERS.values():
        session = Session(registry=gateway.app.wire.registry, role=role, scopes=scopes, limits=LIMITS)
        outcome = session.receive(request("no.such.method"))
        assert isinstance(outcome, Reply)
        message = json.loads(outcome.frame)["error"]["message"]
        assert message == ("unknown method: no.such.method" if "operator.admin" in scopes else "missing scope: operator.admin")


@pytest.mark.parametrize("unknown", ["operator.*", "admin", "OPERATOR.ADMIN", "operator.admin ", "node", ""])
async def test_a_name_that_is_no_scope_opens_nothing(unknown: str, gateway: RunningGateway) -> None:
    scopes = effective_scopes([unknown])
    open_to_all = {name for name, callers in METHODS.items() if "no scope" in callers}
    assert {name for name in METHODS if may_call(gateway.app.wire.registry, name, "operator", scopes)} == open_to_all
