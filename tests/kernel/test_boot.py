"""Which config a start serves: decided from files, with no database and nothing run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.home import DEFAULT_FILE, prepare_home
from openclaw_config.load import load
from openclaw_kernel.boot import Boot, NotServed, decide, is_supervised
from openclaw_kernel.cannot_start import CannotStart
from openclaw_kernel.generations.attempts import Attempts
from openclaw_kernel.generations.files import GenerationFiles, LastGood

GOOD = "gateway: {port: 7001, auth: {mode: token, token: swordfish-0123456789}}\n"
BROKEN = "gateway: {prot: 7001}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder in which a config has worked."""
    write(tmp_path, GOOD)
    mark_good(tmp_path)
    return tmp_path


def write(home: Path, text: str) -> None:
    (home / "openclaw.yaml").write_text(text, encoding="utf-8")


def mark_good(home: Path, number: int = 4) -> None:
    """As a gateway does that was ready with the file as it is."""
    files = GenerationFiles(home)
    path = home / "openclaw.yaml"
    files.mark_good(LastGood(number=number, files=files.keep({path: path.read_bytes()})))


def chosen(home: Path, *, may_fall_back: bool = True) -> Boot:
    return decide(home, Attempts(home), may_fall_back=may_fall_back)


def test_a_file_that_is_fine_serves_and_nobody_needs_to_know(home: Path) -> None:
    write(home, GOOD.replace("7001", "7002"))
    boot = chosen(home)
    assert (boot.serves, boot.loaded.config.gateway.port, boot.problems(None)) == ("newest", 7002, [])


def test_at_a_terminal_a_broken_file_is_refused_with_every_fault_and_the_cure(home: Path) -> None:
    write(home, "gateway: {prot: 1}\nlogging: {level: loud}\n")
    with pytest.raises(NotServed) as refused:
        chosen(home, may_fall_back=False)
    text = str(refused.value)
    assert "openclaw.yaml:1:11: gateway.prot: unknown key 'prot'; did you mean 'port'?" in text
    assert "openclaw.yaml:2:11: logging.level: found 'loud'" in text
    assert "put back generation 4, which last worked: openclaw-kernel config rollback last-good" in text
    assert (home / "openclaw.yaml").read_text() == "gateway: {prot: 1}\nlogging: {level: loud}\n"


def test_under_a_supervisor_what_last_worked_serves_and_it_is_said(home: Path) -> None:
    write(home, BROKEN)
    boot = chosen(home)
    assert (boot.serves, boot.loaded.config.gateway.port, boot.loaded.text) == ("last-good", 7001, GOOD)
    (problem,) = boot.problems(None)
    assert problem.startswith(
        "openclaw.yaml is not served, generation 4, which last worked, is: openclaw.yaml:1:11: gateway.prot: unknown key"
    )
    assert boot.rejected == BROKEN.encode()
    assert "generation 4" in boot.words()


def test_a_file_that_would_open_the_door_is_as_broken_as_any(home: Path) -> None:
    write(home, "gateway: {bind: lan, auth: {mode: none}}\n")
    assert chosen(home).serves == "last-good"
    with pytest.raises(NotServed, match=r"openclaw\.yaml:1:\d+: gateway\."):
        chosen(home, may_fall_back=False)


@pytest.mark.parametrize("spoil", ["gone", "other bytes", "no text", "invalid by now"])
def test_where_what_last_worked_cannot_serve_the_start_is_refused_with_both_reasons(spoil: str, home: Path) -> None:
    kept = next((home / "generations").glob("*.yaml"))
    if spoil == "gone":
        kept.unlink()
    elif spoil == "other bytes":
        kept.write_text("gateway: {port: 1}\n")
    elif spoil == "no text":
        files = GenerationFiles(home).keep({home / "openclaw.yaml": b"\xff"})
        GenerationFiles(home).mark_good(LastGood(number=4, files=files))
    else:
        write(home, BROKEN)
        mark_good(home)
    write(home, "gateway: {prot: 2}\n")
    with pytest.raises(NotServed, match=r"(?s)gateway\.prot.*generation 4, which last worked, cannot serve instead"):
        chosen(home)


def test_where_nothing_ever_worked_the_start_is_refused(tmp_path: Path) -> None:
    write(tmp_path, BROKEN)
    with pytest.raises(NotServed, match=r"(?s)gateway\.prot.*no config has worked here before"):
        chosen(tmp_path)


def test_a_file_that_is_gone_is_a_fault_and_no_first_start(home: Path) -> None:
    (home / "openclaw.yaml").unlink()
    assert not prepare_home(home, may_begin=False)
    assert not (home / "openclaw.yaml").exists()
    assert chosen(home).serves == "last-good"


def test_references_of_what_last_worked_are_read_anew(home: Path) -> None:
    (home / "secret").write_text("first-secret-0123456789")
    write(home, "gateway: {auth: {mode: token, token: '${file:secret}'}}\n")
    mark_good(home)
    (home / "secret").write_text("second-secret-0123456789")
    write(home, BROKEN)
    token = chosen(home).loaded.config.gateway.auth.token
    assert token is not None
    assert token.unwrap() == "second-secret-0123456789"


def dies(home: Path, *, safe: bool = False) -> None:
    Attempts(home).begin(safe=safe)


def test_after_two_deaths_what_last_worked_serves_in_safe_mode_for_the_newest_may_be_what_kills(home: Path) -> None:
    write(home, GOOD.replace("7001", "7002"))
    dies(home)
    assert not chosen(home).safe
    dies(home)
    boot = chosen(home, may_fall_back=False)
    assert (boot.safe, boot.serves, boot.loaded.config.gateway.port) == (True, "last-good", 7001)
    assert [line.partition(":")[0] for line in boot.problems(None)] == [
        "safe mode",
        "openclaw.yaml is not served, generation 4, which last worked, is",
    ]


def test_safe_mode_does_without_a_last_good_config(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    dies(tmp_path)
    dies(tmp_path)
    boot = chosen(tmp_path)
    assert (boot.safe, boot.serves) == (True, "newest")


def test_safe_mode_that_dies_twice_is_the_last_start(home: Path) -> None:
    for safe in (False, False, True, True):
        dies(home, safe=safe)
    with pytest.raises(CannotStart, match=r"4 starts in a row died .*2 of them in safe mode.*run --no-safe-mode"):
        chosen(home).begin()


def test_what_turns_out_not_to_start_gives_way_to_what_last_worked(home: Path) -> None:
    write(home, GOOD.replace("7001", "7002"))
    instead = chosen(home).fallen_back("openclaw.yaml:1: gateway.tls.certPath: is not there; make it")
    assert instead is not None
    assert (instead.serves, instead.loaded.config.gateway.port) == ("last-good", 7001)
    assert "certPath" in instead.problems(None)[0]
    assert instead.fallen_back("and again") is None
    assert chosen(home, may_fall_back=False).fallen_back("x") is None
    write(home, GOOD)
    assert chosen(home).fallen_back("x") is None


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [
        ({"INVOCATION_ID": "ab12"}, False, True),
        ({"NOTIFY_SOCKET": "/run/notify"}, False, True),
        ({"XPC_SERVICE_NAME": "ai.openclaw.kernel"}, False, True),
        ({"INVOCATION_ID": "ab12", "NOTIFY_SOCKET": "@a"}, True, False),
        ({"XPC_SERVICE_NAME": "0"}, False, False),
        ({"XPC_SERVICE_NAME": "application.com.apple.Terminal.1"}, False, False),
        ({}, False, False),
    ],
)
def test_a_supervisor_is_known_by_what_it_sets(environment: dict[str, str], terminal: bool, expected: bool) -> None:
    assert is_supervised(environment, at_terminal=terminal) is expected


FULL: dict[str, Any] = {
    "gateway": {
        "port": 7001,
        "bind": "loopback",
        "auth": {"mode": "token", "token": "swordfish-0123456789"},
        "trustedProxies": ["192.0.2.7"],
        "controlUi": {"allowedOrigins": ["https://a.example"]},
        "tls": {"enabled": False},
    },
    "models": {"providers": {"echo": {}, "openai": {"apiKey": "k-0123456789", "baseUrl": "https://a.example"}}},
    "channels": {"telegram": {"botToken": "1:x", "dmPolicy": "allowlist", "allowFrom": [1]}},
    "agents": {"defaults": {"timeoutSeconds": 600}, "entries": {"main": {"default": True}}},
    "plugins": {"enabled": True, "entries": {"conversation": {"enabled": True, "config": {"drainSeconds": 1}}}},
    "session": {"mainKey": "main"},
    "logging": {"level": "info"},
}
VALUES: tuple[Any, ...] = (-1, "${env:NOT_THERE}", [[]], {"x": 1})


def mutations(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """The full config with one key deleted, renamed or given another value, for every key and value."""
    for key, value in node.items():
        where = (*path, key)
        yield f"without {where}", changed(where, lambda holder, key: holder.pop(key))
        yield f"renamed {where}", changed(where, lambda holder, key: holder.update({f"{key}x": holder.pop(key)}))
        for other in VALUES:
            yield f"{where} = {other!r:.20}", changed(where, lambda holder, key, other=other: holder.update({key: other}))
        if isinstance(value, Mapping):
            yield from mutations(value, where)


def changed(where: tuple[str, ...], change: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(FULL))
    holder = document
    for key in where[:-1]:
        holder = holder[key]
    change(holder, where[-1])
    return document


def refusal_at_a_terminal(home: Path) -> str | None:
    try:
        chosen(home, may_fall_back=False)
    except NotServed as refused:
        return str(refused)
    return None


def test_every_mutation_of_every_key_is_served_or_told_and_never_anything_else(home: Path) -> None:
    write(home, json.dumps(FULL))
    assert chosen(home).serves == "newest"
    mark_good(home)
    served = refused = 0
    for what, document in mutations(FULL):
        write(home, json.dumps(document))
        refusal = refusal_at_a_terminal(home)
        if refusal is None:
            served += 1
            continue
        assert refusal.startswith("openclaw.yaml:"), what
        refused += 1
        if refused % 5 == 0:
            boot = chosen(home)
            assert boot.loaded.source == FULL, what
            assert boot.problems(None)[0].startswith("openclaw.yaml is not served, generation 4"), what
    assert served > 20
    assert refused > 60


def test_every_truncation_and_every_odd_byte_is_served_or_told(home: Path) -> None:
    write(home, DEFAULT_FILE)
    (home / "gateway.token").write_text("swordfish-0123456789")
    mark_good(home)
    content = DEFAULT_FILE.encode()
    spoiled = [content[:length] for length in range(0, len(content), 151)]
    spoiled += [
        content[:length] + odd + content[length:]
        for length in range(0, len(content), 700)
        for odd in (b"\x00", b"\xff", b"\t", b"{", b"&a *a")
    ]
    spoiled += [b"", b"\xef\xbb\xbf" + content, b"[]", b"null", b"--- 1", b"a: &a [*a]", b"x: " + b"[" * 300]
    for data in spoiled:
        (home / "openclaw.yaml").write_bytes(data)
        boot = chosen(home)
        assert boot.loaded.config is not None
        assert boot.serves == "newest" or boot.problems(None), data[-40:]


def test_a_config_from_a_later_version_is_refused_by_its_new_keys_and_left_as_it_is(home: Path) -> None:
    later = "gateway: {port: 7001, auth: {mode: token, token: swordfish-0123456789}, quic: {enabled: true}}\nmesh: {peers: []}\n"
    write(home, later)
    boot = chosen(home)
    assert boot.serves == "last-good"
    assert boot.refusal is not None
    assert "gateway.quic: unknown key" in boot.refusal
    assert "mesh: unknown key" in boot.refusal
    assert (home / "openclaw.yaml").read_text() == later


def test_the_newest_file_is_no_problem_any_more_once_another_generation_was_taken(home: Path) -> None:
    write(home, BROKEN)
    boot = chosen(home)
    write(home, GOOD.replace("7001", "7003"))
    from openclaw_kernel.api.config import Generation

    taken = load(home / "openclaw.yaml", environment={})
    newer = Generation(number=5, hash=taken.hash, ts_ms=0, actor="a", surface="ws", reason=None, changed=())
    assert boot.problems(newer) == []
