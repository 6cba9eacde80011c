"""The machine-readable contract of protocol v4, as assertions for every test.

The definitions are read from `protocol.schema.json` of the npm package `@openclaw/gateway-protocol`, which
`make test` installs into tests/conformance/node_modules. Where that package defines nothing for a method or an
event, tests/support/contract_supplement.py does; where it is stricter than the gateway it was generated from, the
extra keys are listed in `EXTRA_PROPERTIES`, each with its reason.

Usage::

    contract.validate_result("sessions.list", payload)
    contract.validate_event(frame)
    contract.validate_hello(payload)

Each raises ContractError, an AssertionError that lists every violation with its place in the document.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError, best_match

from tests.support.contract_supplement import EVENT_DEFINITIONS, RESULT_DEFINITIONS, SUPPLEMENT

PACKAGE = "@openclaw/gateway-protocol"
SCHEMA_PATH = Path(__file__).resolve().parents[1] / "conformance" / "node_modules" / PACKAGE / "protocol.schema.json"

# The 9.1 definitions are closed; the gateway they describe sends these keys all the same, and clients need them.
EXTRA_PROPERTIES: dict[str, dict[str, Any]] = {
    # Without them a client cannot tell which conversation an agent event belongs to.
    "AgentEvent": {"sessionKey": {"type": "string"}, "agentId": {"type": "string"}},
    # Declared by newer clients; the 9.1 package predates it.
    "ConnectParams": {"modelCatalog": {"type": "object"}},
    # Asked by the command line and the Control UI of 2026.9.6.
    "ModelsListParams": {
        "sessionKey": {"type": "string", "minLength": 1},
        "provider": {"type": "string", "minLength": 1},
        "includeDetails": {"type": "boolean"},
        "includeDefaultModels": {"type": "boolean"},
    },
}

PARAMS_DEFINITIONS = {"agent.identity.get": "AgentIdentityParams"}


class ContractError(AssertionError):
    """A document does not match the contract; the text lists each violation as `$.path: what was found`."""


class ContractMissingError(ContractError):
    """The contract package is not installed, or defines nothing under the name that was asked for."""


def is_installed() -> bool:
    """Whether the npm package is there."""
    return SCHEMA_PATH.is_file()


@functools.cache
def package_schema() -> dict[str, Any]:
    """The untouched `protocol.schema.json`.

    Raises:
        ContractMissingError: the npm package is not installed.
    """
    try:
        text = SCHEMA_PATH.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = f"{PACKAGE} is not installed in tests/conformance: run `make test-tools`"
        raise ContractMissingError(message) from None
    schema: dict[str, Any] = json.loads(text)
    return schema


@functools.cache
def definitions() -> dict[str, Any]:
    """Every definition by name: the package's, widened by EXTRA_PROPERTIES, and the supplement's.

    Raises:
        ContractError: the supplement defines what the package already defines.
    """
    merged: dict[str, Any] = copy.deepcopy(package_schema()["definitions"])
    for name, extra in EXTRA_PROPERTIES.items():
        merged[name]["properties"].update(extra)
    doubled = sorted(merged.keys() & SUPPLEMENT.keys())
    if doubled:
        message = f"the supplement defines what the package defines itself: {', '.join(doubled)}: drop these"
        raise ContractError(message)
    # The package has the health document only inline, as a part of the snapshot.
    merged["HealthResult"] = merged["Snapshot"]["properties"]["health"]
    merged.update(SUPPLEMENT)
    return merged


@functools.cache
def validator(definition: str) -> Draft7Validator:
    """A validator for one definition by its name.

    Raises:
        ContractMissingError: no such definition.
    """
    known = definitions()
    if definition not in known:
        message = f"the contract has no definition {definition!r}"
        raise ContractMissingError(message)
    return Draft7Validator({"$ref": f"#/definitions/{definition}", "definitions": known})


def validate(definition: str, document: object) -> None:
    """Check a document against one definition.

    Raises:
        ContractError: it does not match.
    """
    errors = sorted(validator(definition).iter_errors(document), key=lambda error: error.json_path)
    if errors:
        lines = "\n".join(f"  {_describe(error)}" for error in errors)
        message = f"the document is not a {definition}:\n{lines}\ndocument: {_shorten(document)}"
        raise ContractError(message)


def validate_params(method: str, params: object) -> None:
    """Check the params of a request; methods that define none take none, or an empty object.

    Raises:
        ContractError: they do not match.
    """
    name = PARAMS_DEFINITIONS.get(method, f"{_pascal(method)}Params")
    if name in definitions():
        validate(name, params)


def validate_result(method: str, payload: object) -> None:
    """Check the payload of a successful response to a method.

    Raises:
        ContractError: it does not match.
        ContractMissingError: neither the package nor the supplement defines a result for the method.
    """
    validate(result_definition(method), payload)


def result_definition(method: str) -> str:
    """The name of the definition that a method's result has to match.

    Raises:
        ContractMissingError: there is none.
    """
    name = RESULT_DEFINITIONS.get(method, f"{_pascal(method)}Result")
    if name not in definitions():
        message = f"the contract defines no result for the method {method!r}: add one to contract_supplement.py"
        raise ContractMissingError(message)
    return name


def validate_event(frame: Mapping[str, Any]) -> None:
    """Check an event frame: the envelope, and the payload by the event's name.

    Raises:
        ContractError: one of both does not match.
        ContractMissingError: the contract knows no event of this name.
    """
    validate("EventFrame", frame)
    event = frame["event"]
    if event not in EVENT_DEFINITIONS:
        message = f"the contract knows no event {event!r}: known are {', '.join(sorted(EVENT_DEFINITIONS))}"
        raise ContractMissingError(message)
    validate(EVENT_DEFINITIONS[event], frame.get("payload"))


def validate_response(frame: Mapping[str, Any]) -> None:
    """Check the envelope of a response, the shape of its error, and that it carries one only where not ok.

    Raises:
        ContractError: it does not match.
    """
    validate("ResponseFrame", frame)
    if frame["ok"] == ("error" in frame):
        message = f"a response has an error exactly where it is not ok: {_shorten(frame)}"
        raise ContractError(message)


def validate_hello(payload: object) -> None:
    """Check the payload that answers `connect`.

    Raises:
        ContractError: it does not match.
    """
    validate("HelloOk", payload)


def method_scope(method: str) -> str | None:
    """The scope the package's method table names, `dynamic` where it depends on the params, None if unknown."""
    entry = package_schema()["methods"].get(method)
    return None if entry is None else str(entry["scope"])


def _pascal(method: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[.\-]", method))


def _describe(error: ValidationError) -> str:
    detail = error
    while detail.context:
        deeper = best_match(detail.context)
        if deeper is None:
            break
        detail = deeper
    return f"{detail.json_path}: {_shorten(detail.message)}"


def _shorten(value: object) -> str:
    limit = 600
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
