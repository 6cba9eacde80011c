"""An issuer of signed tokens as a process: its keys, its tokens, and its faults.

`/jwks` and `/.well-known/openid-configuration` are what an issuer publishes; below `/control` a test rotates the keys, has tokens made and
says how the issuer misbehaves: `hang`, `500`, `half` (an answer that ends in the middle), `redirect`, `huge`, `empty` or `ok`.

Run it with `python -m tests.emulators.jwks --port 0`.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.emulators.common import argument_parser, run

HUGE_BYTES = 2_000_000


class Issuer:
    """The keys and the state of one issuer."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.requests = 0
        self.generation = 0
        self.keys: dict[str, Any] = {}
        self.released = asyncio.Event()
        self.rotate(keep=False)

    def rotate(self, *, keep: bool) -> None:
        """Make a new key of each kind; the old ones stay published only where they are kept."""
        self.generation += 1
        fresh = {
            "RS256": rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        named = {f"{algorithm}-{self.generation}": key for algorithm, key in fresh.items()}
        self.keys = {**(self.keys if keep else {}), **named}

    def document(self) -> dict[str, Any]:
        """The published keys."""
        return {"keys": [{"kid": name, "use": "sig", "alg": name.partition("-")[0], **_public(key)} for name, key in self.keys.items()]}

    def token(self, claims: dict[str, Any], algorithm: str, headers: dict[str, Any]) -> str:
        """A token of the newest key for this algorithm."""
        name = f"{algorithm}-{self.generation}"
        return jwt.encode(claims, self.keys[name], algorithm=algorithm, headers={"kid": name, **headers})


def _public(key: Any) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return RSAAlgorithm.to_jwk(public, as_dict=True)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return ECAlgorithm.to_jwk(public, as_dict=True)
    return OKPAlgorithm.to_jwk(public, as_dict=True)


class Server:
    """Answers for an issuer."""

    def __init__(self) -> None:
        self.issuer = Issuer()

    def application(self) -> web.Application:
        """All routes."""
        application = web.Application()
        application.router.add_get("/jwks", self.jwks)
        application.router.add_get("/.well-known/openid-configuration", self.configuration)
        application.router.add_post("/control/mode", self.set_mode)
        application.router.add_post("/control/rotate", self.rotate)
        application.router.add_post("/control/token", self.make_token)
        application.router.add_get("/control/requests", self.count)
        return application

    async def jwks(self, request: web.Request) -> web.StreamResponse:
        """The keys, or what the mode says."""
        issuer = self.issuer
        issuer.requests += 1
        content = json.dumps(issuer.document()).encode()
        if issuer.mode == "hang":
            await issuer.released.wait()
        if issuer.mode == "500":
            return web.Response(status=500, text="internal error")
        if issuer.mode == "redirect":
            raise web.HTTPFound("/jwks?again")
        if issuer.mode == "empty":
            return web.json_response({"keys": []})
        if issuer.mode == "huge":
            return web.Response(body=content.rstrip(b"}") + b" " * HUGE_BYTES + b"}", content_type="application/json")
        if issuer.mode == "half":
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(content))})
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            if request.transport is not None:
                request.transport.abort()
            return response
        return web.Response(body=content, content_type="application/json")

    async def configuration(self, request: web.Request) -> web.Response:
        """What an OpenID provider publishes of itself."""
        base = f"http://{request.host}"
        return web.json_response({"issuer": base, "jwks_uri": f"{base}/jwks"})

    async def set_mode(self, request: web.Request) -> web.Response:
        """Take a fault."""
        self.issuer.mode = (await request.json())["mode"]
        released, self.issuer.released = self.issuer.released, asyncio.Event()
        released.set()
        return web.json_response({})

    async def rotate(self, request: web.Request) -> web.Response:
        """Make new keys."""
        self.issuer.rotate(keep=(await request.json())["keep"])
        return web.json_response({})

    async def make_token(self, request: web.Request) -> web.Response:
        """Sign claims; without `exp`, `iss` and `aud` of their own they get those of a good token."""
        wanted = await request.json()
        now = int(time.time())
        claims = {"iss": f"http://{request.host}", "aud": "gateway", "sub": "alice", "iat": now, "exp": now + 600} | wanted["claims"]
        claims = {name: value for name, value in claims.items() if value is not None}
        return web.json_response({"token": self.issuer.token(claims, wanted["algorithm"], wanted["headers"])})

    async def count(self, _request: web.Request) -> web.Response:
        """How often the keys were asked for."""
        return web.json_response({"requests": self.issuer.requests})


if __name__ == "__main__":
    run(Server().application(), argument_parser("an issuer of signed tokens").parse_args())
