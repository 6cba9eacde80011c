"""The shape of `openclaw.yaml`, for everything that is not a plugin's own section.

Keys carry the names of the reference gateway where it has one. Every model refuses unknown keys. A plugin's section
(`channels.<id>`, `models.providers.<id>`, `plugins.entries.<id>.config`) stays a plain mapping here: the plugin's own
settings model validates it.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from openclaw_config.fingerprints import read_fingerprint
from openclaw_config.schema_paths import AGENT_WRITABLE
from openclaw_config.secrets import Secret

AGENT_ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"

AgentId = Annotated[str, Field(pattern=AGENT_ID_PATTERN)]
SecretName = Annotated[str, Field(pattern=AGENT_ID_PATTERN)]
Port = Annotated[int, Field(ge=0, le=65535)]
AgentWritable = Field(json_schema_extra={AGENT_WRITABLE: True})
"""Marks a leaf that an agent may write by itself. What has no mark it may not, whatever it is called and whenever it was added."""
Section = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]


class Model(BaseModel):
    """Base of all config models: camelCase keys, unknown keys refused, immutable after validation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        # `channels:` with every line beneath commented out is YAML's null.
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
NonEmpty = Annotated[str, Field(min_length=1)]


class TrustedProxyAuth(Model):
    user_header: HeaderName | None = None
    """The header in which the proxy names the user, e.g. `X-Forwarded-User`. The proxy has to remove what a client put there."""
    required_headers: list[HeaderName] = []
    """Headers without which the proxy is not believed, e.g. one that only it can set."""
    allow_users: list[NonEmpty] | None = None
    """Users that may come in, letter by letter; unset means everybody whom the proxy names."""
    allow_loopback: bool = False
    """Whether a proxy on this machine may name users. Every program on this machine can then name any."""


OperatorScope = Literal[
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
    "operator.pairing",
    "operator.talk",
    "operator.talk.secrets",
    "operator.sessions.read",
    "operator.sessions.write",
]


class IdentityGrant(Model):
    issuer: NonEmpty
    """Who vouches, letter by letter: the `iss` of a token, or `trusted-proxy` for the users of that mode."""
    subject: NonEmpty | None = None
    """The id of the person at the issuer, letter by letter; `*` means everybody whom the issuer names."""
    email: NonEmpty | None = None
    """A verified address, letter by letter. It may come to belong to another; a subject never does."""
    group: NonEmpty | None = None
    """A group of the issuer, whose members these are."""
    scopes: Annotated[list[OperatorScope], Field(min_length=1)]
    """What they may do."""

    @model_validator(mode="after")
    def _names_somebody(self) -> IdentityGrant:
        if self.subject is None and self.email is None and self.group is None:
            raise PydanticCustomError("identity", "nobody is named; add subject, email or group")
        return self


class GatewayAuth(Model):
    mode: Literal["token", "password", "none", "trusted-proxy"] = "token"
    """How a client proves itself: a shared token, a shared password, nothing, or by the word of a proxy in `gateway.trustedProxies`."""
    token: Secret | None = None
    """The shared token; a reference such as `${file:gateway.token}` or `${env:OPENCLAW_GATEWAY_TOKEN}` keeps it out of this file."""
    password: Secret | None = None
    """The shared password, used in mode `password`. In mode `trusted-proxy` token and password are for programs on this machine."""
    trusted_proxy: TrustedProxyAuth = TrustedProxyAuth()
    """Whom the proxy names, in mode `trusted-proxy`."""
    identities: list[IdentityGrant] = []
    """What people may do whom an authenticator plugin such as jwt-identity knows: the sum of all entries that fit. Who fits none gets
    nothing. Users of mode `trusted-proxy` may do everything, unless an entry has their issuer."""


def _is_proxy(value: str) -> str:
    try:
        network = ipaddress.ip_network(value.strip(), strict=False)
    except ValueError:
        raise PydanticCustomError("proxy", "write it as 192.0.2.7, or 192.0.2.0/24") from None
    # In IPv6 spelling every IPv4 address has the same first 96 bits.
    if network.prefixlen == 0 or str(network) == "::ffff:0:0/96":
        raise PydanticCustomError("proxy", "that is everybody; name the proxy's own")
    return value.strip()


Proxy = Annotated[str, AfterValidator(_is_proxy)]


def _is_fingerprint(value: str) -> str:
    try:
        return read_fingerprint(value)
    except ValueError as error:
        raise PydanticCustomError("fingerprint", "{fault}", {"fault": str(error)}) from None


Fingerprint = Annotated[str, AfterValidator(_is_fingerprint)]
FilePath = Annotated[str, Field(min_length=1)]


class TlsClient(Model):
    fingerprint: Fingerprint | None = None
    """SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it."""
    subject: Annotated[str, Field(min_length=1)] | None = None
    """The certificate's whole subject as RFC 4514 writes it, e.g. `CN=laptop,O=Example`."""
    san: Annotated[str, Field(pattern=r"^(DNS|EMAIL|URI|IP):.+$")] | None = None
    """One of its alternative names, letter by letter: `DNS:laptop.example.org`, `EMAIL:alice@example.org`, `URI:...`, `IP:192.0.2.7`."""
    role: Literal["operator", "node"] = "operator"
    """The role that it may have."""
    scopes: list[OperatorScope] = []
    """The scopes that it may have as operator, at most; none means none."""

    @model_validator(mode="after")
    def _names_one(self) -> TlsClient:
        if sum(value is not None for value in (self.fingerprint, self.subject, self.san)) != 1:
            raise PydanticCustomError("tls_client", "name it by one of fingerprint, subject and san")
        if self.scopes and self.role == "node":
            raise PydanticCustomError("tls_client_scopes", "a node has no scopes; remove them, or use role operator")
        return self


class GatewayTls(Model):
    enabled: bool = False
    """Speak TLS, and nothing else, on the gateway's port."""
    cert_path: FilePath | None = None
    """The certificate with its chain, as PEM; relative to this folder. Taken anew when the file changes."""
    key_path: FilePath | None = None
    """The certificate's private key, as PEM without a passphrase, readable by nobody else."""
    auto_generate: bool = True
    """Make a certificate that nobody has signed, to be pinned by its fingerprint, where neither certPath nor keyPath is set."""
    ca_path: FilePath | None = None
    """The authorities whose client certificates are believed, as PEM. Who shows none comes in as anybody does."""
    clients: list[TlsClient] = []
    """What client certificates grant: the sum of all entries that fit. One that fits none grants nothing."""

    @model_validator(mode="after")
    def _is_whole(self) -> GatewayTls:
        if (self.cert_path is None) != (self.key_path is None):
            raise PydanticCustomError("tls_pair", "certPath and keyPath go together: set both or neither")
        if self.clients and self.ca_path is None:
            raise PydanticCustomError("tls_clients", "clients need caPath: the authority that signs their certificates")
        return self


ReloadMode = Literal["hybrid", "hot", "restart", "off"]


class GatewayReload(Model):
    mode: ReloadMode = "hybrid"
    """What a saved edit does: apply live what can be and restart for the rest (hybrid), only live (hot), always restart, or nothing."""
    units: dict[str, ReloadMode] = {}
    """Other modes for single units, by plugin id or `kernel`; under `off` a unit is left as it is until the next start."""
    debounce_ms: Annotated[int, Field(ge=0, le=60_000)] = 100
    """Milliseconds without a further write before an edit is taken."""


class ControlUi(Model):
    enabled: bool = True
    """Serve the chat page at `/`."""
    allowed_origins: list[str] = []
    """Further exact browser origins that may open the WebSocket, e.g. `https://chat.example.org`."""
    base_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    """Path prefix under which a reverse proxy publishes the gateway, without a trailing slash."""


class GatewayPairing(Model):
    local: Literal["auto", "ask"] = "auto"
    """Whether an operator's device that connects straight from this machine, from no browser and with the shared secret, is approved by
    itself (auto) or waits for a person (ask)."""


class Gateway(Model):
    mode: Literal["local", "remote"] = "local"
    """`local` runs a gateway here; the reference's `remote` is accepted for the command line only."""
    port: Port = 18789
    """TCP port of the one listener for HTTP and WebSocket; 0 lets the system choose."""
    bind: Literal["loopback", "lan"] = "loopback"
    """`loopback` listens on 127.0.0.1, `lan` on every address."""
    trusted_proxies: list[Proxy] = []
    """Addresses or networks (CIDR) of the reverse proxies whose X-Forwarded-* and Forwarded headers are believed. What they say of a client
    counts for limits, origins and the log, and gives no right. A proxy on this machine is named as 127.0.0.1 or ::1; no wider network
    covers it."""
    auth: GatewayAuth = GatewayAuth()
    """Who may connect."""
    tls: GatewayTls = GatewayTls()
    """Encryption of the port, and certificates of clients."""
    pairing: GatewayPairing = GatewayPairing()
    """Which devices are approved without a person."""
    reload: GatewayReload = GatewayReload()
    """How edits of this file are applied."""
    control_ui: ControlUi = ControlUi()
    """The browser page."""


class ModelChoice(Model):
    primary: str
    """Model reference `provider/model`."""
    fallbacks: list[str] = []
    """Model references tried in order when the primary cannot answer."""


class Identity(Model):
    name: Annotated[str | None, AgentWritable] = None
    """Display name of the agent."""
    emoji: Annotated[str | None, AgentWritable] = None
    """One emoji shown beside the name."""
    avatar: str | None = None
    """Path or URL of a picture."""


class AgentTools(Model):
    allow: list[str] | None = None
    """Tool names the agent may use; unset means all that are enabled by default."""
    deny: list[str] = []
    """Tool names the agent may never use; wins over `allow`."""


class AgentDefaults(Model):
    model: str | ModelChoice | None = None
    """Model reference `provider/model`; unset means the first model of the first provider that is ready."""
    workspace: str | None = None
    """Folder of the agent's files; unset means `workspace/<agent>` in the state folder."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """Longest a turn may take, in seconds."""
    context_tokens: Annotated[int, Field(ge=512)] | None = None
    """Ceiling of tokens sent to the model; unset means what the model states."""
    max_tool_rounds: Annotated[int, Field(ge=0, le=100)] = 16
    """How many times in one turn the model may call tools."""
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    """Ceiling of tokens of one answer; unset means the provider's default."""
    thinking: Literal["off", "minimal", "low", "medium", "high"] | None = None
    """Reasoning effort for models that have one."""
    tools: AgentTools = AgentTools()
    """Which tools agents may use."""
    secrets: list[SecretName] = []
    """Names of `secrets.entries` that an agent's tools may be handed; none by default."""
    providers: list[str] | None = None
    """Ids of `models.providers` that agents may use; unset means all."""


class AgentEntry(Model):
    name: Annotated[str | None, AgentWritable] = None
    """Display name."""
    default: bool = False
    """Messages without a binding go to this agent."""
    identity: Identity = Identity()
    """How the agent presents itself."""
    model: str | ModelChoice | None = None
    """Overrides `agents.defaults.model`."""
    workspace: str | None = None
    """Overrides `agents.defaults.workspace`."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """Overrides `agents.defaults.timeoutSeconds`."""
    context_tokens: Annotated[int, Field(ge=512)] | None = None
    """Overrides `agents.defaults.contextTokens`."""
    max_tool_rounds: Annotated[int, Field(ge=0, le=100)] | None = None
    """Overrides `agents.defaults.maxToolRounds`."""
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    """Overrides `agents.defaults.maxOutputTokens`."""
    thinking: Literal["off", "minimal", "low", "medium", "high"] | None = None
    """Overrides `agents.defaults.thinking`."""
    tools: AgentTools | None = None
    """Overrides `agents.defaults.tools`."""
    secrets: list[SecretName] | None = None
    """Overrides `agents.defaults.secrets`."""
    providers: list[str] | None = None
    """Overrides `agents.defaults.providers`."""


class Agents(Model):
    defaults: AgentDefaults = AgentDefaults()
    """Values for every agent that does not set its own."""
    entries: dict[AgentId, AgentEntry] = {}
    """The agents by id; none means one agent `main`."""


class BindingPeer(Model):
    kind: Literal["direct", "group", "channel"]
    """What the peer is."""
    id: str
    """The platform's id of the peer, or `*` for any."""


class BindingMatch(Model):
    channel: str
    """Channel id, e.g. `telegram`."""
    account_id: str | None = None
    """Account of the channel; unset means its default account only, `*` any."""
    peer: BindingPeer | None = None
    """A person, group or channel."""
    guild_id: str | None = None
    """Discord guild."""
    team_id: str | None = None
    """Slack or Teams team."""
    roles: list[str] = []
    """Guild roles of the sender, any of which matches."""


class BindingSession(Model):
    dm_scope: Literal["main", "per-peer", "per-channel-peer", "per-account-channel-peer"] | None = None
    """Overrides `session.dmScope` for what this binding matches."""


class Binding(Model):
    agent_id: AgentId
    """The agent that answers."""
    match: BindingMatch
    """All present fields must match."""
    session: BindingSession | None = None
    """Session overrides."""


class Session(Model):
    main_key: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = "main"
    """Last part of the key of an agent's main session."""
    dm_scope: Literal["main", "per-peer", "per-channel-peer", "per-account-channel-peer"] = "main"
    """Which direct messages share a session: all of them (main), or one per person, channel or account."""
    identity_links: dict[str, list[str]] = {}
    """One person's ids on several channels: `{alice: ["telegram:123", "irc:alice"]}`; not used under dmScope main."""
    queue_limit: Annotated[int, Field(ge=1, le=10_000)] = 200
    """How many messages may wait in one session; a further one is refused with a visible answer."""


class Providers(Model):
    providers: dict[str, Section] = {}
    """Model providers by id; `api` names the provider plugin where the id does not."""


class ExecReferences(Model):
    environment: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = []
    """Names of the gateway's environment variables that the programs of `${exec:...}` see; there are no others."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Longest such a program may take, in seconds."""


class Secrets(Model):
    entries: dict[SecretName, Secret] = {}
    """Secrets by name, each best a reference such as `${file:secrets/github}`; an agent gets those that its `secrets` names."""
    exec: ExecReferences = ExecReferences()
    """What the programs of `${exec:...}` references get, here and everywhere in this file."""


class ChildLimits(Model):
    memory_mb: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Most data that the process may have, in MiB; what it has mapped and may write counts, used or not (Node: some 600)."""
    files: Annotated[int, Field(ge=16, le=65_536)] = 256
    """Most files and sockets that it may have open."""
    processes: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Most processes and threads that the gateway's user may have beyond those there are when it is started."""
    answer_seconds: Annotated[float, Field(ge=0.1, le=600)] = 10.0
    """How often it is asked for a sign of life, and how long it may take before it is killed and started again."""


class PluginEntry(Model):
    enabled: bool = True
    """A disabled plugin is never imported."""
    isolation: Literal["inproc", "process"] = "inproc"
    """Run the plugin inside the gateway, or in a supervised process of its own."""
    limits: ChildLimits = ChildLimits()
    """Limits of the plugin's own process."""
    config: Section = {}
    """The plugin's own settings."""


class Plugins(Model):
    enabled: bool = True
    """False leaves only the bundled plugins."""
    entries: dict[str, PluginEntry] = {}
    """Settings by plugin id."""
    call_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Longest a plugin's import, constructor, hook, start or stop may take."""


class Logging(Model):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe record that is written."""


class Config(Model):
    """One resolved configuration; immutable."""

    gateway: Gateway = Gateway()
    """The listener: port, address, credentials, reload."""
    agents: Agents = Agents()
    """The agents and their defaults."""
    bindings: list[Binding] = []
    """Which agent answers where; the most specific match wins."""
    channels: dict[str, Section] = {}
    """Settings of chat channels by id, e.g. `telegram`."""
    models: Providers = Providers()
    """Model providers."""
    session: Session = Session()
    """Which messages share a conversation."""
    secrets: Secrets = Secrets()
    """Secrets by name, for the tools of agents."""
    plugins: Plugins = Plugins()
    """Which plugins run, and their settings."""
    logging: Logging = Logging()
    """The log."""
