"""The settings of one instance, `models.providers.<id>`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from openclaw_kernel.api import ModelInfo, PluginSettings, RetryClass, Secret


class ClaudeCliModel(PluginSettings):
    id: str
    """An alias of the program (`sonnet`, `opus`, `haiku`) or a model's full name."""
    name: str | None = None
    """Display name."""
    context_window: Annotated[int, Field(ge=1)] | None = None
    """Tokens of prompt and answer together; the program shortens its conversation by itself."""


class ClaudeCliSettings(PluginSettings):
    api: Literal["claude-cli"] = "claude-cli"
    """Names the provider plugin where the id does not."""
    command: str = "claude"
    """The program: a name on the PATH or an absolute path."""
    api_key: Secret | None = None
    """An Anthropic key; unset uses the login of the user whom the gateway runs as."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """Another URL of the Anthropic API, without `/v1`."""
    config_dir: str | None = None
    """Folder of the program's own settings and conversations; unset is the user's, or the gateway's with `apiKey`."""
    models: list[ClaudeCliModel] = []
    """The models to offer, the first being the default; none means sonnet, opus and haiku."""
    tools: list[str] = []
    """The program's own tools it may use without asking, such as `Read` or `Bash(git *)`; none by default."""
    customizations: bool = False
    """Let the program load the user's and the workspace's hooks, plugins, MCP servers and CLAUDE.md."""
    environment: list[str] = []
    """Names of further environment variables to pass on; by default only a fixed list of harmless ones is."""
    silence_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300
    """The program is ended where it says nothing for so long."""


KNOWN_MODELS: Final = (
    ClaudeCliModel(id="sonnet", name="Claude Sonnet (command line)", contextWindow=200_000),
    ClaudeCliModel(id="opus", name="Claude Opus (command line)", contextWindow=200_000),
    ClaudeCliModel(id="haiku", name="Claude Haiku (command line)", contextWindow=200_000),
)


def model_info(provider: str, model: ClaudeCliModel) -> ModelInfo:
    """Return what the gateway is told of a model; its tools are the program's own, its cost is told by each answer."""
    return ModelInfo(
        id=model.id,
        provider=provider,
        name=model.name or model.id,
        context_window=model.context_window,
        reasoning=True,
        tools=False,
        images=True,
        # The program runs its own tools.
        retry_class=RetryClass.SIDE_EFFECTING,
    )
