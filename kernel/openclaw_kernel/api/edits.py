"""What a client sends to change the config, as an edit of the file's text: a merge patch, or a whole file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from openclaw_config.issues import ConfigError
from openclaw_config.patching import patched, rewritten, tree_of
from openclaw_config.restoring import restored
from openclaw_config.secrets import known_secrets
from openclaw_config.source import FILE_NAME
from openclaw_kernel.api.config import Edit

LONGEST_JSON5: Final = 65_536
"""So many characters may be JSON5; more has to be JSON, which is read a hundred times faster."""


def patch_edit(raw: str, replace_paths: Collection[str] = ()) -> Edit:
    """The edit that a merge patch is, written as JSON5: null deletes, objects recurse, lists of things with an `id` merge by it.

    `replace_paths` are the dotted places of lists that may lose entries. Raise `ValueError` for what cannot be read.
    """
    patch = read_object(raw)

    def edit(text: str) -> str:
        source = tree_of(FILE_NAME, text)
        return patched(FILE_NAME, text, restored(patch, source, known_secrets()), replace_paths)

    return edit


def file_edit(raw: str) -> Edit:
    """The edit that a whole file is. YAML is taken as it is; JSON5 says what the file is to say, and its comments stay.

    Raise `ValueError` for JSON5 that cannot be read.
    """
    if not raw.lstrip("\ufeff \t\r\n").startswith("{"):
        return lambda _text: raw
    wanted = read_object(raw)

    def edit(text: str) -> str:
        try:
            source = tree_of(FILE_NAME, text)
        except ConfigError:
            # Nothing of a file that cannot be read can be kept.
            return rewritten(FILE_NAME, "", restored(wanted, {}, known_secrets()))
        return rewritten(FILE_NAME, text, restored(wanted, source, known_secrets()))

    return edit


def read_object(raw: str) -> Mapping[str, Any]:
    """The object that a text in JSON5 is; raise `ValueError`."""
    value = _read(raw)
    if not isinstance(value, dict):
        raise ValueError("raw: holds no object; write it as {key: value}")
    return value


def _read(raw: str) -> Any:
    import json

    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("raw: is nested too deeply; keep it under 100 levels") from None
    except ValueError:
        if len(raw) > LONGEST_JSON5:
            raise ValueError(f"raw: is no JSON, and too long for JSON5 ({len(raw)} characters); write it as JSON") from None
    # Imported here: most send JSON.
    import json5

    try:
        return json5.loads(raw, allow_duplicate_keys=False)
    except RecursionError:
        raise ValueError("raw: is nested too deeply; keep it under 100 levels") from None
    except ValueError as error:
        raise ValueError(f"raw: cannot be read as JSON5 ({str(error).removeprefix('<string>:')}); mend it there") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
