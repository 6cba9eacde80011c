"""A secret becomes a string in few places, each with its reason: where it leaves the process, and nowhere else."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.source_tree import Module, read_project

# By module and function: why the string is needed there, and how often `unwrap` is named.
EXITS: dict[str, tuple[int, str]] = {
    "openclaw_kernel.live.leaves:credential": (1, "keys the page's sessions, so that another token ends them; only a digest is kept"),
    "openclaw_kernel.children.bridge:Bridge._lease": (1, "a tool in a process of its own gets it over the pipe"),
    "openclaw_kernel.children.handed:handed_over": (1, "a plugin in a process of its own gets its section over the pipe"),
    "openclaw_kernel.checks.scene:_slot": (
        1,
        "its strength is judged, and whether it stands in two places; only a digest under a key of the run is kept",
    ),
    "openclaw_kernel.onboarding.answers:fault_of": (1, "whether an answer of the set-up is empty; it leaves nowhere"),
    "openclaw_kernel.onboarding.answers:_kept": (1, "the private file that keeps an answer of the set-up; openclaw.yaml gets a reference"),
    "openclaw_kernel.importing.secrets:Vault.keep": (1, "the private file that keeps a secret of another gateway"),
    "openclaw_kernel.importing.secrets:Vault.pending": (1, "is compared with the private file that keeps it"),
    "openclaw_kernel.importing.secrets:Vault._holder": (1, "is compared with one of the same name"),
    "openclaw_kernel.exposure:_beyond_loopback": (1, "its length decides whether others may reach the gateway"),
    "openclaw_kernel.oauth.flow:poll_form": (1, "the body of a request to the authorization server"),
    "openclaw_kernel.oauth.flow:refresh_form": (1, "the body of a request to the authorization server"),
    "openclaw_kernel.oauth.flow:_identity": (1, "the body of a request to the authorization server"),
    "openclaw_kernel.oauth.tokens:TokenStore._write": (2, "the private file or the keyring entry that keeps a login"),
    "openclaw_kernel.host.secrets:ToolSecrets.clean": (1, "is cut out of what a tool returns to the model"),
    "openclaw_plugins.shell_tool.runtime:Shell._child_environment": (1, "the command's environment, where the config says so"),
    "openclaw_kernel.cli.target:_read_file": (1, "the command line hands it to the gateway"),
    "openclaw_channels.telegram.client:open_client": (1, "the SDK's constructor takes it"),
    "openclaw_channels.telegram.client:describe": (1, "is cut out of what an error says"),
    "openclaw_channels.telegram.account:Account._set_webhook": (1, "Telegram is told which secret to send back"),
    "openclaw_channels.telegram.settings:TelegramSettings._consistent": (1, "two accounts with the same token are refused"),
    "acme_badge.plugin:sign": (1, "badges are signed with it"),
    "openclaw_irc.link:Link.connect": (1, "the password of the connection"),
    "openclaw_providers.claude_cli.runtime:ClaudeCliProvider._shown": (1, "is cut out of what the program said"),
    "openclaw_providers.claude_cli.command:environment": (1, "the program's environment"),
    "acme_oracle.plugin:OracleProvider._headers": (1, "header of the request, in an example of the plugin guide"),
    "openclaw_providers.anthropic.runtime:AnthropicProvider._new_client": (1, "the SDK's constructor takes it"),
    "openclaw_providers.openai.runtime:OpenAIProvider._new_client": (1, "the SDK's constructor takes it"),
    "openclaw_providers.openai.runtime:OpenAIProvider._list_models": (1, "header of the request"),
    "openclaw_providers.openai.runtime:OpenAIProvider._begin.begin": (1, "header of the request"),
    "openclaw_kernel.api.remote.settings:ServerSettings.sent_headers": (1, "headers of requests"),
    "openclaw_kernel.api.remote.faults:ServerFaults.clean": (1, "is cut out of what the server said"),
}


def exits_of(module: Module) -> Iterator[str]:
    """Every place that names `unwrap`, called or not, as `module:Class.function`."""
    waiting: list[tuple[ast.AST, str]] = [(module.tree, "")]
    while waiting:
        node, inside = waiting.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = f"{inside}.{node.name}" if inside else node.name
        if (isinstance(node, ast.Attribute) and node.attr == "unwrap") or (isinstance(node, ast.Constant) and node.value == "unwrap"):
            yield f"{module.name}:{inside}"
        waiting.extend((child, inside) for child in ast.iter_child_nodes(node))


def test_secrets_are_unwrapped_where_the_list_says_and_nowhere_else() -> None:
    found = Counter(place for module in read_project() for place in exits_of(module))
    listed = {place: count for place, (count, _) in EXITS.items()}
    assert found == listed, "a secret leaves by a place that tests/config/test_secret_exits.py does not list, or no longer by one it does"


def test_an_exit_is_found_however_it_is_written() -> None:
    source = "class A:\n    async def f(self, s):\n        send(s.unwrap)\n        getattr(s, 'unwrap')()\nx = s.unwrap()\n"
    module = Module("m", Path("m.py"), source)
    assert sorted(exits_of(module)) == ["m:", "m:A.f", "m:A.f"]
