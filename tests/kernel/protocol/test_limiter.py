"""Whom failed proofs are counted against."""

from __future__ import annotations

import asyncio
import json

import pytest

from openclaw_kernel.protocol.limiter import Caller, FailureLimiter, HeldAnswers, network_of
from openclaw_kernel.store.keyvalue import VALUE_LIMIT_BYTES

KIND = "shared-secret"
LOCAL = Caller("127.0.0.1", is_loopback=True)
PROXIED = Caller("127.0.0.1", is_loopback=False)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_is_counted_with_its_network(address: str, counted: str) -> None:
    assert network_of(address) == counted


def test_an_ipv6_host_cannot_step_aside_within_its_network() -> None:
    limiter = FailureLimiter()
    for number in range(10):
        limiter.failed(KIND, Caller(f"2001:db8::{number:x}", is_loopback=False), 0)
    assert limiter.locked_for_ms(KIND, Caller("2001:db8::ffff", is_loopback=False), 0) == 300_000
    assert limiter.locked_for_ms(KIND, Caller("2001:db8:0:1::1", is_loopback=False), 0) == 0


def test_what_a_proxy_forwards_is_not_mistaken_for_local_callers() -> None:
    limiter = FailureLimiter()
    for _ in range(9):
        limiter.failed(KIND, LOCAL, 0)
    limiter.failed(KIND, PROXIED, 0)
    assert limiter.locked_for_ms(KIND, PROXIED, 0) == 0


def test_a_local_success_does_not_give_those_behind_a_proxy_new_tries() -> None:
    limiter = FailureLimiter()
    for _ in range(10):
        limiter.failed(KIND, PROXIED, 0)
        limiter.succeeded(KIND, LOCAL)
    assert limiter.locked_for_ms(KIND, PROXIED, 0) == 300_000


def test_one_success_behind_a_proxy_does_not_give_the_others_new_tries() -> None:
    limiter = FailureLimiter()
    for _ in range(10):
        limiter.failed(KIND, PROXIED, 0)
        limiter.succeeded(KIND, PROXIED)
    assert limiter.locked_for_ms(KIND, PROXIED, 0) == 300_000


def test_a_local_program_cannot_escape_the_delay_by_naming_origins() -> None:
    limiter = FailureLimiter()
    delays = [limiter.failed(KIND, Caller("127.0.0.1", is_loopback=True, origin=f"http://localhost:{number}"), 0) for number in range(7)]
    assert delays == [250, 500, 1000, 2000, 4000, 5000, 5000]


def test_a_success_forgets_and_a_minute_does_too() -> None:
    limiter = FailureLimiter()
    caller = Caller("203.0.113.9", is_loopback=False)
    for _ in range(9):
        limiter.failed(KIND, caller, 0)
    limiter.succeeded(KIND, caller)
    for number in range(9):
        limiter.failed(KIND, caller, number)
    limiter.failed(KIND, caller, 60_100)
    assert limiter.locked_for_ms(KIND, caller, 60_100) == 0


def test_the_memory_of_failures_is_bounded() -> None:
    limiter = FailureLimiter()
    for number in range(11_000):
        limiter.failed(KIND, Caller(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", is_loopback=False), 0)
    assert len(limiter._records) == 10_000


def test_what_is_kept_of_an_origin_is_bounded() -> None:
    """S16: over HTTP a stranger may send any header as its Origin."""
    limiter = FailureLimiter()
    for number in range(10):
        limiter.failed(KIND, Caller("127.0.0.1", is_loopback=True, origin=f"http://{number}{'a' * 8_000}"), 0)
    assert max(len(key) for _, key in limiter._records) < 100


def locked_out(count: int, now_ms: int = 0) -> FailureLimiter:
    """A limiter that has locked out so many, one a millisecond."""
    limiter = FailureLimiter()
    for number in range(count):
        for _ in range(10):
            limiter.failed(KIND, Caller(f"10.0.{number >> 8}.{number & 255}", is_loopback=False), now_ms + number)
    return limiter


def test_a_lockout_is_taken_over_and_a_single_failure_is_not() -> None:
    caller, other = Caller("203.0.113.9", is_loopback=False), Caller("203.0.113.10", is_loopback=False)
    told: list[str] = []
    before, after = FailureLimiter(), FailureLimiter()
    before.on_lockout = lambda: told.append(before.dump(0))
    for _ in range(9):
        before.failed(KIND, caller, 0)
        before.failed(KIND, other, 0)
    assert told == []
    before.failed(KIND, caller, 0)
    after.load(told.pop(), 60_000)
    assert (after.locked_for_ms(KIND, caller, 60_000), after.locked_for_ms("device-token", caller, 60_000)) == (240_000, 0)
    assert after.failed(KIND, other, 60_000) == 0
    assert after.locked_for_ms(KIND, other, 60_000) == 0
    # It ends when it would have ended, and nothing of it counts for the next.
    assert after.locked_for_ms(KIND, caller, 300_000) == 0
    assert json.loads(after.dump(300_000)) == []


def test_a_clock_that_was_set_back_locks_nobody_out_for_longer() -> None:
    kept = locked_out(1, now_ms=10**12).dump(10**12)
    limiter = FailureLimiter()
    limiter.load(kept, 0)
    assert limiter.locked_for_ms(KIND, Caller("10.0.0.0", is_loopback=False), 0) == 300_000


def test_a_clock_that_is_set_back_meanwhile_locks_nobody_out_for_longer() -> None:
    limiter = locked_out(1, now_ms=10**12)
    caller, other = Caller("10.0.0.0", is_loopback=False), Caller("10.0.0.1", is_loopback=False)
    assert limiter.locked_for_ms(KIND, caller, 10**6) == 300_000
    assert limiter.locked_for_ms(KIND, caller, 10**6 + 300_000) == 0
    for _ in range(9):
        limiter.failed(KIND, other, 10**12)
    limiter.failed(KIND, other, 10**6)
    assert limiter.locked_for_ms(KIND, other, 10**6) == 0


def test_what_is_kept_of_lockouts_fits_into_one_value() -> None:
    limiter = FailureLimiter()
    for number in range(1_000):
        caller = Caller("127.0.0.1", is_loopback=True, origin=f"http://{number}")
        for _ in range(10):
            limiter.failed("x" * 20, caller, number)
    kept = json.loads(limiter.dump(1_000))
    assert len(limiter.dump(1_000)) < VALUE_LIMIT_BYTES
    # The latest are those that are locked out for longest.
    assert [until_ms for until_ms, _, _ in kept] == [300_999 - number for number in range(400)]


async def test_answers_are_held_back_for_so_many_at_once() -> None:
    held, over = HeldAnswers(2), asyncio.Event()
    tasks = [asyncio.create_task(held.hold(60_000)) for _ in range(2)]
    asyncio.get_running_loop().call_soon(over.set)
    await over.wait()
    assert held.full
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not held.full
