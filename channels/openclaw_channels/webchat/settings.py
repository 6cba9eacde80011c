"""Settings of `channels.webchat`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class WebchatSettings(BaseModel):
    """The channel is always there; only the page can be turned off, by `gateway.controlUi.enabled`."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)

    enabled: bool = True
    """False removes the channel and the page."""
