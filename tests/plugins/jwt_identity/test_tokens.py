"""Tokens against an issuer that is a process of its own: what opens, what does not, and what its faults do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import jwt
import pytest
from multidict import CIMultiDict

from openclaw_kernel.api import Approach, Identity, IdentityRefused
from openclaw_plugins.jwt_identity import keys
from openclaw_plugins.jwt_identity.authenticator import TokenReader
from openclaw_plugins.jwt_identity.keys import Fetcher
from openclaw_plugins.jwt_identity.settings import JwtIdentitySettings, resolve
from openclaw_plugins.jwt_identity.tokens import read_keys
from tests.emulators.jwks_control import JwksEmulator


class Clock:
    """Seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[JwksEmulator]:
    async with JwksEmulator() as started:
        yield started


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    fetcher = Fetcher()
    yield fetcher
    await fetcher.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


Ask = Callable[..., Any]


@pytest.fixture
def reader(issuer: JwksEmulator, fetcher: Fetcher, clock: Clock) -> Callable[..., TokenReader]:
    """Make a reader with one issuer; keys replace."""

    def make(**more: Any) -> TokenReader:
        section = {"issuers": [{"issuer": issuer.url, "audience": ["gateway"]} | more]}
        settings = JwtIdentitySettings.model_validate(section)
        return TokenReader([resolve(one) for one in settings.issuers], settings, fetcher, clock=clock)

    return make


def approach(token: str, header: str = "Authorization") -> Approach:
    """A request with a token."""
    value = f"Bearer {token}" if header == "Authorization" else token
    headers = CIMultiDict({header: value})
    return Approach(headers=headers, path="/", peer="10.0.0.5", address="203.0.113.9", by_trusted_proxy=True, secure=True)


def reason(answer: object) -> str | None:
    """Why an answer is a refusal."""
    return answer.reason if isinstance(answer, IdentityRefused) else None


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_good_token_proves_its_subject(issuer: JwksEmulator, reader: Callable[..., TokenReader], algorithm: str) -> None:
    expires = int(time.time()) + 300
    claims: dict[str, Any] = {
        "email": "alice@example.org",
        "email_verified": True,
        "name": "Alice",
        "groups": ["ops", 3],
        "exp": expires,
        "hd": "example.org",
    }
    answer = await reader().read(approach(await issuer.token(algorithm=algorithm, **claims)))
    assert answer == Identity(
        issuer=issuer.url,
        subject="alice",
        display_name="Alice",
        email="alice@example.org",
        groups=("ops",),
        expires_ms=expires * 1000,
        claims={"hd": "example.org"},
    )


@pytest.mark.parametrize(
    ("preset", "header", "algorithm"),
    [("cloudflare-access", "Cf-Access-Jwt-Assertion", "RS256"), ("google-iap", "X-Goog-IAP-JWT-Assertion", "ES256")],
)
async def test_presets_know_the_header_and_the_signature(
    issuer: JwksEmulator, reader: Callable[..., TokenReader], preset: str, header: str, algorithm: str
) -> None:
    read = reader(preset=preset, jwksUrl=f"{issuer.url}/jwks").read
    answer = await read(approach(await issuer.token(algorithm=algorithm, email="a@example.org"), header))
    assert isinstance(answer, Identity)
    assert answer.email == "a@example.org"
    other = "ES256" if algorithm == "RS256" else "RS256"
    assert reason(await read(approach(await issuer.token(algorithm=other), header))) == "algorithm_refused"
    assert await read(approach(await issuer.token(algorithm=algorithm), "Authorization")) is None


def test_presets_know_where_the_keys_are() -> None:
    section = [
        {"preset": "cloudflare-access", "issuer": "https://team.cloudflareaccess.com", "audience": ["tag"]},
        {"preset": "google-iap", "audience": ["/projects/1/apps/x"]},
        {"issuer": "https://id.example.org/", "audience": ["gateway"], "header": "X-Forwarded-Access-Token"},
    ]
    cloudflare, google, oidc = map(resolve, JwtIdentitySettings.model_validate({"issuers": section}).issuers)
    assert cloudflare.jwks_url == "https://team.cloudflareaccess.com/cdn-cgi/access/certs"
    assert (google.issuer, google.jwks_url) == ("https://cloud.google.com/iap", "https://www.gstatic.com/iap/verify/public_key-jwk")
    assert (oidc.issuer, oidc.jwks_url, oidc.header) == ("https://id.example.org/", None, "X-Forwarded-Access-Token")


@pytest.mark.parametrize(
    ("claims", "word", "guess"),
    [
        ({"exp": 1_600_000_000}, "token_expired", False),
        ({"exp": None}, "claim_missing", True),
        ({"sub": None}, "claim_missing", True),
        ({"sub": ""}, "claim_missing", True),
        ({"aud": None}, "claim_missing", True),
        ({"aud": "another"}, "audience_mismatch", True),
        ({"aud": ["another", "gateway-2"]}, "audience_mismatch", True),
        ({"nbf": 4_000_000_000}, "token_not_yet_valid", False),
        ({"exp": 10**400}, "token_invalid", True),
    ],
)
async def test_each_flaw_of_a_signed_token_has_its_word(
    issuer: JwksEmulator, reader: Callable[..., TokenReader], claims: dict[str, Any], word: str, *, guess: bool
) -> None:
    answer = await reader().read(approach(await issuer.token(**claims)))
    assert isinstance(answer, IdentityRefused)
    assert (answer.reason, answer.guess) == (word, guess)


async def test_a_little_difference_between_the_clocks_is_borne(issuer: JwksEmulator, reader: Callable[..., TokenReader]) -> None:
    now = int(time.time())
    read = reader().read
    near: list[dict[str, Any]] = [{"exp": now - 10}, {"nbf": now + 10}, {"iat": now + 10}]
    for claims in near:
        assert isinstance(await read(approach(await issuer.token(**claims))), Identity), claims
    assert reason(await read(approach(await issuer.token(exp=now - 60)))) == "token_expired"


async def test_an_address_counts_only_where_the_issuer_has_verified_it(issuer: JwksEmulator, reader: Callable[..., TokenReader]) -> None:
    for verified in (False, None, "true"):
        answer = await reader().read(approach(await issuer.token(email="owner@example.org", email_verified=verified)))
        assert isinstance(answer, Identity)
        assert answer.email is None


def part(value: object) -> str:
    """One part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_no_token_without_the_issuers_signature_opens(issuer: JwksEmulator, reader: Callable[..., TokenReader]) -> None:
    """None, a secret made of the public key, another's key, a changed claim, an unknown extension."""
    good = await issuer.token()
    head, body, signature = good.split(".")
    kid = jwt.get_unverified_header(good)["kid"]
    async with aiohttp.ClientSession() as http, http.get(f"{issuer.url}/jwks") as response:
        document = await response.json()
    claims = {"iss": issuer.url, "aud": "gateway", "sub": "owner", "exp": int(time.time()) + 600}
    forged = [f"{part({'alg': 'none', 'kid': kid})}.{part(claims)}.", f"{part({'alg': 'None'})}.{part(claims)}.x"]
    for key in document["keys"]:
        for material in (json.dumps(key), key.get("n", ""), key.get("x", "")):
            text = f"{part({'alg': 'HS256', 'kid': key['kid']})}.{part(claims)}"
            made = hmac.new(material.encode(), text.encode(), hashlib.sha256).digest()
            forged.append(f"{text}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}")
    forged += [f"{head}.{part(claims)}.{signature}", f"{head}.{body}.{signature[::-1]}", f"{head}.{body}."]
    forged.append(await issuer.token(headers={"kid": f"RS256-{kid.partition('-')[2]}"}))
    async with JwksEmulator() as impostor:
        forged.append(await impostor.token(iss=issuer.url))
    forged.append(await issuer.token(headers={"crit": ["x"], "x": 1}))
    read = reader(header="X-Token").read
    for token in forged:
        assert isinstance(await read(approach(token, "X-Token")), IdentityRefused), token
    assert isinstance(await read(approach(good, "X-Token")), Identity)


async def test_what_is_not_for_us_is_left_to_others(issuer: JwksEmulator, reader: Callable[..., TokenReader]) -> None:
    read = reader().read
    for value in ("the-shared-token", "", "a.b.c", "x" * 20_000, await issuer.token(iss="https://other.example")):
        assert await read(approach(value)) is None
    read = reader(header="X-Token").read
    assert reason(await read(approach("a.b.c", "X-Token"))) == "token_malformed"
    assert reason(await read(approach(f"{await issuer.token()}, {await issuer.token()}", "X-Token"))) == "token_malformed"
    assert reason(await read(approach(await issuer.token(iss="https://other.example"), "X-Token"))) == "issuer_unknown"
    assert await issuer.requests() == 0


async def test_keys_are_fetched_once_and_again_when_they_are_old(
    issuer: JwksEmulator, reader: Callable[..., TokenReader], clock: Clock
) -> None:
    read = reader().read
    token = await issuer.token()
    answers = await asyncio.gather(*(read(approach(token)) for _ in range(20)))
    assert all(isinstance(answer, Identity) for answer in answers)
    assert await issuer.requests() == 1
    clock.now += 601
    assert isinstance(await read(approach(token)), Identity)
    assert await issuer.requests() == 2


async def test_an_issuer_of_two_applications_is_asked_once(issuer: JwksEmulator, fetcher: Fetcher, clock: Clock) -> None:
    section = {"issuers": [{"issuer": issuer.url, "audience": [name]} for name in ("other", "gateway")]}
    settings = JwtIdentitySettings.model_validate(section)
    read = TokenReader([resolve(one) for one in settings.issuers], settings, fetcher, clock=clock).read
    assert isinstance(await read(approach(await issuer.token())), Identity)
    assert await issuer.requests() == 1


async def test_a_slow_issuer_has_one_span_for_all_its_answers(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it one for each, the sum would be more than the gateway waits for an authenticator, and nobody else's token be read."""
    monkeypatch.setattr(keys, "FETCH_SECONDS", 0.05)
    url = "https://id.example"

    async def fetch(address: str) -> Any:
        if address.endswith("/jwks"):
            await asyncio.Event().wait()
        return {"issuer": url, "jwks_uri": f"{url}/jwks"}

    settings = JwtIdentitySettings.model_validate({"issuers": [{"issuer": url, "audience": ["gateway"]}]})
    read = TokenReader([resolve(one) for one in settings.issuers], settings, fetch, clock=clock).read
    token = f"{part({'alg': 'RS256'})}.{part({'iss': url})}.x"
    async with asyncio.timeout(5):
        assert reason(await read(approach(token))) == "keys_unavailable"


async def test_a_rotated_key_is_found_and_the_old_one_ends(issuer: JwksEmulator, reader: Callable[..., TokenReader], clock: Clock) -> None:
    read = reader().read
    old = await issuer.token()
    assert isinstance(await read(approach(old)), Identity)
    await issuer.rotate()
    new = await issuer.token()
    assert reason(await read(approach(new))) == "key_unknown"
    clock.now += keys.UNKNOWN_KEY_SECONDS
    assert isinstance(await read(approach(new)), Identity)
    assert reason(await read(approach(old))) == "key_unknown"


async def test_tokens_of_unknown_keys_make_few_requests(issuer: JwksEmulator, reader: Callable[..., TokenReader], clock: Clock) -> None:
    read = reader().read
    for number in range(50):
        clock.now += 1
        assert reason(await read(approach(await issuer.token(headers={"kid": f"k{number}"})))) == "key_unknown"
    assert await issuer.requests() <= 1 + 50 // keys.UNKNOWN_KEY_SECONDS


@pytest.mark.parametrize("mode", ["hang", "500", "half", "redirect", "huge", "gone"])
async def test_an_issuer_that_fails_opens_nothing_and_what_is_known_goes_on(
    issuer: JwksEmulator, reader: Callable[..., TokenReader], clock: Clock, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(keys, "FETCH_SECONDS", 0.3)
    known, fresh = reader().read, reader(jwksUrl=f"{issuer.url}/jwks").read
    token = await issuer.token()
    assert isinstance(await known(approach(token)), Identity)
    await (issuer.stop() if mode == "gone" else issuer.misbehave(mode))
    answers = await asyncio.gather(*(fresh(approach(token)) for _ in range(5)))
    assert [(answer.reason, answer.temporary) for answer in answers if isinstance(answer, IdentityRefused)] == [
        ("keys_unavailable", True)
    ] * 5
    clock.now += 601
    assert isinstance(await known(approach(token)), Identity)
    clock.now += 86_400 + 601
    assert reason(await known(approach(token))) == "keys_unavailable"
    if mode != "gone":
        await issuer.misbehave("ok")
        clock.now += keys.RETRY_SECONDS
        assert isinstance(await fresh(approach(token)), Identity)


async def test_an_issuer_without_keys_knows_none(issuer: JwksEmulator, reader: Callable[..., TokenReader]) -> None:
    await issuer.misbehave("empty")
    assert reason(await reader().read(approach(await issuer.token()))) == "key_unknown"


@pytest.mark.parametrize("kind", ["RSA", "EC", "OKP"])
def test_a_key_that_signs_nothing_is_passed_over(kind: str) -> None:
    good = {"kty": "RSA", "kid": "good", "e": "AQAB", "n": base64.urlsafe_b64encode(b"\xff" * 256).rstrip(b"=").decode()}
    document = {"keys": [good | {"kty": kind, "kid": "odd", "alg": "none"}, good]}
    assert [key.key_id for key in read_keys(document)] == ["good"]


@pytest.mark.parametrize(
    "section",
    [
        {"issuer": "http://id.example.org", "audience": ["a"]},
        {"issuer": "https://id.example.org", "audience": []},
        {"issuer": "https://id.example.org"},
        {"audience": ["a"]},
        {"preset": "cloudflare-access", "audience": ["a"]},
        {"issuer": "https://id.example.org", "audience": ["a"], "algorithms": ["HS256"]},
        {"issuer": "https://id.example.org", "audience": ["a"], "algorithms": ["none"]},
        {"issuer": "https://id.example.org", "audience": ["a"], "jwksUrl": "http://id.example.org/jwks"},
        {"issuer": "https://user:secret@id.example.org", "audience": ["a"]},
    ],
)
def test_settings_that_would_prove_nothing_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        JwtIdentitySettings.model_validate({"issuers": [section]})
