"""Includes, the profile and the environment: which layer wins, where its value stands, and what is refused with its place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from openclaw_config.issues import Fix
from openclaw_config.layers import Layer
from openclaw_config.load import ConfigError, Loaded, load, load_text


def loaded(folder: Path, files: Mapping[str, str], environment: Mapping[str, str] | None = None) -> Loaded:
    """The config of these files; `openclaw.yaml` among them."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return load(folder / "openclaw.yaml", environment=environment or {})


def problems(folder: Path, files: Mapping[str, str], environment: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong, a line each."""
    with pytest.raises(ConfigError) as refused:
        loaded(folder, files, environment)
    return [str(issue) for issue in refused.value.issues]


def places(config: Loaded, *where: str | int) -> list[tuple[str, str]]:
    """Layer and place of everybody who sets a key, the winner first."""
    return [(origin.layer.value, origin.place) for origin in config.origins[where]]


# --- includes -----------------------------------------------------------------------------------------------------------


def test_a_section_is_replaced_by_the_file_that_it_includes(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"openclaw.yaml": "gateway: {$include: parts/gateway.yaml}\n", "parts/gateway.yaml": "# ours\nport: 1\n"})
    assert config.config.gateway.port == 1
    assert places(config, "gateway", "port") == [("include", "parts/gateway.yaml:2:1")]
    assert config.files == (tmp_path / "openclaw.yaml", tmp_path / "parts/gateway.yaml")


def test_of_several_includes_the_later_wins_and_the_keys_beside_them_win_over_all(tmp_path: Path) -> None:
    config = loaded(tmp_path, {
        "openclaw.yaml": "$include: [a.yaml, b.yaml]\ngateway:\n  auth: {mode: none}\n",
        "a.yaml": "gateway: {port: 1, bind: lan, auth: {mode: token, token: aaaaaa}}\nlogging: {level: debug}\n",
        "b.yaml": "gateway: {port: 2, trustedProxies: [10.0.0.1]}\n",
    })  # fmt: skip
    gateway = config.config.gateway
    assert (gateway.port, gateway.bind, gateway.auth.mode, gateway.trusted_proxies) == (2, "lan", "none", ["10.0.0.1"])
    assert config.config.logging.level == "debug"
    assert places(config, "gateway", "port") == [("include", "b.yaml:1:11"), ("include", "a.yaml:1:11")]
    assert places(config, "gateway", "auth", "mode") == [("file", "openclaw.yaml:3:10"), ("include", "a.yaml:1:38")]


def test_an_include_may_hold_a_list_and_include_further_files_relative_to_itself(tmp_path: Path) -> None:
    config = loaded(tmp_path, {
        "openclaw.yaml": "bindings: {$include: routing/all.yaml}\n",
        "routing/all.yaml": "- agentId: main\n  match: {$include: telegram.yaml}\n",
        "routing/telegram.yaml": "channel: telegram\n",
    })  # fmt: skip
    assert config.config.bindings[0].match.channel == "telegram"
    assert places(config, "bindings", 0, "match", "channel") == [("include", "routing/telegram.yaml:1:1")]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"openclaw.yaml": "gateway:\n  $include: none.yaml\n"},
         "openclaw.yaml:2:3: gateway.$include: none.yaml: the file is not there; make it a UTF-8 file of at most 2097152 bytes"),
        ({"openclaw.yaml": "gateway: {$include: 3}\n"},
         "openclaw.yaml:1:11: gateway.$include: names no file; write the path of a file, or a list of them"),
        ({"openclaw.yaml": "gateway: {$include: []}\n"},
         "openclaw.yaml:1:11: gateway.$include: names no file; write the path of a file, or a list of them"),
        ({"openclaw.yaml": "gateway: {$include: a.yaml}\n", "a.yaml": "prot: 1\n"},
         "a.yaml:1:1: gateway.prot: unknown key 'prot'; did you mean 'port'?"),
        ({"openclaw.yaml": "gateway: {$include: a.yaml}\n", "a.yaml": "port: [\n"},
         "a.yaml:2:1: not valid YAML: expected the node content, but found '<stream end>'; mend the indentation or quoting there"),
        ({"openclaw.yaml": "gateway: {$include: a.yaml}\n", "a.yaml": "auth: {token: '${env:NOT_SET}'}\n"},
         "a.yaml:1:8: gateway.auth.token: the environment variable NOT_SET is not set; set NOT_SET, or write the value"),
        ({"openclaw.yaml": "a: 1\n$include: a.yaml\n", "a.yaml": "- 1\n"},
         "openclaw.yaml:2:1: $include: what is included is no mapping and has keys beside it; remove these keys, or include a mapping"),
        ({"openclaw.yaml": "$include: a.yaml\n", "a.yaml": "- 1\n"},
         "a.yaml:1:1: what is included makes the whole file a list or a value; include a mapping of keys there"),
        ({"openclaw.yaml": "$include: [a.yaml, b.yaml]\n", "a.yaml": "- 1\n", "b.yaml": "- 2\n"},
         "openclaw.yaml:1:1: $include: 'b.yaml' cannot be merged: only mappings can; include one file, or mappings alone"),
        ({"openclaw.yaml": "gateway: {$include: a.yaml}\n", "a.yaml": "tls:\n  $include: b/c.yaml\n", "b/c.yaml": "$include: ../a.yaml\n"},
         "b/c.yaml:1:1: gateway.tls.$include: the include goes in a circle: a.yaml -> b/c.yaml -> a.yaml; take one of these includes out"),
        ({"openclaw.yaml": "$include: openclaw.yaml\n"},
         "openclaw.yaml:1:1: $include: the include goes in a circle: openclaw.yaml -> openclaw.yaml; take one of these includes out"),
        ({"openclaw.yaml": "$include: a.yaml\n", "a.yaml": "x" * 2_097_153},
         "openclaw.yaml:1:1: $include: a.yaml: is longer than 2097152 bytes; make it a UTF-8 file of at most 2097152 bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_include_is_told_where_it_stands(tmp_path: Path, files: Mapping[str, str], problem: str) -> None:
    assert problems(tmp_path, files) == [problem]


def test_nothing_outside_of_the_folder_is_included_whatever_the_way(tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text("port: 1\n")
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    for name in ("../outside.yaml", "link.yaml", "/etc/passwd", f"{home}/link.yaml"):
        (found,) = problems(home, {"openclaw.yaml": f"gateway: {{$include: {name}}}\n"})
        assert (
            found
            == f"openclaw.yaml:1:11: gateway.$include: {name[:60]!r} leads out of {home}; write a relative path to a file in that folder"
        )


def test_a_link_inside_of_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "now").symlink_to("version-1")
    config = loaded(tmp_path, {"version-1/a.yaml": "port: 1\n", "openclaw.yaml": "gateway: {$include: now/a.yaml}\n"})
    assert config.config.gateway.port == 1


def test_includes_go_ten_files_deep_and_no_deeper(tmp_path: Path) -> None:
    files = {f"{depth}.yaml": f"$include: {depth + 1}.yaml\n" for depth in range(1, 10)} | {"openclaw.yaml": "$include: 1.yaml\n"}
    assert loaded(tmp_path, {**files, "10.yaml": "gateway: {port: 1}\n"}).config.gateway.port == 1
    (found,) = problems(tmp_path, {"10.yaml": "$include: 11.yaml\n", "11.yaml": "{}"})
    assert found == "10.yaml:1:1: $include: includes go deeper than 10 files; include it further up"


def test_includes_cannot_multiply_without_end(tmp_path: Path) -> None:
    level = "{" + ", ".join(f"k{number}: {{$include: NEXT}}" for number in range(20)) + "}\n"
    files = {f"{depth}.yaml": level.replace("NEXT", f"{depth + 1}.yaml") for depth in range(6)}
    (found,) = problems(tmp_path, {**files, "6.yaml": "{}", "openclaw.yaml": "channels: {$include: 0.yaml}\n"})
    assert "there are more than 256 includes; include fewer files" in found
    wide = "[" + ", ".join(["x"] * 5_000) + "]\n"
    many = "channels:\n" + "".join(f"  c{number}: {{$include: wide.yaml}}\n" for number in range(30))
    (found,) = problems(tmp_path, {"openclaw.yaml": many, "wide.yaml": wide})
    assert "too large" in found


# --- profile ------------------------------------------------------------------------------------------------------------


def test_a_profile_wins_over_the_file(tmp_path: Path) -> None:
    files = {
        "openclaw.yaml": "gateway: {port: 1, bind: lan}\nlogging: {level: info}\nagents:\n  defaults: {model: a/b}\n",
        "openclaw.night.yaml": "gateway:\n  port: 2\nlogging:\nagents: {defaults: {model: null}}\n",
    }
    config = loaded(tmp_path, files, {"OPENCLAW_PROFILE": "night"})
    assert (config.config.gateway.port, config.config.gateway.bind, config.config.logging.level) == (2, "lan", "info")
    assert config.config.agents.defaults.model is None
    assert places(config, "gateway", "port") == [("profile", "openclaw.night.yaml:2:3"), ("file", "openclaw.yaml:1:11")]
    assert config.profile == "night"
    assert config.files == (tmp_path / "openclaw.yaml", tmp_path / "openclaw.night.yaml")
    assert loaded(tmp_path, files, {"OPENCLAW_PROFILE": ""}).config.gateway.port == 1


def test_a_profile_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, {"openclaw.yaml": ""}, {"OPENCLAW_PROFILE": "nigt"}) == [
        "openclaw.nigt.yaml: the profile 'nigt': the file is not there; write that file, or unset OPENCLAW_PROFILE"
    ]
    assert problems(tmp_path, {}, {"OPENCLAW_PROFILE": "../x"}) == [
        "OPENCLAW_PROFILE: '../x' is no name of a profile; use letters, digits, - and _, or unset it"
    ]


def test_a_fault_of_a_profile_stands_in_its_file(tmp_path: Path) -> None:
    files = {"openclaw.yaml": "gateway:\n  port: 1\n", "openclaw.p.yaml": "gateway:\n  port: many\n"}
    (found,) = problems(tmp_path, files, {"OPENCLAW_PROFILE": "p"})
    assert found.startswith("openclaw.p.yaml:2:3: gateway.port: found 'many'; ")


# --- environment --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "where", "expected"),
    [
        ("GATEWAY__PORT", "18790", ("gateway", "port"), 18790),
        ("gateway__port", "18790", ("gateway", "port"), 18790),
        ("GATEWAY__CONTROLUI__ALLOWEDORIGINS", "[https://a]", ("gateway", "controlUi", "allowedOrigins"), ["https://a"]),
        ("GATEWAY__CONTROL_UI__BASE_PATH", "/x", ("gateway", "controlUi", "basePath"), "/x"),
        ("GATEWAY", "{port: 4, bind: loopback}", ("gateway", "port"), 4),
        ("AGENTS__DEFAULTS__MODEL__PRIMARY", "a/b", ("agents", "defaults", "model", "primary"), "a/b"),
        ("AGENTS__ENTRIES__MAIN__NAME", "Ada", ("agents", "entries", "main", "name"), "Ada"),
        ("AGENTS__ENTRIES__OLD_ONE__NAME", "Ada", ("agents", "entries", "old_one", "name"), "Ada"),
        ("MODELS__PROVIDERS__CLAUDE_CLI", "{}", ("models", "providers", "claude-cli"), {}),
        ("CHANNELS__TELEGRAM__BOT_TOKEN", "x:y", ("channels", "telegram", "botToken"), "x:y"),
        ("CHANNELS__TELEGRAM__DMPOLICY", "open", ("channels", "telegram", "dmPolicy"), "open"),
        ("PLUGINS__ENTRIES__WEB_TOOLS__CONFIG__MAX_BYTES", "5", ("plugins", "entries", "web-tools", "config", "maxBytes"), 5),
    ],
)
def test_a_variable_sets_a_key_in_any_case(tmp_path: Path, name: str, value: str, where: tuple[str, ...], expected: object) -> None:
    text = "gateway: {port: 1}\nchannels: {telegram: {dmPolicy: disabled}}\nagents: {entries: {main: {}, old_one: {}}}\n"
    config = loaded(tmp_path, {"openclaw.yaml": text}, {f"OPENCLAW_CONFIG__{name}": value})
    node: object = config.document
    for part in where:
        assert isinstance(node, Mapping)
        node = node[part]
    assert node == expected
    assert config.origins[where][0].layer is Layer.ENVIRONMENT
    assert config.origins[where][0].place == f"OPENCLAW_CONFIG__{name}"


def test_of_two_variables_the_one_for_the_single_key_wins(tmp_path: Path) -> None:
    variables = {"OPENCLAW_CONFIG__GATEWAY__PORT": "2", "OPENCLAW_CONFIG__GATEWAY": "{port: 1, bind: lan}"}
    gateway = loaded(tmp_path, {"openclaw.yaml": ""}, variables).config.gateway
    assert (gateway.port, gateway.bind) == (2, "lan")


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("GATEWAY__PROT", "1", "gateway.PROT: unknown key 'PROT'; did you mean OPENCLAW_CONFIG__GATEWAY__PORT?"),
        ("GATEWAY__CONTROL_UI__BASEPAHT", "1",
         "gateway.controlUi.BASEPAHT: unknown key 'BASEPAHT'; did you mean OPENCLAW_CONFIG__GATEWAY__CONTROL_UI__BASE_PATH?"),
        ("", "1", "unknown key ''; unset it; known here: agents, bindings, channels, gateway, logging, models, plugins, secrets, session"),
        ("GATEWAY__PORT__X", "1", "gateway.port.X: unknown key 'X'; unset it; gateway.port has no keys"),
        ("BINDINGS__0__AGENT_ID", "x", "bindings.0: unknown key '0'; unset it; bindings has no keys"),
        ("CHANNELS__a b", "x", "channels.a b: unknown key 'a b'; unset it; channels has no keys"),
        ("GATEWAY__PORT", "many",
         "gateway.port: found a text; input should be a valid integer, unable to parse string as an integer"),
        ("GATEWAY__PORT", "{",
         "gateway.port: not valid YAML; write the value as YAML, odd texts in quotes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_variable_is_told_by_its_name(tmp_path: Path, variable: str, value: str, problem: str) -> None:
    found = problems(tmp_path, {"openclaw.yaml": "gateway: {port: 1}\n"}, {f"OPENCLAW_CONFIG__{variable}": value})
    assert found == [f"OPENCLAW_CONFIG__{variable}: {problem}"]


def test_a_secret_that_is_no_yaml_is_not_shown(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, {"openclaw.yaml": ""}, {"OPENCLAW_CONFIG__GATEWAY__AUTH__TOKEN": "*hunter22"})
    assert found.endswith("gateway.auth.token: not valid YAML; write the value as YAML, odd texts in quotes")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY", "hunter2"),
        ("GATEWAY__AUTH", "hunter2"),
        ("GATEWAY__AUTH", "[hunter2]"),
        ("GATEWAY__AUTH", "a: b: hunter2"),
        ("GATEWAY__AUTH", "{hunter2: 1, hunter2: 2}"),
        ("GATEWAY__AUTH__MODE", "hunter2"),
        ("GATEWAY__PORT", "hunter2"),
        ("GATEWAY__TRUSTED_PROXIES", "[hunter2]"),
        ("CHANNELS", "hunter2"),
        ("CHANNELS__TELEGRAM", "hunter2"),
        ("MODELS__PROVIDERS__OPENAI", "hunter2"),
        ("PLUGINS__ENTRIES__ANY__CONFIG", "hunter2"),
        ("SECRETS__ENTRIES", "hunter2"),
    ],
)
def test_what_a_variable_says_at_the_wrong_place_is_shown_by_no_fault(tmp_path: Path, variable: str, value: str) -> None:
    told = problems(tmp_path, {"openclaw.yaml": ""}, {f"OPENCLAW_CONFIG__{variable}": value})
    assert told[0].startswith(f"OPENCLAW_CONFIG__{variable}: ")
    assert "hunter2" not in " ".join(told)


def test_the_words_about_a_short_value_stay_whole(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, {"openclaw.yaml": ""}, {"OPENCLAW_CONFIG__GATEWAY__PORT": "e"})
    assert told.endswith("gateway.port: found a text; input should be a valid integer, unable to parse string as an integer")
    assert "itS" not in " ".join(problems(tmp_path, {"openclaw.yaml": 'gateway: {auth: {token: ""}}\n'}))


def test_one_value_where_a_section_belongs_is_not_shown_either(tmp_path: Path) -> None:
    assert problems(tmp_path, {"openclaw.yaml": "gateway: {auth: hunter2}\n"}) == [
        "openclaw.yaml:1:11: gateway.auth: found a text; write it as a mapping of keys"
    ]


def test_two_variables_of_one_key_are_refused(tmp_path: Path) -> None:
    variables = {"OPENCLAW_CONFIG__GATEWAY__PORT": "1", "OPENCLAW_CONFIG__gateway__port": "2"}
    assert problems(tmp_path, {"openclaw.yaml": ""}, variables) == [
        "OPENCLAW_CONFIG__gateway__port: gateway.port: OPENCLAW_CONFIG__GATEWAY__PORT sets the same key; unset one"
    ]


# --- what is known of the whole --------------------------------------------------------------------------------------------


def test_the_hash_covers_all_files_and_is_that_of_the_bytes_where_there_is_one(tmp_path: Path) -> None:
    text = "gateway: {port: 1}\n"
    assert loaded(tmp_path, {"openclaw.yaml": text}).hash == hashlib.sha256(text.encode()).hexdigest()
    files = {"openclaw.yaml": "gateway: {$include: a.yaml}\n", "a.yaml": "port: 1\n"}
    first = loaded(tmp_path, files).hash
    assert first == loaded(tmp_path, files).hash
    assert first != loaded(tmp_path, {**files, "a.yaml": "port: 2\n"}).hash


def test_the_hash_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    files = {"openclaw.yaml": "gateway: {$include: a.yaml}\n", "a.yaml": "port: 1\n"}
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    assert loaded(tmp_path / "here", files).hash == loaded(tmp_path / "there", files).hash


def test_a_text_that_is_not_on_disk_is_loaded_as_if_it_were(tmp_path: Path) -> None:
    loaded(tmp_path, {"openclaw.yaml": "gateway: {port: 1}\n", "a.yaml": "level: debug\n"})
    config = load_text("logging: {$include: a.yaml}\n", tmp_path / "openclaw.yaml", environment={})
    assert (config.config.gateway.port, config.config.logging.level) == (18789, "debug")
    assert config.text == "logging: {$include: a.yaml}\n"
    assert config.files == (tmp_path / "openclaw.yaml", tmp_path / "a.yaml")


def test_an_error_says_which_files_were_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, {"openclaw.yaml": "gateway: {$include: a.yaml}\n", "a.yaml": "prot: 1\n"})
    assert refused.value.files == (tmp_path / "openclaw.yaml", tmp_path / "a.yaml")
    assert refused.value.issues[0].fix is Fix.UNKNOWN_KEY
    assert refused.value.issues[0].pointer == "/gateway/prot"


@pytest.mark.parametrize("environment", [{}, {"OPENCLAW_PROFILE": "p"}, {"OPENCLAW_CONFIG__GATEWAY__AUTH__TOKEN": "of-the-variable"}])
def test_a_secret_of_any_layer_is_shown_by_none(tmp_path: Path, environment: Mapping[str, str]) -> None:
    files = {
        "openclaw.yaml": "# of-the-include, of-the-profile\ngateway: {auth: {$include: a.yaml, token: of-the-file}}\n",
        "a.yaml": "token: of-the-include\n",
        "openclaw.p.yaml": "gateway: {auth: {token: of-the-profile}}\n",
    }
    config = loaded(tmp_path, files, environment)
    shown = f"{config.redacted()} {config.redacted_source()} {config.redacted_text()} {config!r}"
    assert "of-the-file" not in shown
    assert "of-the-include" not in shown
    assert "of-the-variable" not in shown
    assert {"of-the-file", "of-the-include"} <= set(config.secrets)
    if environment.get("OPENCLAW_PROFILE"):
        assert "of-the-profile" not in shown


def test_schema_at_the_top_of_a_file_is_for_editors(tmp_path: Path) -> None:
    text = "$schema: ./openclaw.schema.json\ngateway: {$include: a.yaml}\n"
    config = loaded(tmp_path, {"openclaw.yaml": text, "a.yaml": "$schema: x\nport: 1\n"})
    assert config.config.gateway.port == 1
    assert "$schema" not in config.document
