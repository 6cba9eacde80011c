"""A policy: at night no message starts a turn."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from openclaw_kernel.api import Admission, ConfigChange, InboundMessage, PluginContext, Route, Verdict, hookimpl


class CurfewSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    begins: int = Field(default=22, ge=0, le=23)
    """Hour (UTC) from which nobody is answered."""
    ends: int = Field(default=7, ge=0, le=24)
    """Hour (UTC) from which people are answered again."""


class CurfewPlugin:
    settings: ClassVar[type[BaseModel] | None] = CurfewSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._hours = context.settings(CurfewSettings)

    async def reload(self, change: ConfigChange) -> None:
        self._hours = self._context.settings(CurfewSettings)

    @hookimpl
    def openclaw_decide_admission(self, message: InboundMessage, route: Route) -> Admission | None:
        if not self._is_night():
            # Not ours to decide: the next plugin is asked, at last the bundled one.
            return None
        hint = f"good night; ask again after {self._hours.ends}:00 UTC"
        return Admission(verdict=Verdict.HINT, reason="the curfew", hint=hint)

    def _is_night(self) -> bool:
        hour = datetime.fromtimestamp(self._context.now_ms() / 1000, UTC).hour
        begins, ends = self._hours.begins, self._hours.ends
        return begins <= hour < ends if begins <= ends else hour >= begins or hour < ends
