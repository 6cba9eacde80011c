"""S6: garbage in each field of the handshake, alone and in pairs, never passes "connect". Without sockets, table-driven."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from openclaw_kernel.protocol.auth import PageGrant
from openclaw_kernel.protocol.handshake import Accept, Action, Close, Handshake, Peer, Phase, Settle
from tests.kernel.protocol.test_device_handshake import DeviceGate, Pairing
from tests.kernel.protocol.transcript import LOCAL, NONCE, REMOTE, TOKEN, Gate, connect_params, request, signed_params

FIELDS = """
minProtocol maxProtocol role scopes caps commands permissions pathEnv locale userAgent modelCatalog computerUse workerRuns unknown
client client.id client.mode client.version client.platform client.displayName client.buildId client.deviceFamily
client.modelIdentifier client.timeZone client.instanceId client.unknown
auth auth.token auth.password auth.deviceToken auth.bootstrapToken auth.approvalRuntimeToken auth.agentRuntimeIdentityToken auth.unknown
device device.id device.publicKey device.signature device.signedAt device.nonce device.unknown
""".split()
PROOF = """
device.id device.publicKey device.signature device.signedAt device.nonce auth.token role scopes client.id client.mode client.platform
client.deviceFamily auth.unknown device.unknown
""".split()
"""What a device signs, and what is no field at all: none of it can be changed afterwards."""

GARBAGE: list[Any] = [
    None, True, 0, -1, 2**63, 1.5, "", " ", "\0", "garbage", "é\u202e", "x" * 5_000, "null", "operator.admin",
    [], ["garbage"], {}, {"garbage": 1}, [[[]]],
    TOKEN[:-1], TOKEN + "\0", TOKEN.upper(), f" {TOKEN}", [TOKEN], {"secret": TOKEN},
]  # fmt: skip
LITTLE: list[Any] = [None, "", "garbage", True, {}, [TOKEN]]
PEERS = {
    "remote": REMOTE,
    "local": LOCAL,
    "browser": Peer(address="127.0.0.1", direct_local=True, origin="http://127.0.0.1:18789"),
}
CLIENTS = [("cli", "cli"), ("gateway-client", "backend"), ("webchat-ui", "webchat"), ("node-host", "node")]


def with_values(params: dict[str, Any], values: dict[str, Any]) -> dict[str, Any] | None:
    """The params with these fields replaced; None where one of them is inside of what another replaced by no object."""
    changed = copy.deepcopy(params)
    for field, value in values.items():
        *path, name = field.split(".")
        place: Any = changed
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                return None
        place[name] = value
    return changed


def passes(actions: list[Action]) -> bool:
    """Whether a handshake led anywhere but to its end."""
    return any(isinstance(action, Accept | Settle) for action in actions) or not isinstance(actions[-1], Close)


def singles(fields: list[str]) -> Iterator[dict[str, Any]]:
    """Every field with every piece of garbage."""
    for field, value in itertools.product(fields, GARBAGE):
        yield {field: value}


def pairs(first: list[str], second: list[str]) -> Iterator[dict[str, Any]]:
    """Every two fields with some garbage each."""
    for one, other in itertools.product(first, second):
        if one != other:
            for value, further in itertools.product(LITTLE[:4], LITTLE):
                yield {one: value, other: further}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client[0])
def test_no_garbage_takes_the_place_of_a_credential(peer: str, client: tuple[str, str]) -> None:
    base = connect_params(*client, auth={}, role="node" if client[1] == "node" else "operator")
    for values in singles(FIELDS):
        params = with_values(base, values)
        assert params is None or not passes(Gate().connect(params, PEERS[peer])), values


def test_no_pair_of_garbage_takes_the_place_of_a_credential() -> None:
    base, credentials = connect_params(auth={}), [field for field in FIELDS if field.startswith(("auth", "device", "role", "client.id"))]
    for values in pairs(credentials, FIELDS):
        params = with_values(base, values)
        assert params is None or not passes(Gate().connect(params, REMOTE)), values


class Known(DeviceGate):
    """A gateway to which the device of these params is known."""

    def __init__(self) -> None:
        super().__init__(Pairing(knows=True))
        self.right = signed_params(self, client={"id": "cli", "mode": "cli", "version": "1", "platform": "linux", "deviceFamily": "pc"})

    def answer(self, params: dict[str, Any]) -> list[Action]:
        """A whole handshake, with nothing counted that came before."""
        verifier = Gate().verifier
        handshake = Handshake(
            peer=REMOTE, verifier=verifier, phase=lambda: Phase.SERVING, now_ms=self.clock, pairing=self.pairing, nonce=NONCE
        )
        handshake.open()
        return handshake.receive(request("connect", params))


def test_no_garbage_in_what_is_proven_passes_although_the_secret_is_right() -> None:
    """CVE-2026-28472: that a token is there must not be taken for its proof, nor for the device's."""
    known = Known()
    assert passes(known.answer(known.right))
    for values in singles(PROOF):
        params = with_values(known.right, values)
        assert params is not None
        assert not passes(known.answer(params)), values


def test_no_pair_with_garbage_in_what_is_proven_passes() -> None:
    known = Known()
    whole = {"auth", "device"}
    for values in pairs(PROOF, [field for field in FIELDS if field not in whole]):
        params = with_values(known.right, values)
        assert params is None or not passes(known.answer(params)), values


def test_a_right_proof_of_another_is_garbage_too() -> None:
    """Every part of one device's proof in the place of another's, alone and in pairs."""
    known, other = Known(), Known()
    parts = [field for field in PROOF if field.startswith("device.") and field != "device.unknown"]
    same = {"device.signedAt", "device.nonce"}
    for size in (1, 2, 3):
        for fields in itertools.combinations([part for part in parts if part not in same], size):
            values = {field: other.right["device"][field.partition(".")[2]] for field in fields}
            params = with_values(known.right, values)
            assert params is not None
            assert passes(known.answer(params)) is (size == 3), fields


def frame(**changed: Any) -> str:
    """A connect request that is right but for these parts."""
    return json.dumps({"type": "req", "id": "1", "method": "connect", "params": connect_params()} | changed)


FRAMES: list[str | bytes] = [
    "", "null", "[]", "{}", '"connect"', "1", "{", b"\xff\xfe", b"\x00", "[" * 5_000, '{"type":"req"}',
    *(frame(**{key: value}) for key in ("type", "id", "method", "params") for value in GARBAGE if key != "id" or type(value) is not str),
    *(frame(method=name) for name in ("Connect", " connect", "connect\0", "health")),
    frame(id=""),
    frame(params={}, auth={"token": TOKEN}),
    frame(unknown=1),
]  # fmt: skip


@pytest.mark.parametrize("text", FRAMES, ids=range(len(FRAMES)))
def test_no_garbage_of_a_frame_passes(text: str | bytes) -> None:
    for peer in PEERS.values():
        handshake = Gate().handshake(peer)
        handshake.open()
        assert not passes(handshake.receive(text))
        # What comes after it does not either.
        assert handshake.receive(request("connect", connect_params())) == []


def test_a_page_cookie_is_no_proof_for_a_device_or_beside_a_wrong_secret() -> None:
    peer = Peer(address="127.0.0.1", direct_local=True, origin="http://127.0.0.1:18789", page=PageGrant("a"))
    base = connect_params("webchat-ui", "webchat", auth={})
    assert passes(Gate().connect(base, peer))
    for value in GARBAGE:
        for field in ("auth.token", "auth.password"):
            params = with_values(base, {field: value})
            assert params is not None
            assert passes(Gate().connect(params, peer)) is (value is None or value == ""), (field, value)
        for field in ("device.id", "device.signature"):
            params = with_values(base, {field: value})
            assert params is not None
            assert not passes(Gate().connect(params, peer)), (field, value)
