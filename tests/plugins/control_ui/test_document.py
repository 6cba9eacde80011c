"""The page as it is prepared for one mount."""

from __future__ import annotations

import base64
import hashlib

from openclaw_plugins.control_ui.document import facts, prepare

SOURCE = """<!doctype html>
<html lang="en" data-openclaw-control-ui-build-id="1">
<head>
<link rel="icon" href="./favicon.svg" />
<script>document.documentElement.dataset.theme = "claw";</script>
<script data-cfasync="false">let two = 2;</script>
<script type="module" crossorigin src="./assets/index.js"></script>
</head>
<body><a href="https://example.org/./x">elsewhere</a></body>
</html>"""


def directives(policy: str) -> dict[str, list[str]]:
    """A policy by directive."""
    parts = [part.split() for part in policy.split("; ")]
    return {name: sources for name, *sources in parts}


def test_links_lead_to_the_mount_from_any_address_below_it() -> None:
    body = prepare(SOURCE, "/control-ui").body.decode()
    assert 'href="/control-ui/favicon.svg"' in body
    assert 'src="/control-ui/assets/index.js"' in body
    assert 'href="https://example.org/./x"' in body


def test_the_page_is_told_where_it_is_mounted() -> None:
    body = prepare(SOURCE, "/kernel/control-ui").body.decode()
    assert '<html data-openclaw-control-ui-base-path="/kernel/control-ui" data-openclaw-terminal-enabled="false" lang="en"' in body
    assert 'data-openclaw-control-ui-build-id="1"' in body


def test_only_its_own_scripts_run_and_it_speaks_to_us_alone() -> None:
    policy = directives(prepare(SOURCE, "/control-ui").policy)
    scripts = ['document.documentElement.dataset.theme = "claw";', "let two = 2;"]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert policy["script-src"] == ["'self'", *hashes]
    assert policy["connect-src"] == ["'self'", "data:"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["default-src"] == ["'none'"]
    assert not any(source.startswith(("http", "ws", "*")) for sources in policy.values() for source in sources)


def test_the_tag_is_of_what_is_sent() -> None:
    assert prepare(SOURCE, "/one").tag != prepare(SOURCE, "/two").tag
    assert prepare(SOURCE, "/one").tag == prepare(SOURCE, "/one").tag


def test_what_anybody_may_read_names_neither_version_nor_agent() -> None:
    told = facts("/control-ui")
    assert told["basePath"] == "/control-ui"
    # The page loads again and again where these two differ.
    assert told["terminalEnabled"] is False
    assert not {"serverVersion", "assistantName", "assistantAgentId"} & told.keys()
