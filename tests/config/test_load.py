"""Loading `openclaw.yaml`: whatever is wrong with it becomes file, line, key, what was found and the cure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from openclaw_config.home import DEFAULT_FILE
from openclaw_config.load import ConfigError, Loaded, load
from openclaw_config.models import Config


def loaded(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> Loaded:
    """The config of a file with this text."""
    path = folder / "openclaw.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, environment=environment or {})


def problems(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with a file, a line each."""
    with pytest.raises(ConfigError) as refused:
        loaded(folder, text, environment)
    return [str(issue) for issue in refused.value.issues]


def test_the_default_file_loads_and_names_the_token_file(tmp_path: Path) -> None:
    (tmp_path / "gateway.token").write_text("from-the-file\n")
    config = loaded(tmp_path, DEFAULT_FILE).config
    assert config.gateway.auth.token is not None
    assert config.gateway.auth.token.unwrap() == "from-the-file"


@pytest.mark.parametrize("text", ["", "# nothing\n", "gateway:\n", "gateway:\n  auth:\nchannels:\n"])
def test_an_empty_file_or_section_is_the_default(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text).config.gateway.port == 18789


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gateway:\n  prot: 1\n", "openclaw.yaml:2:3: gateway.prot: unknown key 'prot'; did you mean 'port'?"),
        ("gateway:\n  port: 70000\n", "openclaw.yaml:2:3: gateway.port: found 70000; input should be less than or equal to 65535"),
        ("gateway:\n  bind: wan\n", "openclaw.yaml:2:3: gateway.bind: found 'wan'; use 'loopback' or 'lan'"),
        (
            "gateway:\n  trustedProxies: [proxy]\n",
            "openclaw.yaml:2:20: gateway.trustedProxies.0: found 'proxy'; write it as 192.0.2.7, or 192.0.2.0/24",
        ),
        (
            "gateway:\n  trustedProxies:\n  - 10.0.0.5\n  - 0.0.0.0/0\n",
            "openclaw.yaml:4:5: gateway.trustedProxies.1: found '0.0.0.0/0'; that is everybody; name the proxy's own",
        ),
        (
            "gateway:\n  trustedProxies: ['::ffff:0.0.0.0/96']\n",
            "openclaw.yaml:2:20: gateway.trustedProxies.0: found '::ffff:0.0.0.0/96'; that is everybody; name the proxy's own",
        ),
        ("channels: []\n", "openclaw.yaml:1:1: channels: found a list; write it as a mapping of keys"),
        ("gateway: 5\n", "openclaw.yaml:1:1: gateway: found a number; write it as a mapping of keys"),
        ("bindings:\n- match: {channel: x}\n", "openclaw.yaml:2:3: bindings.0.agentId: is missing; add it"),
        ("- a\n", "openclaw.yaml:1:1: holds a list; write it as a mapping of keys such as gateway:"),
        ("a: 1\n---\nb: 2\n", "openclaw.yaml:2:1: not valid YAML: but found another document; mend the indentation or quoting there"),
        ("gateway:\n  port: 1\n  port: 2\n", "openclaw.yaml:3:3: the key 'port' is there twice; keep one of them"),
        (
            "session:\n  identityLinks:\n    1: [a]\n    '1': [b]\n",
            "openclaw.yaml:4:5: session.identityLinks: the key '1' is there twice; write each key once, as text in quotes",
        ),
        ("? [a, b]\n: x\n", "openclaw.yaml:1:3: a key that is no text; write each key once, as text in quotes"),
        ("null: x\n", "openclaw.yaml:1:1: a key that is no text; write each key once, as text in quotes"),
        ("gateway:\n  port: 2024-01-01\n", "openclaw.yaml:2:3: gateway.port: found a date; write it as text in quotes"),
        ("gateway:\n  port: !foo 12\n", "openclaw.yaml:2:3: gateway.port: found a tagged value; write it as text in quotes"),
        ("gateway: !foo\n  port: 12\n", "openclaw.yaml:1:1: gateway: found a mapping with a tag; write it as text in quotes"),
        ('gateway:\n  bind: "\\ud800"\n', "openclaw.yaml:2:3: gateway.bind: found characters that are no text; write it as text in quotes"),
        (
            "gateway:\n  port: " + "9" * 5000 + "\n",
            "openclaw.yaml: holds a number or date that cannot be read; write it shorter, or put it in quotes",
        ),
        (
            "gateway:\n  port: " + "9" * 500 + "\n",
            "openclaw.yaml:2:3: gateway.port: found a number; input should be less than or equal to 65535",
        ),
        (
            "agents:\n  entries:\n    Ä: {}\n",
            "openclaw.yaml:3:5: agents.entries.Ä: found 'Ä'; string should match pattern '^[a-z0-9][a-z0-9_-]{0,63}$'",
        ),
        # Read to its end it would take hours.
        pytest.param("channels: " + "[" * 1_000_000, "openclaw.yaml: is nested too deeply; keep it under 100 levels", id="brackets"),
    ],
)  # fmt: skip
def test_each_fault_is_placed_named_and_has_a_cure(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == [problem]


def test_tabs_and_control_characters_are_placed(tmp_path: Path) -> None:
    assert problems(tmp_path, "gateway:\n\tport: 1\n")[0].startswith("openclaw.yaml:2:1: not valid YAML")
    found = problems(tmp_path, 'gateway: "a\x00b"\n')
    assert len(found) == 1
    assert "\n" not in found[0]


@pytest.mark.parametrize("bomb", [
    "channels:\n  a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
        f"  {chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 8)}]\n" for n in range(8)
    ),
    "channels:\n" + "".join(f"{'  ' * (n + 1)}k:\n" for n in range(150)),
])  # fmt: skip
def test_aliases_and_nesting_cannot_blow_a_file_up(tmp_path: Path, bomb: str) -> None:
    (found,) = problems(tmp_path, bomb)
    assert "too large" in found


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "gateway:\n  prot: 1\n  bind: wan\nsession:\n  queueLimit: 0\n")) == 3


@pytest.mark.parametrize("value", ["1234567890", "[hunter22]", "{a: hunter22}", "12345.25"])
def test_a_mistyped_secret_is_not_shown(tmp_path: Path, value: str) -> None:
    (found,) = problems(tmp_path, f"gateway:\n  auth:\n    token: {value}\n")
    assert found.startswith("openclaw.yaml:3:5: gateway.auth.token: found ")
    assert value not in found
    assert "hunter22" not in found


def test_a_secret_that_is_there_twice_is_not_shown(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "gateway:\n  auth:\n    token: firstsecret\n    token: othersecret\n")
    assert found == "openclaw.yaml:4:5: the key 'token' is there twice; keep one of them"


def test_the_file_itself_may_be_missing_too_long_or_no_file(tmp_path: Path) -> None:
    path = tmp_path / "openclaw.yaml"
    with pytest.raises(ConfigError, match="the file is not there; start the gateway once"):
        load(path)
    path.write_text("#" * 3_000_000)
    with pytest.raises(ConfigError, match="is longer than 2097152 bytes; make it shorter"):
        load(path)
    path.write_bytes(b"gateway: \xff\n")
    with pytest.raises(ConfigError, match="make it a readable UTF-8 file"):
        load(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is no regular file"):
        load(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="is no regular file"):
        load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=r"(?i)is a directory"):
        load(path)


# --- references ---------------------------------------------------------------------------------------------------------


def auth(reference: str) -> str:
    """A file whose token is this reference; written as JSON, so that nothing needs quoting."""
    return json.dumps({"gateway": {"auth": {"token": reference}}}, indent=1)


def test_references_are_resolved_and_remembered_for_redaction(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_text("  from-a-file \n")
    found = loaded(tmp_path, auth("${file:inner/a}"))
    assert found.config.gateway.auth.token is not None
    assert found.config.gateway.auth.token.unwrap() == "from-a-file"
    assert "from-a-file" in found.secrets
    found = loaded(tmp_path, auth("${env:THE_TOKEN}"), {"THE_TOKEN": "from-the-environment"})
    assert "from-the-environment" in found.secrets
    assert loaded(tmp_path, auth(f"${{file:{tmp_path}/inner/a}}")).secrets == ("from-a-file",)


def test_a_variable_in_the_place_of_a_secret_is_a_secret(tmp_path: Path) -> None:
    text = "channels:\n  other:\n    botToken: ${BOT_TOKEN}\n    label: ${LABEL} here\n"
    found = loaded(tmp_path, text, {"BOT_TOKEN": "value-of-the-variable", "LABEL": "plain"})
    assert found.config.channels["other"] == {"botToken": "value-of-the-variable", "label": "plain here"}
    assert "value-of-the-variable" in found.secrets
    assert not any("plain" in secret for secret in found.secrets)
    assert loaded(tmp_path, "channels:\n  other:\n    text: $${NAME}\n").config.channels["other"] == {"text": "${NAME}"}


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("${file:none}", "the file 'none' cannot be read (no such file or directory)"),
        ("${file:.}", "is a directory"),
        ("${file:empty}", "is empty"),
        ("${file:/dev/zero}", "is no regular file"),
        ("${file:pipe}", "is no regular file"),
        ("${file:big}", "is longer than 65536 bytes"),
        ("${file:binary}", "not UTF-8 text"),
        ("${file:~nobodyofthatname/x}", "cannot be read"),
        ("${file:a\x00b}", "cannot be read"),
        ("${env:NOT_SET}", "the environment variable NOT_SET is not set"),
        ("${NOT_SET}", "the environment variable NOT_SET is not set"),
        ("Bearer ${env:SET}", "a reference inside other text"),
        ("${env:}", "a reference inside other text"),
        ("${keyrng:a/b}", "a reference of the unknown kind 'keyrng'"),
        ("${file:a}${file:b}", "a reference inside other text"),
    ],
)
def test_a_reference_that_leads_nowhere_is_placed(tmp_path: Path, reference: str, found: str) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "big").write_text("x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    (problem,) = problems(tmp_path, auth(reference), {"SET": "x"})
    assert problem.startswith("openclaw.yaml:4:4: gateway.auth.token: ")
    assert found in problem


# --- every key with every kind of wrong value -----------------------------------------------------------------------------

WRONG = ["null", "text", "''", "-1", "1.5", ".nan", ".inf", "true", "[]", "[1]", "{}", "{a: 1}", "2024-01-01", "9" * 400, '"\\U0001F600"']


def paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of the config, `x` standing for the keys of open mappings."""
    for name, info in model.model_fields.items():
        path = (*prefix, info.alias or name)
        yield path
        inner, is_mapping = inner_model(info.annotation)
        if inner is not None:
            yield from paths(inner, (*path, "x") if is_mapping else path)


def inner_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model of a field, and whether it stands in a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if str(annotation).startswith("list"):
        return None, False
    for argument in get_args(annotation):
        found, _ = inner_model(argument)
        if found is not None:
            return found, str(annotation).startswith("dict")
    return None, False


def nested(path: tuple[str, ...], value: str) -> str:
    """A file with one value at this place."""
    return "".join(f"{'  ' * depth}{key}:{' ' + value if depth == len(path) - 1 else ''}\n" for depth, key in enumerate(path))


@pytest.mark.parametrize("path", sorted(paths(Config)), ids=".".join)
def test_no_wrong_value_of_any_key_escapes_as_anything_but_an_issue(tmp_path: Path, path: tuple[str, ...]) -> None:
    for value in WRONG:
        try:
            loaded(tmp_path, nested(path, value))
        except ConfigError as error:
            for issue in error.issues:
                assert issue.line > 0, (value, str(issue))
                # A value may make a sibling missing, never something elsewhere.
                assert ".".join((*path, "")).startswith(issue.key.rpartition(".")[0]), (value, str(issue))
                assert issue.found
                assert issue.cure
                assert "\n" not in str(issue)
                assert len(str(issue)) < 500


@pytest.mark.parametrize("path", sorted(paths(Config)), ids=".".join)
def test_a_misspelt_key_is_refused_by_its_name(tmp_path: Path, path: tuple[str, ...]) -> None:
    wrong = (*path[:-1], path[-1] + "z")
    if path[-1] in {"x", "main"} or wrong[:-1] in {("channels",), ("models", "providers")}:
        return
    found = problems(tmp_path, nested(wrong, "1"))
    assert (
        f"openclaw.yaml:{len(path)}:{2 * len(path) - 1}: {'.'.join(wrong)}: unknown key '{wrong[-1]}'; did you mean '{path[-1]}'?" in found
    )


def test_a_text_about_a_key_gets_its_place(tmp_path: Path) -> None:
    path = tmp_path / "openclaw.yaml"
    path.write_text("gateway:\n  port: 1\nchannels:\n  telegram:\n    botTokn: x\n")
    loaded = load(path)
    assert loaded.placed("channels.telegram.botTokn: unknown key") == "openclaw.yaml:5:5: channels.telegram.botTokn: unknown key"
    assert loaded.placed("channels.telegram.botToken: is missing") == "openclaw.yaml:4:3: channels.telegram.botToken: is missing"
    assert loaded.placed("telegram: does not answer") == "telegram: does not answer"
    assert loaded.placed("the network is down: retry") == "the network is down: retry"


def test_what_a_variable_says_is_not_repeated_where_it_is_wrong(tmp_path: Path) -> None:
    found = str(problems(tmp_path, "gateway:\n  port: ${MISPLACED}\n", {"MISPLACED": "sk-misplaced-5f1c"}))
    assert "gateway.port: found a text" in found
    assert "sk-misplaced" not in found


@pytest.mark.parametrize("text", ["gateway: {auth: {token: *s3cret}}", "gateway: {auth: {token: !s3cret!of mine}}"])
def test_a_value_that_yaml_takes_for_something_else_is_not_repeated(tmp_path: Path, text: str) -> None:
    found = str(problems(tmp_path, text))
    assert "openclaw.yaml:1:25: not valid YAML: found undefined" in found
    assert "s3cret" not in found
