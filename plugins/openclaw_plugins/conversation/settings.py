"""Settings of the conversation plugin: `plugins.entries.conversation.config`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ConversationSettings(BaseModel):
    """How long what is done is kept, and how hard delivery tries."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_alias=True)

    delivery_attempts: Annotated[int, Field(ge=1, le=100)] = 12
    """How often a message is offered to a channel that is up but cannot send it, before it is given up."""
    delivery_first_delay_seconds: Annotated[float, Field(gt=0, le=600)] = 1.0
    """Wait before the second attempt; doubles with each further one."""
    delivery_longest_delay_seconds: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """Longest wait between two attempts."""
    delivery_expiry_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """Age at which an unsent message is given up, also while its channel is down."""
    ledger_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long finished messages stay in the ledger, and with them the recognition of repeats, their runs and their usage."""
