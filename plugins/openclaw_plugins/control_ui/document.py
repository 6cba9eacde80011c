"""The page itself: where it is mounted is written into it, and its policy names the scripts it holds. Pure."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import dataclass
from typing import Any, Final

_BASE_PATH: Final = "data-openclaw-control-ui-base-path"
_TERMINAL: Final = "data-openclaw-terminal-enabled"
_ROOT_TAG: Final = re.compile(r"<html\b", re.IGNORECASE)
_RELATIVE: Final = re.compile(r'\b(src|href)="\./')
_SCRIPT: Final = re.compile(r"<script((?:\s[^>]*)?)>(.*?)</script>", re.IGNORECASE | re.DOTALL)
_SOURCE: Final = re.compile(r"\ssrc\s*=", re.IGNORECASE)

ASSET_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
"""For a file that is opened by itself."""
WORKER_POLICY: Final = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"
"""For a script: a worker has the policy of its own file."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a browser gets for the page."""

    body: bytes
    policy: str
    tag: str


def prepare(source: str, base_path: str) -> Document:
    """The page for one mount: its links lead there from any address below it, and only its own scripts run."""
    # Relative links of a page that was opened at a deep address would be looked for beside that address.
    anchored = _RELATIVE.sub(lambda found: f'{found[1]}="{base_path}/', source)
    marks = f'<html {_BASE_PATH}="{html.escape(base_path)}" {_TERMINAL}="false"'
    text = _ROOT_TAG.sub(lambda _found: marks, anchored, count=1)
    body = text.encode()
    hashes = "".join(f" '{_hash(found[2])}'" for found in _SCRIPT.finditer(text) if found[2] and not _SOURCE.search(found[1]))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self'{hashes}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self'",
            # A data: address goes nowhere; icons are fetched from such.
            "connect-src 'self' data:",
            "worker-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )
    return Document(body, policy, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def facts(base_path: str) -> dict[str, Any]:
    """What the page asks for before it is connected. Anybody may read it, so it tells nothing of this gateway."""
    return {
        "basePath": base_path,
        "embedSandbox": "strict",
        "allowExternalEmbedUrls": False,
        "automaticallyFetchFavicons": False,
        "communityInvite": False,
        "terminalEnabled": False,
        "cliAgentsEnabled": False,
        "pluginAssetsRequireAuth": True,
        "pluginFrameGrants": [],
    }


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
