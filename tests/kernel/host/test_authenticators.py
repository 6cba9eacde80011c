"""Authenticators of plugins as the gateway asks them: one after the other, none of them trusted to behave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openclaw_kernel.api import Approach, Identity, IdentityRefused
from openclaw_kernel.host.authenticators import REST_SECONDS, HostedAuthenticators
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.registry import RegistrationRefused, Registry

APPROACH = Approach(headers={}, path="/", peer="10.0.0.5", address="203.0.113.9", by_trusted_proxy=True, secure=True)
ALICE = Identity(issuer="https://id.example.org", subject="alice")
BAD = IdentityRefused(reason="badge_lost", cure="ask the porter")


class Fixed:
    """Answers always the same, or does what it is told."""

    def __init__(self, name: str, answer: Any) -> None:
        self.id = name
        self.asked = 0
        self._answer = answer

    async def authenticate(self, approach: Approach) -> Any:
        self.asked += 1
        return await self._answer() if callable(self._answer) else self._answer


class Hosted:
    """Some authenticators in their order."""

    def __init__(self, *authenticators: Fixed, seconds: float = 5.0) -> None:
        self.faults: list[PluginFault] = []
        self.now = 0.0
        registry = Registry()
        for number, authenticator in enumerate(authenticators):
            registry.registrar(f"plugin{number}").add_authenticator(authenticator)
        self.guard = Guard()
        self.hosted = HostedAuthenticators(registry, self.guard, report=self.faults.append, seconds=seconds, clock=lambda: self.now)

    async def ask(self) -> Identity | IdentityRefused | None:
        return await self.hosted.ask(APPROACH)


async def raises() -> None:
    raise ValueError("boom")


async def exits() -> None:
    raise SystemExit(3)


async def hangs() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], None),
        ([None, None], None),
        ([None, ALICE, BAD], ALICE),
        ([BAD, ALICE], BAD),
        ([raises, ALICE], ALICE),
        ([exits, ALICE], ALICE),
        ([raises, None, BAD], BAD),
    ],
)
async def test_the_first_that_answers_decides(answers: list[Any], expected: Identity | IdentityRefused | None) -> None:
    hosted = Hosted(*(Fixed(f"a{number}", answer) for number, answer in enumerate(answers)))
    assert await hosted.ask() is expected
    assert bool(hosted.hosted) == bool(answers)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (raises, "raised ValueError: boom"),
        (exits, "raised SystemExit"),
        ("alice", "returned str"),
        (True, "returned bool"),
        (Identity(issuer="", subject="x"), "whose issuer is ''"),
        (Identity(issuer="x", subject=""), "whose subject is ''"),
        (Identity(issuer="trusted-proxy", subject="x"), "whose issuer is 'trusted-proxy'"),
        (Identity(issuer="x", subject=" x"), "whose subject is ' x'"),
        (Identity(issuer="x", subject="a\nb"), "whose subject is"),
        (Identity(issuer="https://a#b", subject="x"), "has a '#'"),
        (Identity(issuer="x", subject=3), "subject is"),  # type: ignore[arg-type]
        (Identity(issuer="x", subject="x", expires_ms="soon"), "expires_ms is"),  # type: ignore[arg-type]
        (Identity(issuer="x", subject="x", groups="ops"), "groups is"),
    ],
)
async def test_one_that_fails_lets_nobody_in_and_is_named(answer: Any, words: str) -> None:
    hosted = Hosted(Fixed("mine", answer))
    refused = await hosted.ask()
    assert isinstance(refused, IdentityRefused)
    assert (refused.reason, refused.temporary) == ("authenticator_failed", True)
    (fault,) = hosted.faults
    assert fault.plugin_id == "plugin0"
    assert words in str(fault)


async def test_one_that_hangs_is_left_alone_for_a_while() -> None:
    slow, other = Fixed("slow", hangs), Fixed("other", ALICE)
    hosted = Hosted(slow, other, seconds=0.05)
    assert [await hosted.ask() for _ in range(3)] == [ALICE] * 3
    assert (slow.asked, other.asked) == (1, 3)
    hosted.now += REST_SECONDS + 1
    assert await hosted.ask() is ALICE
    assert slow.asked == 2
    await hosted.guard.close(1.0)


@pytest.mark.parametrize("thing", [object(), Fixed("", None), Fixed(" x", None), Fixed(3, None)])  # type: ignore[arg-type]
def test_what_is_no_authenticator_is_not_registered(thing: Any) -> None:
    with pytest.raises(RegistrationRefused):
        Registry().registrar("p").add_authenticator(thing)


def test_a_name_is_taken_once_and_goes_with_its_plugin() -> None:
    registry = Registry()
    registry.registrar("p").add_authenticator(Fixed("mine", None))
    with pytest.raises(RegistrationRefused, match="registered by plugin 'p' already"):
        registry.registrar("q").add_authenticator(Fixed("mine", None))
    registry.remove("p")
    registry.registrar("q").add_authenticator(Fixed("mine", None))
    assert registry.authenticators["mine"].plugin_id == "q"
