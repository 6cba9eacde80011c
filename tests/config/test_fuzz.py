"""A config may be anything: each key of the default file deleted, mutated and retyped, the file cut off, empty, or of a later version.

Loading it either works, or says what is wrong with a place, or at least a file, and a cure. It never ends in anything else.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from openclaw_config.composed import OPEN as ANYTHING
from openclaw_config.composed import Section, compose, for_files
from openclaw_config.home import DEFAULT_FILE
from openclaw_config.issues import ConfigError, Issue
from openclaw_config.load import load_text
from openclaw_config.names import PREFIX
from openclaw_config.source import parse

RETYPED: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, "", "text", "${env:NO}", "${NO}"),
    *([], [1], ["a", {}], {}, {"a": 1}, {"$include": "no.yaml"}),
)


DOCUMENT: dict[str, Any] = {
    **json.loads(json.dumps(parse("openclaw.yaml", DEFAULT_FILE))),
    "channels": {"telegram": {"botToken": "${env:TOKEN}", "dmPolicy": "allowlist", "allowFrom": [1]}},
    "agents": {"defaults": {"model": {"primary": "a/b"}}, "entries": {"main": {"default": True}, "research": {"model": "a/b"}}},
    "bindings": [{"agentId": "main", "match": {"channel": "telegram", "peer": {"kind": "direct", "id": "1"}}}],
    "session": {"identityLinks": {"alice": ["telegram:1"]}},
    "secrets": {"entries": {"github": "x"}},
    "plugins": {"entries": {"web-tools": {"enabled": True, "config": {"maxBytes": 5}}}},
    "logging": {"level": "info"},
}
ENVIRONMENT = {"TOKEN": "1:a"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "gateway.token").write_text("a-token")
    return folder


def faults(home: Path, text: str, environment: Mapping[str, str] = ENVIRONMENT) -> Sequence[Issue]:
    """What is wrong with a text, none where it can be used; and that it is told well."""
    try:
        load_text(text, home / "openclaw.yaml", environment=environment)
    except ConfigError as error:
        issues = error.issues
    else:
        return ()
    assert issues
    for issue in issues:
        assert issue.file
        assert issue.found
        assert issue.fix is not None
        assert "\n" not in str(issue)
        assert (issue.line > 0) == (issue.column > 0)
        # All has its place but what the YAML library itself cannot place, and what no file says.
        assert issue.line or not issue.key or issue.file.startswith(PREFIX), str(issue)
    return issues


def paths(node: Any, where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a document."""
    if where:
        yield where
    for key, item in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from paths(item, (*where, key))


def changed(where: tuple[str | int, ...], value: Any = None, *, key: str | None = None, delete: bool = False) -> str:
    """The document with one place changed, as YAML."""
    document = copy.deepcopy(DOCUMENT)
    holder: Any = document
    for part in where[:-1]:
        holder = holder[part]
    if key is not None:
        holder[key] = holder.pop(where[-1])
    elif delete:
        del holder[where[-1]]
    else:
        holder[where[-1]] = value
    return written(document)


def written(document: Any) -> str:
    """A document in YAML's block form, so that places are told apart."""
    text = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(document, text)
    return text.getvalue()


PATHS = list(paths(DOCUMENT))
NAMED = [where for where in PATHS if isinstance(where[-1], str)]


def test_the_document_itself_is_valid_and_says_much(home: Path) -> None:
    assert faults(home, written(DOCUMENT)) == ()
    assert len(PATHS) > 40


@pytest.mark.parametrize("where", PATHS, ids=lambda where: ".".join(map(str, where)))
def test_a_key_may_be_deleted_renamed_or_of_any_type(home: Path, where: tuple[str | int, ...]) -> None:
    faults(home, changed(where, delete=True))
    for value in RETYPED:
        faults(home, changed(where, value))


SECTIONS = [
    Section(id="telegram", kind="channel", schema=ANYTHING),
    *(Section(id=name, kind="provider", schema=ANYTHING) for name in ("local", "a")),
    Section(id="web-tools", kind="plugin", schema=ANYTHING),
]
VALIDATOR = Draft202012Validator(for_files(compose(SECTIONS)))
COERCED = (bool, int, float, str)
"""Types of which pydantic takes one for another where it can, which an editor marks."""


@pytest.mark.parametrize("where", PATHS, ids=lambda where: ".".join(map(str, where)))
def test_what_the_schema_of_files_refuses_the_gateway_refuses(home: Path, where: tuple[str | int, ...]) -> None:
    for value in RETYPED:
        text = changed(where, value)
        is_refused = next(VALIDATOR.iter_errors(json.loads(json.dumps(parse("openclaw.yaml", text)))), None) is not None
        if is_refused and not faults(home, text):
            assert isinstance(value, COERCED), (where, value)


OPEN = {
    *(("channels",), ("agents", "entries"), ("session", "identityLinks")),
    *(("secrets", "entries"), ("plugins", "entries"), ("models", "providers")),
}


@pytest.mark.parametrize("where", NAMED, ids=lambda where: ".".join(map(str, where)))
def test_a_key_of_a_later_version_is_refused_by_name_and_place(home: Path, where: tuple[str | int, ...]) -> None:
    text = changed(where, key=f"{where[-1]}OfTomorrow")
    is_open = where[:-1] in OPEN or where[:2] == ("channels", "telegram") or "config" in where[:-1]
    found = [issue for issue in faults(home, text) if issue.found == f"unknown key '{where[-1]}OfTomorrow'"]
    if is_open:
        return
    (issue,) = found
    assert issue.pointer == "".join(f"/{part}" for part in (*where[:-1], f"{where[-1]}OfTomorrow"))
    line = text.splitlines()[issue.line - 1]
    assert line[issue.column - 1 :].startswith(f"{where[-1]}OfTomorrow:")
    assert issue.fix == "config.unknown-key"


def test_a_file_may_end_anywhere(home: Path) -> None:
    text = written(DOCUMENT)
    for end in range(0, len(text), 29):
        faults(home, text[:end])
        faults(home, DEFAULT_FILE[:end])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_may_be_cut_stitched_and_scribbled_on(home: Path, data: st.DataObject) -> None:
    text = written(DOCUMENT)
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 20))
    inserted = data.draw(st.text(alphabet="{}[]&*!|>%@`\"'#:-?, \n\tab1${}<<~.\x00\ud800é", max_size=8))
    faults(home, text[:start] + inserted + text[start + length :])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["${env:TOKEN}", "main", "a/b"])
KEYS = st.sampled_from([*dict.fromkeys(str(where[-1]) for where in PATHS), "$include", "$schema", "<<"]) | st.text(max_size=5)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=15)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=5))
def test_a_file_may_hold_any_tree(home: Path, document: dict[str, Any]) -> None:
    faults(home, json.dumps(document))


SEGMENTS = st.sampled_from(["GATEWAY", "PORT", "AGENTS", "ENTRIES", "MAIN", "CHANNELS", "x", "", "BINDINGS", "0"])


@settings(max_examples=60, deadline=None)
@given(st.lists(SEGMENTS, max_size=4), st.text(max_size=12))
def test_a_variable_may_name_and_hold_anything(home: Path, segments: list[str], value: str) -> None:
    faults(home, "gateway: {port: 1}\n", {**ENVIRONMENT, PREFIX + "__".join(segments): value.replace("\0", "")})
