"""S4: whoever comes with whichever credential and asks for whatever, first or again, gets a part of the stored grant."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_config.models import GatewayAuth
from openclaw_kernel.api import ALL_SCOPES, Identity, effective_scopes
from openclaw_kernel.protocol.auth import PageGrant, Verified, Verifier
from openclaw_kernel.protocol.handshake import PAGE_SCOPES, Accept, Action, Handshake, Peer, Phase
from openclaw_kernel.protocol.limiter import Caller, FailureLimiter
from tests.kernel.protocol.transcript import LOCAL, NONCE, REMOTE, TOKEN, Clock, Gate, accepted, connect_params, request
from tests.plugins.pairing.harness import Gate as DeviceGate
from tests.plugins.pairing.harness import Person, TestDevice, opened

SUBSETS = [subset for size in range(len(ALL_SCOPES) + 1) for subset in itertools.combinations(sorted(ALL_SCOPES), size)]
FEW = [subset for subset in SUBSETS if len(subset) <= 1] + [("operator.pairing", "operator.read"), ("operator.approvals", "operator.write")]
ASKED = [*(subset for subset in SUBSETS if len(subset) <= 2), tuple(sorted(ALL_SCOPES)), ("operator.*",), ("admin", "operator.read")]
ORIGIN = "http://127.0.0.1:18789"
EVERYTHING = frozenset(ALL_SCOPES)
NOTHING = frozenset[str]()
PAGE = effective_scopes(PAGE_SCOPES)
CALLER = Caller("203.0.113.9", is_loopback=False)


def with_identity(*scopes: str) -> Verified:
    """The proof of an identity to which the configuration gives these scopes."""
    entry = {"issuer": "https://id.example.org", "subject": "alice", "scopes": list(scopes)}
    auth = GatewayAuth.model_validate({"mode": "token", "token": TOKEN, "identities": [entry]})
    proof = Verifier(auth, FailureLimiter()).verify_identity(Identity(issuer=entry["issuer"], subject="alice"), CALLER, Clock()())  # type: ignore[arg-type]
    assert isinstance(proof, Verified)
    return proof


def identity(*scopes: str) -> Peer:
    """A browser with such a proof."""
    return Peer(address="203.0.113.9", direct_local=False, origin=ORIGIN, proof=with_identity(*scopes))


PAGE_PEER = Peer(address="127.0.0.1", direct_local=True, origin=ORIGIN, page=PageGrant("a"))
BROWSER = Peer(address="127.0.0.1", direct_local=True, origin=ORIGIN)
# (mode, who it says it is, where it comes from, what it shows, what is granted to it)
KINDS: dict[str, tuple[str, tuple[str, str], Peer, dict[str, str], frozenset[str]]] = {
    "token from elsewhere": ("token", ("cli", "cli"), REMOTE, {"token": TOKEN}, NOTHING),
    "token of a backend elsewhere": ("token", ("gateway-client", "backend"), REMOTE, {"token": TOKEN}, NOTHING),
    "token in a browser": ("token", ("cli", "cli"), BROWSER, {"token": TOKEN}, NOTHING),
    "token of the chat page": ("token", ("webchat-ui", "webchat"), BROWSER, {"token": TOKEN}, NOTHING),
    "token of another program here": ("token", ("openclaw-macos", "ui"), LOCAL, {"token": TOKEN}, NOTHING),
    "token of the command line here": ("token", ("cli", "cli"), LOCAL, {"token": TOKEN}, EVERYTHING),
    "token of a backend here": ("token", ("gateway-client", "backend"), LOCAL, {"token": TOKEN}, EVERYTHING),
    "password from elsewhere": ("password", ("cli", "cli"), REMOTE, {"password": TOKEN}, NOTHING),
    "password of the command line here": ("password", ("cli", "cli"), LOCAL, {"password": TOKEN}, EVERYTHING),
    "none, from elsewhere": ("none", ("cli", "cli"), REMOTE, {}, NOTHING),
    "none, here": ("none", ("cli", "cli"), LOCAL, {}, NOTHING),
    "none, a backend here": ("none", ("gateway-client", "backend"), LOCAL, {}, EVERYTHING),
    "none, a backend elsewhere": ("none", ("gateway-client", "backend"), REMOTE, {}, NOTHING),
    "page cookie": ("token", ("webchat-ui", "webchat"), PAGE_PEER, {}, PAGE),
    "page cookie of another program": ("token", ("gateway-client", "backend"), PAGE_PEER, {}, PAGE),
    **{
        f"identity with {scopes}": ("token", ("openclaw-control-ui", "ui"), identity(*scopes), {}, effective_scopes(scopes))
        for scopes in FEW
        if scopes
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_credential_without_a_device_gets_more_than_its_grant(kind: str) -> None:
    """Every set of scopes, twice: what was had before gives nothing the next time."""
    mode, client, peer, auth, grant = KINDS[kind]
    gate = Gate(mode=mode)
    given = {True: 0, False: 0}
    for asked, _ in itertools.product(SUBSETS, ("first", "again")):
        (*_, last) = gate.connect(connect_params(*client, auth=auth, scopes=[*asked, "operator.made.up"]), peer)
        given[isinstance(last, Accept)] += 1
        if isinstance(last, Accept):
            assert effective_scopes(last.scopes) <= grant & effective_scopes(asked), asked
    assert not (given[True] and given[False])
    (*_, last) = gate.connect(connect_params(*client, auth=auth, scopes=[]), peer)
    assert not isinstance(last, Accept) or last.scopes == ()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DeviceGate]:
    """A gateway that asks a person for every device."""
    folder: Path = tmp_path_factory.mktemp("gate")
    async with opened(folder, policy="ask") as opened_gate:
        yield opened_gate


async def paired(gate: DeviceGate, scopes: tuple[str, ...]) -> tuple[TestDevice, str]:
    """A device that a person approved, and its token."""
    device = TestDevice()
    actions = await gate.shake(device, REMOTE, scopes=scopes)
    request_id = str(actions[0].frame).split('"requestId":"')[1].split('"')[0]  # type: ignore[union-attr]
    await gate.call("device.pair.approve", requestId=request_id)
    grant = accepted(await gate.shake(device, REMOTE, scopes=scopes)).grant
    assert grant is not None
    return device, grant.token


def checked(actions: list[Action], limit: frozenset[str], asked: tuple[str, ...]) -> bool:
    """Whether it was let in; then with no more than that."""
    last = actions[-1]
    if not isinstance(last, Accept):
        return False
    assert last.grant is not None
    assert effective_scopes(last.scopes) <= limit & effective_scopes(asked), asked
    return True


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stored", FEW, ids=", ".join)
async def test_no_device_gets_more_than_what_a_person_approved(gate: DeviceGate, stored: tuple[str, ...]) -> None:
    """With the secret and with its token, first and again, and with a token that was narrowed."""
    device, token = await paired(gate, stored)
    approved = effective_scopes(stored)
    ways: dict[str, Callable[[], Any]] = {
        "secret": lambda: {"token": TOKEN},
        "token": lambda: {"deviceToken": token},
        "both": lambda: {"token": token, "deviceToken": token},
    }
    for asked, way in itertools.product(ASKED, ways):
        was_in = checked(await gate.shake(device, REMOTE, scopes=asked, auth=ways[way]()), approved, asked)
        assert was_in is (set(asked) & ALL_SCOPES <= approved), (asked, way)
    # What was asked for and refused in between has changed nothing.
    (row,) = [row for row in (await gate.call("device.pair.list"))["paired"] if row["deviceId"] == device.id]
    assert (set(row["scopes"]), row["roles"]) == (set(stored), ["operator"])
    narrow = stored[:1] if len(stored) > 1 else ()
    own = Person(principal=f"device:{device.id}")
    answer = await gate.call("device.token.rotate", own, deviceId=device.id, role="operator", scopes=list(narrow))
    for asked in ASKED:
        auth = {"deviceToken": answer["token"]}
        checked(await gate.shake(device, REMOTE, scopes=asked, auth=auth), effective_scopes(narrow), asked)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("ceiling", [scopes for scopes in FEW if scopes], ids=", ".join)
async def test_no_device_gets_more_than_its_users_proof_leaves_it(gate: DeviceGate, ceiling: tuple[str, ...]) -> None:
    """The device is approved for everything; the identity that it comes with is not."""
    device, _ = await paired(gate, ("operator.admin",))
    proof = with_identity(*ceiling)
    for asked in ASKED:
        handshake = Handshake(
            peer=Peer(address="203.0.113.9", direct_local=False, proof=proof),
            verifier=gate.verifier,
            phase=lambda: Phase.SERVING,
            now_ms=gate.clock,
            pairing=gate.book,
            nonce=NONCE,
        )
        handshake.open()
        actions = handshake.receive(request("connect", device.params(NONCE, gate.clock(), scopes=asked, auth={})))
        last = actions[-1]
        if isinstance(last, Accept):
            assert effective_scopes(last.scopes) <= effective_scopes(ceiling) & effective_scopes(asked), asked
