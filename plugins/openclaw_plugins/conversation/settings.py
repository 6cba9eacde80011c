"""Settings of the conversation plugin: `plugins.entries.conversation.config`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

UnknownPolicy: TypeAlias = Literal["notify", "resend", "drop"]
"""`notify`: not sent again, the person is told; `resend`: sent again, it may come twice; `drop`: neither."""
ChannelId: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


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
    unknown_after_send: UnknownPolicy = "notify"
    """What is done with a message of which it is not known whether it arrived (the connection broke, the gateway died): `notify`
    does not send it again and tells the person, `resend` sends it again, so that it may come twice, `drop` leaves it at that."""
    unknown_after_send_by_channel: dict[ChannelId, UnknownPolicy] = {}
    """The same for single channels, by channel id: `{telegram: resend}`."""
    orphan_seconds: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    """Age at which an open message that nothing works on any more is ended, and its sender told. What runs or waits has no such limit."""
    sweep_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 60.0
    """How often it is looked for such messages, and for what is past its time."""
    drain_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0
    """How long turns under way may take to end when the gateway is told to stop; those that do not are taken up by the next start.
    What runs the gateway has to allow it 15 s more before it kills it (systemd: `TimeoutStopSec`, 90 s by default)."""
    ledger_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """How long finished messages stay in the ledger, and with them the recognition of repeats, their runs and their usage."""
