"""Every event is declared with who hears it, and names of the protocol are for whom the protocol says."""

from __future__ import annotations

import pytest

from openclaw_kernel.api import Access, Scope
from openclaw_kernel.protocol.events import KERNEL_EVENTS, EventRegistry
from openclaw_kernel.protocol.registry import RegistryError
from tests.kernel.declared_events import declared


def test_an_event_is_for_whom_it_was_declared() -> None:
    registry = EventRegistry([("one", declared("acme.rang", Scope.TALK)), ("one", declared("acme.shut", Access.ANYONE))])
    assert registry.scope("acme.rang") == "operator.talk"
    assert registry.scope("acme.shut") is None
    assert registry.scope("tick") is None
    assert {"acme.rang", "tick"} <= set(registry.advertised)


def test_an_event_nobody_declared_is_refused_whatever_its_name_begins_with() -> None:
    registry = EventRegistry([("one", declared("chat"))])
    for name in ("brand.new", "chat.side", "exec.approval.requested", "plugin.mine", "device.pair.requested"):
        with pytest.raises(LookupError, match="is not declared; declare it with"):
            registry.scope(name)


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("exec.approval.requested", Scope.READ),
        ("device.pair.requested", Access.ANYONE),
        ("terminal.data", Scope.WRITE),
        ("chat", Scope.WRITE),
        ("heartbeat", Scope.READ),
        ("plugin.mine", Access.ANYONE),
    ],
)
def test_a_name_of_the_protocol_is_for_nobody_else(name: str, scope: Scope | Access) -> None:
    with pytest.raises(RegistryError, match=f"event '{name}' of plugin 'stranger' is for '{scope.value}', in the protocol for"):
        EventRegistry([("stranger", declared(name, scope))])


@pytest.mark.parametrize("spec", KERNEL_EVENTS, ids=lambda spec: spec.name)
def test_what_the_kernel_sends_no_plugin_declares(spec: object) -> None:
    with pytest.raises(RegistryError, match="of plugin 'stranger' is declared already"):
        EventRegistry([("stranger", spec)])  # type: ignore[list-item]  # one of the kernel's
