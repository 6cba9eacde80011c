"""No secret of a config can be read from what is shown of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.home import DEFAULT_FILE
from openclaw_config.load import Loaded, load
from openclaw_config.redaction import hide_users, known_spellings, names_secret, redact, replace_all, secrets_in
from openclaw_config.secrets import REDACTED, Secret

CANARY = "canary-7f3a9"


def loaded(folder: Path, text: str, **files: str) -> Loaded:
    """The config of a file with this text, beside other files."""
    for name, content in files.items():
        (folder / name).write_text(content)
    path = folder / "openclaw.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, environment={})


def shown(found: Loaded) -> str:
    """All that `config.get` shows of a file."""
    return json.dumps([found.redacted(), found.redacted_text()], ensure_ascii=False)


@pytest.mark.parametrize(
    "key",
    "token botToken bot_token gatewayTokens password passwd nickservPassword passphrase pass pwd secret clientSecret webhookSecret apiKey"
    " api_key X-Api-Key api-keys APIKEY accessKey privateKey signingKey encryptionKey appKey credential credentials Authorization bearer"
    " cookie dsn hmacKey pin".split(),
)
def test_names_of_secrets(key: str) -> None:
    assert names_secret(key)


@pytest.mark.parametrize(
    "key", "mainKey sessionKey publicKey keys name mode label baseUrl port identityLinks text model tokenizer passive".split()
)
def test_names_of_other_things(key: str) -> None:
    assert not names_secret(key)


@pytest.mark.parametrize(
    "text",
    [
        f"gateway:\n  auth:\n    token: {CANARY}\n",
        f"gateway:\n  auth:\n    token: '{CANARY}'   # mine\n",
        f'gateway:\n  auth: {{mode: token, token: "{CANARY}"}}\n',
        f"gateway: {{auth: {{token: {CANARY}, mode: token}}}}\n",
        f'{{"gateway": {{"auth": {{"token": "{CANARY}"}}}}}}',
        f"gateway:\n  auth:\n    # token: {CANARY}\n    token: other\n",
        f"#gateway:\n#  auth:\n#    token: {CANARY}\n",
        f"# - apiKey: \"{CANARY}\"\n",
        f"channels:\n  x:\n    auth-data:\n      password: |\n        {CANARY}\n        second\n",
        f"channels:\n  x:\n    password: >-\n      {CANARY}\n",
        f'channels:\n  x:\n    password: "canary\\x2d7f3a9 {CANARY}"\n',
        f"channels:\n  x:\n    secret: 'it''s {CANARY}'\n",
        f"channels:\n  x:\n    credentials:\n      user: {CANARY}\n      anything: [{CANARY}]\n",
        f"channels:\n  x:\n    headers:\n      X-Whatever: {CANARY}\n",
        f"channels:\n  x:\n    env: {{THING: {CANARY}}}\n",
        f"channels:\n  x:\n    url: https://user:{CANARY}@host.example/path\n",
        f"# see https://{CANARY}@host.example/\n",
        f"channels:\n  x:\n    tokens: [{CANARY}, other]\n",
        f"channels:\n  x:\n    ? token\n    : {CANARY}\n",
        f"channels:\n  x: &a\n    token: &t {CANARY}\n  y: *a\n  z: {{label: *t}}\n",
        f"channels:\n  x:\n    apiKey: {CANARY}\n    note: uses {CANARY} twice\n",
        f"channels:\n  x:\n    password: ab{CANARY},cd # ab{CANARY},cd\n",
    ],
)  # fmt: skip
def test_a_secret_is_not_shown_however_it_is_written(tmp_path: Path, text: str) -> None:
    assert CANARY not in shown(loaded(tmp_path, text))


def test_a_secret_of_an_unusual_name_is_known_by_its_value(tmp_path: Path) -> None:
    found = loaded(tmp_path, "channels:\n  x:\n    luggage: value-of-the-luggage-lock\n")
    assert "value-of-the-luggage-lock" in shown(found)
    # The plugin's settings model has it as a `Secret`.
    Secret("value-of-the-luggage-lock")
    assert "value-of-the-luggage-lock" not in shown(found)
    assert found.redacted()["channels"]["x"] == {"luggage": REDACTED}


def test_short_secrets_are_hidden_in_their_place_and_not_sought_elsewhere(tmp_path: Path) -> None:
    found = loaded(tmp_path, "channels:\n  x:\n    pass: ab\n    label: about\n")
    assert found.redacted()["channels"]["x"] == {"pass": REDACTED, "label": "about"}
    assert found.redacted_text() == f"channels:\n  x:\n    pass: {REDACTED}\n    label: about\n"


def test_what_is_no_secret_is_shown_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "gateway.token").write_text("value-of-the-token-file")
    assert loaded(tmp_path, DEFAULT_FILE).redacted_text() == DEFAULT_FILE
    text = "agents:\n  defaults: {maxOutputTokens: 100, contextTokens: 4096}\n# tokens: 12\n"
    found = loaded(tmp_path, text)
    assert found.redacted_text() == text
    assert found.redacted()["agents"]["defaults"] == {"maxOutputTokens": 100, "contextTokens": 4096}


@pytest.mark.parametrize(("value", "hidden"), [(1234, True), (12.5, True), (True, False), (None, False), ("", False), ("${env:X}", False)])
def test_numbers_can_be_secrets(value: Any, hidden: bool) -> None:
    assert redact("pin", value) == (REDACTED if hidden else value)


def test_other_spellings_of_a_secret_are_found() -> None:
    secret = 'p"ä/ s\\w'
    for form in (secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret), "https://h/p%22%C3%A4%2F%20s%5Cw"):
        assert "s\\w" not in replace_all(form, [secret])
        assert "%5Cw" not in replace_all(form, [secret])
    assert replace_all("about", ["abou"]) == "about"


def test_the_secrets_of_a_document_are_those_its_keys_give_away() -> None:
    document = {"a": {"token": "one", "headers": {"X": "two"}, "tokens": ["three", "${env:X}"], "name": "four"}}
    assert secrets_in(document) == ["one", "two", "three"]


NAMED = """\
secrets:
  exec: {environment: [HOME, PASSWORD_STORE_DIR], timeoutSeconds: 5}
  entries:
    github: "${exec:/usr/bin/pass show github}"
    jira: canary-7f3a9
agents:
  defaults:
    secrets:
      - github
  entries:
    main: {secrets: [github, jira]}
"""


def test_names_of_secrets_are_shown_and_their_values_are_not(tmp_path: Path) -> None:
    found = loaded(tmp_path, NAMED.replace("${exec:/usr/bin/pass show github}", "${file:github}"), github="from-the-file")
    assert CANARY not in shown(found)
    assert found.redacted_text() == found.text.replace(CANARY, REDACTED)
    redacted = found.redacted()
    assert redacted["secrets"]["exec"] == {"environment": ["HOME", "PASSWORD_STORE_DIR"], "timeoutSeconds": 5}
    assert redacted["secrets"]["entries"] == {"github": "${file:github}", "jira": REDACTED}
    assert redacted["agents"] == {"defaults": {"secrets": ["github"]}, "entries": {"main": {"secrets": ["github", "jira"]}}}
    # A name that counted as a secret would be cut out of every line of the log.
    assert set(found.secrets) == {CANARY, "from-the-file"}


def test_secrets_of_others_stay_hidden(tmp_path: Path) -> None:
    text = f"channels:\n  x:\n    secrets: [{CANARY}]\n    agents:\n      defaults:\n        secrets: {CANARY}\n# secrets: {CANARY}\n"
    assert CANARY not in shown(loaded(tmp_path, text))


@pytest.mark.parametrize("kind", ["env:X", "file:a/b", "keyring:service/name", "exec:/bin/pass show x"])
def test_references_of_each_kind_are_shown(kind: str) -> None:
    assert redact("token", f"${{{kind}}}") == f"${{{kind}}}"
    assert secrets_in({"token": f"${{{kind}}}"}) == []


def test_a_secret_among_the_arguments_of_a_program_is_not_shown() -> None:
    assert redact("token", f"${{exec:/bin/x --with {CANARY} https://me:word@host/}}", {CANARY}) == (
        f"${{exec:/bin/x --with {REDACTED} https://{REDACTED}@host/}}"
    )


def test_a_password_with_an_at_sign_is_hidden_to_its_end() -> None:
    address = f"postgres://user:half@{CANARY}@host.example/path"
    assert redact("baseUrl", address) == hide_users(address) == f"postgres://{REDACTED}@host.example/path"


def test_a_secret_that_comes_later_is_sought_as_well() -> None:
    first, second = "early-secret-of-this-test", "late/secret-of-this-test"
    Secret(first)
    assert first in known_spellings()
    Secret(second)
    assert {first, second, "late%2Fsecret-of-this-test"} <= set(known_spellings())
