"""The params of `connect`, closed as the contract has them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from openclaw_kernel.api.methods import Params

NonEmpty = Annotated[str, Field(min_length=1)]

# Lists of a stranger are judged by their first fault: twenty thousand of them would take longer to tell than to send.
Names = Annotated[list[NonEmpty], Field(fail_fast=True)]

ClientId = Literal[
    "webchat-ui",
    "openclaw-control-ui",
    "openclaw-browser-copilot",
    "openclaw-tui",
    "webchat",
    "cli",
    "gateway-client",
    "openclaw-macos",
    "openclaw-linux",
    "openclaw-ios",
    "openclaw-watchos",
    "openclaw-android",
    "node-host",
    "openclaw-worker",
    "test",
    "fingerprint",
    "openclaw-probe",
]
ClientMode = Literal["webchat", "cli", "ui", "backend", "node", "worker", "probe", "test"]


class _Exact(Params):
    # Who is not known yet gets no help: a number is no text and a text no number.
    model_config = ConfigDict(strict=True)


class ClientInfo(_Exact):
    """Who connects, by its own word."""

    id: ClientId
    display_name: NonEmpty | None = None
    version: NonEmpty
    build_id: Annotated[str, Field(min_length=1, max_length=96)] | None = None
    platform: NonEmpty
    device_family: NonEmpty | None = None
    model_identifier: NonEmpty | None = None
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    mode: ClientMode
    instance_id: NonEmpty | None = None


class DeviceProof(_Exact):
    """An Ed25519 signature over the challenge."""

    id: NonEmpty
    public_key: NonEmpty
    signature: NonEmpty
    signed_at: Annotated[int, Field(ge=0)]
    nonce: str


class Credentials(_Exact):
    """What the client offers as proof; every field may be absent or empty."""

    token: str | None = None
    password: str | None = None
    device_token: str | None = None
    bootstrap_token: str | None = None
    approval_runtime_token: str | None = None
    agent_runtime_identity_token: str | None = None


class ConnectParams(_Exact):
    """Params of the first request."""

    min_protocol: Annotated[int, Field(ge=1)]
    max_protocol: Annotated[int, Field(ge=1)]
    client: ClientInfo
    caps: Names = []
    commands: Names = []
    permissions: dict[str, bool] = {}
    path_env: str | None = None
    role: NonEmpty = "operator"
    scopes: Names | None = None
    device: DeviceProof | None = None
    auth: Credentials = Credentials()
    locale: str | None = None
    user_agent: str | None = None
    model_catalog: dict[str, Any] | None = None
    computer_use: Any = None
    worker_runs: Any = None
