"""A secret has no printable form."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, ValidationError

from openclaw_config.secrets import REDACTED, Secret, known_secrets


class Settings(BaseModel):
    """A section with a secret."""

    luggage: Secret


def test_no_way_of_printing_shows_it() -> None:
    secret = Secret("unprintable-value")
    settings = Settings(luggage=secret)
    texts = [
        repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", "".join(map(str, [secret])), repr(settings), str(settings.model_dump()),
        settings.model_dump_json(), repr([secret]), str(Settings.model_json_schema()), repr(ValueError(secret)),
    ]  # fmt: skip
    assert "unprintable-value" not in "".join(texts)
    assert settings.model_dump() == {"luggage": REDACTED}


def test_it_cannot_be_serialised() -> None:
    for attempt in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            attempt(Secret("unprintable-value"))


def test_it_is_no_container_and_has_no_state_to_copy() -> None:
    secret: Any = Secret("unprintable-value")
    for attempt in (iter, len, list, vars, lambda value: value[0], lambda value: "u" in value, lambda value: value + "", bytes):
        with pytest.raises(TypeError):
            attempt(secret)
    for attempt in (copy.copy, lambda value: value.__getstate__(), lambda value: value.__reduce_ex__(2), orjson.dumps):
        with pytest.raises(TypeError) as refused:
            attempt(secret)
        assert "unprintable-value" not in str(refused.value)


def test_a_refused_value_is_not_in_the_plain_message() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"luggage": ""})
    assert "at least 1 character" in str(refused.value)


@pytest.mark.parametrize("candidate", ["", "unprintable-valu", "unprintable-value ", "\udcff", "ünprintable"])
def test_only_the_same_text_matches(candidate: str) -> None:
    assert not Secret("unprintable-value").matches(candidate)
    assert Secret("unprintable-value").matches("unprintable-value")


def test_a_secret_from_an_environment_that_is_no_utf8_can_be_compared() -> None:
    assert Secret("caf\udce9").matches("caf\udce9")
    assert not Secret("caf\udce9").matches("café")


def test_every_secret_is_known_for_redaction() -> None:
    Settings.model_validate({"luggage": "known-from-now-on"})
    assert "known-from-now-on" in known_secrets()
