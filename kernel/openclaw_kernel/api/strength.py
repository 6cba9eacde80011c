"""Whether a secret can be guessed."""

from __future__ import annotations

import re
from typing import Final

SHORTEST: Final = 16
"""Characters of a secret that people from elsewhere may try."""
_FEWEST_DIFFERENT: Final = 8
_OWN_PART: Final = 6
_WORDS: Final = re.compile(
    r"change(?:me|it|this)?|replace(?:me|this)?|your|my|the|here|pass(?:word|phrase|wd)?|secret|token|key|admin|root|user|login|gateway"
    r"|open|claw|kernel|agent|example|sample|default|demo|test(?:ing)?|dev(?:elopment)?|prod(?:uction)?|letmein|welcome|qwert[yz]?(?:uiop)?"
    r"|asdf(?:gh)?(?:jkl)?|abc(?:def)?(?:gh)?|supersecret|insecure|temp|xxx+|[0-9]+|[^a-z0-9]+"
)


def weakness_of_secret(secret: str) -> str | None:
    """Say in a few words why a secret is easily guessed, with nothing of it; None where nothing is seen against it."""
    if len(secret) < SHORTEST:
        return f"only {len(secret)} characters long"
    if len(set(secret)) < _FEWEST_DIFFERENT:
        return f"made of only {len(set(secret))} different characters"
    if len(_WORDS.sub("", secret.lower())) < _OWN_PART:
        return "made of words that everybody tries first"
    return None
