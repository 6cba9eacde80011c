"""RPC methods: declared once with everything that every surface needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from openclaw_kernel.api.requests import RequestKey

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
_MARK: Final = "__openclaw_method__"


class Params(BaseModel):
    """Base of all params models: camelCase on the wire, unknown keys refused. Each is built at its first use, not at the start."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, alias_generator=to_camel, validate_by_alias=True, validate_by_name=False
    )


class Scope(StrEnum):
    """The closed set of operator scopes."""

    ADMIN = "operator.admin"
    READ = "operator.read"
    WRITE = "operator.write"
    APPROVALS = "operator.approvals"
    QUESTIONS = "operator.questions"
    PAIRING = "operator.pairing"
    TALK = "operator.talk"
    TALK_SECRETS = "operator.talk.secrets"
    SESSIONS_READ = "operator.sessions.read"
    SESSIONS_WRITE = "operator.sessions.write"


class Access(StrEnum):
    """Who may call a method that needs no scope."""

    ANYONE = "anyone"
    NODE = "node"


class Idempotency(StrEnum):
    """How a repeated `idempotencyKey` is answered, also after a crash.

    `join`: the kernel writes the key down before the call and the answer after it; a repeat waits for the first call. `handled`: the
    method takes the key inside its own write, by the service `Requests` and `Call.request`.
    """

    NONE = "none"
    JOIN = "join"
    HANDLED = "handled"


class Client(Protocol):
    """The other end of a connection, as a method sees it."""

    @property
    def connection_id(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def scopes(self) -> frozenset[str]: ...
    @property
    def caps(self) -> frozenset[str]: ...
    @property
    def principal(self) -> str:
        """Who proved what: stable over reconnects, e.g. `token` or `device:<id>`; keys idempotency."""
        ...

    @property
    def address(self) -> str | None:
        """Where it comes from; it counts for limits and the log and grants nothing."""
        ...

    @property
    def display_name(self) -> str | None: ...
    @property
    def instance_id(self) -> str | None: ...

    def has(self, scope: Scope) -> bool:
        """Tell whether the connection holds the scope, directly or by implication; false once its right was withdrawn."""
        ...

    def subscribe(self, topic: str) -> None:
        """Receive events that are broadcast to the topic; raise `InvalidRequest` over 1,000 topics."""
        ...

    def unsubscribe(self, topic: str) -> None: ...


@dataclass(slots=True, kw_only=True)
class Call:
    """One request being answered."""

    client: Client
    method: str
    request_id: str
    respond_early: Callable[[Any], None]
    """Send a first response under this request's id; the handler's return value becomes the second."""
    request: RequestKey | None = None
    """The request's idempotency key, where it has one and the method declares an idempotency."""
    surface: str = "ws"
    """The way by which it came: `ws`, `http`, or another entry of the gateway."""
    traceparent: str | None = None
    """As the caller sent it; `trace_id_of` reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A declared method. `scopes` is any-of; `requires` may ask for more by the params of the call (all-of).

    `repeatable` says why a second call does no harm; one with that reason is run again after a crash left its outcome unknown.
    """

    name: str
    scopes: frozenset[Scope]
    access: Access | None
    params: type[BaseModel] | None
    result: Any
    handler: Callable[..., Any]
    idempotency: Idempotency
    repeatable: str | None
    control_plane: bool
    while_draining: bool
    advertised: bool
    requires: Callable[[Any], Iterable[Scope]] | None
    doc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSpec:
    """An event that a plugin sends: its name, who hears it, and in `doc` when it is sent.

    `scope` is the one that operators need to hear it, or `Access.ANYONE`. Names of the protocol have the scope that it gives them.
    """

    name: str
    scope: Scope | Access
    doc: str
    advertised: bool = True


def rpc(
    name: str,
    *,
    scope: Scope | Access | tuple[Scope, ...],
    result: Any,
    params: type[BaseModel] | None = None,
    idempotency: Idempotency = Idempotency.NONE,
    repeatable: str | None = None,
    control_plane: bool = False,
    while_draining: bool = False,
    advertised: bool = True,
    requires: Callable[[Any], Iterable[Scope]] | None = None,
) -> Callable[[HandlerT], HandlerT]:
    """Declare a handler `(self, call)` or `(self, call, params)`, sync or async, as the method `name`.

    `result` is anything a pydantic `TypeAdapter` takes (a TypedDict, a model, `list[X]`); the handler returns a value of it as
    plain JSON types, a model, or `Encoded`. A handler that never waits should be sync: it runs without a task.

    While the gateway waits for turns to end before it stops, it refuses every method that is not `while_draining`.

    A method with a scope that writes declares an `idempotency`, or in `repeatable` the reason why calling it again does no harm.
    """

    def mark(handler: HandlerT) -> HandlerT:
        options = {
            "name": name,
            "scopes": frozenset() if isinstance(scope, Access) else frozenset(scope if isinstance(scope, tuple) else (scope,)),
            "access": scope if isinstance(scope, Access) else None,
            "params": params,
            "result": result,
            "idempotency": idempotency,
            "repeatable": repeatable,
            "control_plane": control_plane,
            "while_draining": while_draining,
            "advertised": advertised,
            "requires": requires,
            "doc": (handler.__doc__ or "").strip(),
        }
        setattr(handler, _MARK, options)
        return handler

    return mark


def methods_of(owner: object) -> list[Method]:
    """Collect the methods that `rpc` declared on the class of `owner`, bound to it."""
    found: list[Method] = []
    for attribute in dir(type(owner)):
        options = getattr(getattr(type(owner), attribute), _MARK, None)
        if options is not None:
            found.append(Method(handler=getattr(owner, attribute), **options))
    return found
