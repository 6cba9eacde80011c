"""How the program is called: arguments, environment and the line it reads; pure."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api import (
    AssistantMessage,
    File,
    Image,
    Message,
    ModelRequest,
    Text,
    ThinkingLevel,
    ToolResultMessage,
    UserMessage,
)
from openclaw_kernel.api.remote import file_text
from openclaw_providers.claude_cli.settings import ClaudeCliSettings

#: What the program and its tools may see of the gateway's environment; keys and tokens are not among it.
_PASSED_ON: Final = frozenset(
    "HOME USER LOGNAME SHELL PATH LANG LANGUAGE TZ TMPDIR TERM XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME "
    "XDG_STATE_HOME XDG_RUNTIME_DIR HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy "
    "all_proxy SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS SYSTEMROOT".split()
)
_EFFORTS: Final[dict[ThinkingLevel, str]] = {
    "off": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
}
#: Below this an answer has no room for the least of thinking.
_LEAST_TO_THINK: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation the program keeps for a session: its id there, and the mark of the last message it was given."""

    session: str
    cli_session: str
    mark: str

    def to_json(self) -> str:
        """Return what is stored."""
        return json.dumps({"session": self.session, "cliSession": self.cli_session, "mark": self.mark})

    @classmethod
    def from_json(cls, text: str) -> Conversation:
        """Read back what `to_json` wrote."""
        read = json.loads(text)
        return cls(session=read["session"], cli_session=read["cliSession"], mark=read["mark"])


def find_program(command: str, ambient: Mapping[str, str]) -> str | None:
    """Return the whole path of the program, None where it is not there; relative entries of the PATH do not count."""
    wanted = Path(command).expanduser()
    if wanted.name != command:
        command = str(wanted.absolute())
    return shutil.which(command, path=_absolute_path(ambient))


def _absolute_path(ambient: Mapping[str, str]) -> str:
    """Return the PATH without entries that would lead into the workspace, which the agent can write to."""
    entries = ambient.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if Path(entry).is_absolute())


def arguments(request: ModelRequest, settings: ClaudeCliSettings, *, cli_session: str, resume: bool, system_file: Path | None) -> list[str]:
    """Return the arguments for one turn of a new or a resumed conversation."""
    made = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    made += ["--include-partial-messages", "--disable-slash-commands", "--model", request.model]
    made += ["--resume" if resume else "--session-id", cli_session]
    if not settings.customizations:
        # Both leave out what a workspace or a user brings; the first also refuses any login but the key.
        made += ["--strict-mcp-config", "--bare" if settings.api_key is not None else "--safe-mode"]
    made += ["--tools", ",".join(tool.partition("(")[0] for tool in settings.tools)]
    if settings.tools:
        made += ["--allowedTools", *settings.tools]
    if system_file is not None:
        # With tools the program's own prompt, which explains them, has to stay.
        made += ["--append-system-prompt-file" if settings.tools else "--system-prompt-file", str(system_file)]
    if request.thinking is not None:
        made += ["--effort", _EFFORTS[request.thinking]]
    return made


def environment(request: ModelRequest, settings: ClaudeCliSettings, *, ambient: Mapping[str, str], own_folder: Path) -> dict[str, str]:
    """Return the program's environment: what is on the list, and what the settings say."""
    wanted = _PASSED_ON.union(settings.environment)
    made = {name: value for name, value in ambient.items() if name in wanted or name.startswith("LC_")}
    made["PATH"] = _absolute_path(ambient)
    made |= {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        # Whether to try again is decided by who can also choose another model.
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    }
    if settings.api_key is not None:
        made |= {"ANTHROPIC_API_KEY": settings.api_key.unwrap(), "CLAUDE_CONFIG_DIR": str(own_folder)}
    if settings.base_url is not None:
        made["ANTHROPIC_BASE_URL"] = settings.base_url
    if settings.config_dir is not None:
        made["CLAUDE_CONFIG_DIR"] = str(Path(settings.config_dir).expanduser())
    if request.max_output_tokens is not None:
        made["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(request.max_output_tokens)
    short = request.max_output_tokens is not None and request.max_output_tokens < _LEAST_TO_THINK
    if request.thinking == "off" or short:
        made["MAX_THINKING_TOKENS"] = "0"
    return made


def mark_of(messages: Sequence[Message]) -> str:
    """Return what tells the last message of a person from every other."""
    last = next((message for message in reversed(messages) if isinstance(message, UserMessage)), None)
    return "" if last is None else _mark(last)


def _mark(message: UserMessage) -> str:
    said = json.dumps([message.timestamp_ms, [part.to_json() for part in message.content]])
    return hashlib.sha256(said.encode()).hexdigest()


def input_line(messages: Sequence[Message], known: Conversation | None, *, provider: str) -> str:
    """Return the line the program reads: the new message, and before it what was said that it does not know yet."""
    earlier = _unknown(messages[:-1], known, provider=provider)
    parts = list(_parts(messages[-1])) if messages else [Text("")]
    texts = [part.text for part in parts if isinstance(part, Text)]
    text = "\n".join(texts)
    if earlier:
        told = "\n\n".join(f"{_speaker(message)}: {_text(message)}" for message in earlier)
        text = f"<conversation_so_far>\n{told}\n</conversation_so_far>\n\n{text}"
    # A text that begins with a slash would be a command to the program.
    if text.startswith("/"):
        text = f"\n{text}"
    content: list[dict[str, Any]] = [_image(part) for part in parts if isinstance(part, Image)]
    content.append({"type": "text", "text": text or "(an empty message)"})
    return json.dumps({"type": "user", "message": {"role": "user", "content": content}}) + "\n"


def _unknown(earlier: Sequence[Message], known: Conversation | None, *, provider: str) -> list[Message]:
    """Return what the program has not heard: everything at first, later what others said since its last turn."""
    if known is None:
        return [message for message in earlier if _text(message)]
    for index in range(len(earlier) - 1, -1, -1):
        message = earlier[index]
        if isinstance(message, UserMessage) and _mark(message) == known.mark:
            since = earlier[index + 1 :]
            own = (isinstance(item, AssistantMessage) and item.provider in (None, provider) for item in since)
            return [item for item, is_own in zip(since, own, strict=True) if not is_own and _text(item)]
    # The message it answered last was trimmed from the history: all that is left is older or its own.
    return []


def _parts(message: Message) -> list[Text | Image]:
    if not isinstance(message, UserMessage):
        return [Text(_text(message))]
    return [Text(file_text(part)) if isinstance(part, File) else part for part in message.content]


def _image(part: Image) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": part.mime_type, "data": part.data}}


def _speaker(message: Message) -> str:
    if isinstance(message, ToolResultMessage):
        return f"Result of the tool {message.name}"
    return "Assistant" if isinstance(message, AssistantMessage) else "User"


def _text(message: Message) -> str:
    if isinstance(message, UserMessage):
        return "\n".join(part.text for part in _parts(message) if isinstance(part, Text))
    return message.text
