"""The state folder and what a first start writes into it."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import Final

from openclaw_config.source import FILE_NAME

ENVIRONMENT_KEY: Final = "OPENCLAW_KERNEL_HOME"
TOKEN_FILE: Final = "gateway.token"  # noqa: S105 - a file name

_OF_FILE_SYSTEMS: Final = frozenset({"lost+found"})

DEFAULT_FILE: Final = """\
# yaml-language-server: $schema=./openclaw.schema.json
# openclaw-kernel: one file, read at start. Keys carry the reference gateway's names; an unknown key is refused by name.
# Secrets can stay out of this file: ${env:NAME} reads a variable, ${file:PATH} a file (relative to this folder),
# ${keyring:SERVICE/NAME} the system's keyring, ${exec:/PATH/OF/PROGRAM ARGUMENTS} what a program writes.

gateway:
  port: 18789                 # one port for HTTP and WebSocket
  bind: loopback              # loopback: this machine only; lan: every address
  auth:
    mode: token               # token, password or none
    token: ${file:gateway.token}

# Model providers. The first that is ready answers; agents.defaults.model picks another: openai/gpt-5-mini
models:
  providers:
    local: {}                 # a small model on this machine: no key, no account
    # openai:                 # any OpenAI-compatible server: baseUrl
    #   apiKey: ${env:OPENAI_API_KEY}
    # anthropic:
    #   apiKey: ${env:ANTHROPIC_API_KEY}
    # claude-cli: {}          # the claude command, with its own login
    # ollama: {}              # a local Ollama

# Chat apps. A channel runs when its section is here.
channels:
  # telegram:
  #   botToken: ${env:TELEGRAM_BOT_TOKEN}
  #   dmPolicy: allowlist     # who may write: allowlist, open (with allowFrom: ["*"]) or disabled
  #   allowFrom: [123456789]  # numeric ids; a stranger is told its own

# Agents. None listed means one agent, `main`, with its files in workspace/main.
agents:
  defaults:
    timeoutSeconds: 600
    # model: local/smollm2-135m-instruct
  # entries:
  #   main: {default: true}
  #   research: {model: anthropic/claude-sonnet-4-5}
"""


def find_home(option: str | None = None) -> Path:
    """The state folder: `--home`, else `OPENCLAW_KERNEL_HOME`, else `~/.openclaw-kernel`; absolute."""
    chosen = option or os.environ.get(ENVIRONMENT_KEY) or "~/.openclaw-kernel"
    return Path(chosen).expanduser().absolute()


def config_path(home: Path) -> Path:
    """Where the config file lies."""
    return home / FILE_NAME


def prepare_home(home: Path, *, may_begin: bool = True) -> bool:
    """Make the folder private; on the first start write the commented config and a random token. Tell whether it was the first.

    With `may_begin` false there was a start before, whatever files are missing now: none is written.
    Raise `OSError` where the folder cannot be used: not writable, no folder, or open to others and full of other files.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home.stat().st_mode & 0o077:
        names = {item.name for item in home.iterdir()}
        if not names & {FILE_NAME, TOKEN_FILE} and names - _OF_FILE_SYSTEMS:
            # Somebody's home or /tmp, named by mistake: making that private would lock others out.
            raise OSError(errno.ENOTEMPTY, f"it holds other files and no {FILE_NAME}", str(home))
        home.chmod(0o700)
    path = config_path(home)
    if path.exists() or not may_begin:
        return False
    token = home / TOKEN_FILE
    if not token.exists():
        _write_private(token, secrets.token_urlsafe(32) + "\n")
    _write_private(path, DEFAULT_FILE)
    return True


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
