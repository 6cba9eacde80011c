"""What may be shown of a config: no secret, whatever its key is called and wherever it stands in the file. No pydantic.

A value is secret when its key says so, when a key above it says so, or when it equals a value that is known to be one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from openclaw_config.secrets import REDACTED, known_secrets

KINDS: Final = ("env", "file", "keyring", "exec")
"""The kinds of references."""
REFERENCE: Final = re.compile(rf"^\$\{{({'|'.join(KINDS)}):([^{{}}]+)\}}$")
SHORTEST_IN_TEXT: Final = 6
"""Shorter secrets are not sought inside other text: they would be found in ordinary words."""

_NAME: Final = re.compile(
    r"(token|passw(or)?d|passphrase|passcode|pass|pwd|secret|pin|otp|seed|mnemonic|credential|authorization|bearer|cookie|dsn"
    r"|(api|access|private|secret|signing|encryption|auth|master|shared|service|app|bot|client|webhook|hmac|jwt|ssh)key)s?$"
)
_HOLDERS: Final = frozenset({"headers", "header", "cookies", "env", "environment", "query"})
"""Mappings whose keys are somebody else's: everything beneath is taken for secret."""
_NAMES_ONLY: Final = (("agents", "defaults", "secrets"), ("agents", "entries", "*", "secrets"), ("secrets", "exec"))
"""Places below a key that names secrets where there are names, and no values."""
_USER_IN_URL: Final = re.compile(r"(?<=://)[^/\s\"']+@")
_PAIR: Final = re.compile(
    r"""(?P<head>(?P<quote>["']?)(?P<key>[A-Za-z_][\w.-]*)(?P=quote)\s*:\s+)"""
    r"""(?P<value>"(?:[^"\\\n]|\\.)*"|'(?:[^'\n]|'')*'|[^\s"'\[{|>&*#][^\n]*)"""
)
_PLAIN_SCALAR: Final = re.compile(r"(true|false|null|~|[-+]?[\d_.]+)\s*[,}\]]*\s*(#.*)?")


def names_secret(key: Any) -> bool:
    """Tell whether a key is the name of a secret, in any spelling: `apiKey`, `X-Api-Key`, `nickserv_password`."""
    return _NAME.search(re.sub(r"[^a-z0-9]", "", str(key).lower())) is not None


def is_secret_place(where: Sequence[Any]) -> bool:
    """Tell whether what stands at a path of the file is secret, by its keys."""
    return any(map(names_secret, where)) and not _has_names_only(where)


def _has_names_only(where: Sequence[Any]) -> bool:
    return any(
        len(where) >= len(place) and all(part in ("*", str(key)) for part, key in zip(place, where, strict=False)) for place in _NAMES_ONLY
    )


def redact(key: Any, value: Any, known: Collection[str] = (), *, hidden: bool = False) -> Any:
    """The value with every secret replaced by the redaction mark; references stay. `known` are values that are secret anywhere.

    The value stands below `key` at the top of the file; the whole file has the key "".
    """
    return _redact((key,) if key != "" else (), value, known, hidden=hidden)


def _redact(where: tuple[Any, ...], value: Any, known: Collection[str], *, hidden: bool) -> Any:
    key = where[-1] if where else ""
    hidden = (hidden or names_secret(key)) and not _has_names_only(where)
    if isinstance(value, Mapping):
        below = hidden or str(key).lower() in _HOLDERS
        return {str(name): _redact((*where, name), item, known, hidden=below) for name, item in value.items()}
    if isinstance(value, list):
        return [_redact(where, item, known, hidden=hidden) for item in value]
    if isinstance(value, str):
        return _redact_text_value(str(value), known, hidden=hidden)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return REDACTED if hidden and number and not str(key).lower().endswith("tokens") else plain(value)


def _redact_text_value(value: str, known: Collection[str], *, hidden: bool) -> str:
    reference = REFERENCE.match(value)
    if reference is not None and reference[1] != "exec":
        return value
    if value and reference is None and (hidden or value in known):
        return REDACTED
    return _USER_IN_URL.sub(f"{REDACTED}@", replace_all(value, known))


def plain(value: Any) -> Any:
    """A scalar without the formatting that the YAML library keeps with it."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def secrets_in(document: Any) -> list[str]:
    """Every secret that is written out in a document, of those that its keys give away."""
    return [value for _, value in secret_places(document)]


def secret_places(document: Any, *, references: bool = False) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every secret that is written out in a document, with its place; with the references, which count wherever they stand."""
    waiting: list[tuple[tuple[str | int, ...], Any, Any, bool]] = [((), "", document, False)]
    while waiting:
        where, key, value, hidden = waiting.pop()
        hidden = (hidden or names_secret(key)) and not _has_names_only(where)
        if isinstance(value, Mapping):
            below = hidden or str(key).lower() in _HOLDERS
            waiting += [((*where, str(name)), name, item, below) for name, item in reversed([*value.items()])]
        elif isinstance(value, list):
            # What its items are called is what the list is called.
            waiting += [((*where, index), key, value[index], hidden) for index in reversed(range(len(value)))]
        elif isinstance(value, str) and value and (references if REFERENCE.match(value) else hidden):
            yield where, str(value)


def replace_all(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret replaced that is long enough to be sought, also where it is written for JSON or for a URL."""
    for secret in spellings(secrets):
        if secret in text:
            text = text.replace(secret, REDACTED)
    return text


def hide_users(text: str) -> str:
    """The text without who logs in by the URLs in it, and with what."""
    return _USER_IN_URL.sub(f"{REDACTED}@", text)


def known_spellings() -> Sequence[str]:
    """All secrets of this process as they may stand in a text, longest first; worked out anew only where there are more than before."""
    return _spelled(len(known_secrets()))


@lru_cache(maxsize=1)
def _spelled(_count: int) -> Sequence[str]:
    # None is ever forgotten, so their number says whether they are the same.
    return spellings(known_secrets())


def spellings(secrets: Iterable[str]) -> list[str]:
    """The secrets as they may stand in a text, longest first."""
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= SHORTEST_IN_TEXT:
            forms |= {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
            forms.add(quote(secret, safe="", errors="surrogatepass"))
    return sorted(forms, key=len, reverse=True)


def redact_source(text: str, document: Any, known: Collection[str], read: Callable[[str], Any]) -> str | None:
    """The text of a file without its secrets, those in comments included; None where that cannot be proven by reading it again.

    `read` parses a text as the file was parsed to `document`; it raises `ValueError` for what it cannot read.
    """
    secrets = {*known, *secrets_in(document)}
    cleaned = _USER_IN_URL.sub(f"{REDACTED}@", _PAIR.sub(_redact_pair, replace_all(text, secrets)))
    try:
        shown = read(cleaned)
    except ValueError:
        return None
    return cleaned if redact("", shown, secrets) == redact("", redact("", document, secrets), secrets) == _plain_tree(shown) else None


def _redact_pair(match: re.Match[str]) -> str:
    value = match["value"]
    inner = value.strip("\"'").rstrip()
    if match["key"] == "secrets" and "\n" in match["head"]:
        # The section, or an agent's list of names: what is secret below it is known from the document.
        return match[0]
    if not names_secret(match["key"]) or REFERENCE.match(inner) or _PLAIN_SCALAR.fullmatch(value) or inner.startswith(REDACTED):
        return match[0]
    if REFERENCE.match(inner.partition(" #")[0].rstrip()):
        return match[0]
    return f"{match['head']}{value[0]}{REDACTED}{value[0]}" if value[0] in "\"'" else f"{match['head']}{REDACTED}"


def _plain_tree(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain_tree(item) for key, item in value.items()}
    return [_plain_tree(item) for item in value] if isinstance(value, list) else plain(value)
