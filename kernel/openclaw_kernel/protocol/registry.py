"""All RPC methods of this gateway, each declared once; a method without a scope is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import ValidationError

from openclaw_kernel.api.errors import Forbidden, GatewayError, InvalidRequest
from openclaw_kernel.api.methods import Access, Idempotency, Method, Scope
from openclaw_kernel.protocol.handshake import describe_validation

_LONGEST_NAME: Final = 128
_GONE: Final = "that is gone"
_WRITING: Final = frozenset({Scope.ADMIN, Scope.WRITE, Scope.SESSIONS_WRITE})


class RegistryError(ValueError):
    """A method or an event cannot be registered; the gateway does not start with it, and takes no plugin that brings it."""


class MethodRegistry:
    """Changes only as a whole, by `become`; iteration is by name."""

    def __init__(self, methods: Iterable[tuple[str, Method]]) -> None:
        self._methods: dict[str, Method] = {}
        self._owners: dict[str, str] = {}
        for owner, method in methods:
            self._add(owner, method)
        self.advertised = tuple(sorted(method.name for method in self._methods.values() if method.advertised))

    def _add(self, owner: str, method: Method) -> None:
        if method.name in self._methods:
            message = f"method {method.name!r} is declared by {self._owners[method.name]!r} and by {owner!r}; rename one"
            raise RegistryError(message)
        if not method.scopes and method.access is None:
            message = f"method {method.name!r} of plugin {owner!r} has no scope; declare one with rpc(..., scope=...)"
            raise RegistryError(message)
        if not method.doc:
            message = f"method {method.name!r} of plugin {owner!r} has no docstring; write one"
            raise RegistryError(message)
        _check_repeats(owner, method)
        self._methods[method.name] = method
        self._owners[method.name] = owner

    def get(self, name: str) -> Method | None:
        """Return the method of that name."""
        return self._methods.get(name)

    def owner(self, name: str) -> str:
        """Return the plugin that declared a method, also of one that is gone since it was called."""
        return self._owners.get(name, _GONE)

    def become(self, other: MethodRegistry) -> None:
        """Hold what the other holds from now on, in one step."""
        self._methods, self._owners, self.advertised = other._methods, other._owners, other.advertised

    def all(self) -> tuple[Method, ...]:
        """Return every method, by name."""
        return tuple(self._methods[name] for name in sorted(self._methods))


def _check_repeats(owner: str, method: Method) -> None:
    """Refuse a method that says nothing of what its repetition does, or says what it cannot keep."""
    if method.idempotency is not Idempotency.NONE:
        if method.params is None or "idempotency_key" not in method.params.model_fields:
            message = (
                f"method {method.name!r} of plugin {owner!r} declares idempotency {method.idempotency.value!r} and takes no"
                " idempotencyKey; add idempotency_key to its params"
            )
            raise RegistryError(message)
    elif not method.repeatable and method.scopes & _WRITING:
        message = (
            f"method {method.name!r} of plugin {owner!r} writes and does not say what a repetition does; declare"
            ' rpc(..., idempotency=Idempotency.JOIN), or rpc(..., repeatable="why a second call does no harm")'
        )
        raise RegistryError(message)


def authorize(method: Method | None, name: str, role: str, scopes: frozenset[str]) -> GatewayError | None:
    """Decide whether a connection may call a method; an unknown method looks like one for admins only."""
    if method is None:
        missing = None if Scope.ADMIN.value in scopes else missing_scope([Scope.ADMIN])
        return missing or InvalidRequest(f"unknown method: {name[:_LONGEST_NAME]}")
    if method.access is Access.ANYONE:
        return None
    wanted_role = "node" if method.access is Access.NODE else "operator"
    if role != wanted_role:
        return InvalidRequest(f"unauthorized role: {role}")
    if method.access is Access.NODE or any(scope.value in scopes for scope in method.scopes):
        return None
    return missing_scope(sorted(method.scopes))


def missing_scope(required: Iterable[Scope]) -> Forbidden:
    """The error for a call that needs more."""
    names = [scope.value for scope in required]
    return Forbidden(
        f"missing scope: {names[0]}",
        details={"code": "MISSING_SCOPE", "missingScope": names[0], "requiredScopes": names},
    )


def read_params(method: Method, raw: Any) -> Any:
    """Validate params with the method's model; raise `InvalidRequest` naming each wrong key."""
    if method.params is None:
        if raw is None or raw == {}:
            return None
        if type(raw) is dict:
            keys = ", ".join(sorted(map(str, raw))[:5])
            message = f"invalid {method.name} params: takes none, found {keys[:200]}"
        else:
            message = f"invalid {method.name} params: must be an object"
        raise InvalidRequest(message)
    try:
        return method.params.model_validate({} if raw is None else raw)
    except ValidationError as error:
        message = f"invalid {method.name} params: {describe_validation(error)}"
        raise InvalidRequest(message) from None


def check_extra_scopes(method: Method, params: Any, scopes: frozenset[str]) -> GatewayError | None:
    """Apply what a method asks for beyond its scope because of these params."""
    if method.requires is None:
        return None
    lacking = [scope for scope in method.requires(params) if scope.value not in scopes]
    return missing_scope(lacking) if lacking else None
