"""The bundled web tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from openclaw_kernel.api import PluginContext, Registrar, RetryClass, Tool, ToolContext, ToolResult, hookimpl
from openclaw_plugins.web_tools.settings import FetchParams, WebToolsSettings

if TYPE_CHECKING:
    from openclaw_plugins.web_tools.runtime import Fetcher


class WebToolsPlugin:
    """Registers the tool `fetch`; the client is loaded with its first call."""

    settings: ClassVar[type[BaseModel] | None] = WebToolsSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._fetcher: Fetcher | None = None

    @hookimpl
    def openclaw_register_tools(self, registrar: Registrar) -> None:
        settings = self._context.settings(WebToolsSettings)
        registrar.add_tool(
            Tool(
                name="fetch",
                label="Fetch",
                description="Read a public web page and return its text.",
                params=FetchParams,
                run=self._fetch,
                retry_class=RetryClass.PURE,
                # The fetch's own deadline comes first; this one covers making the page text.
                timeout_seconds=settings.timeout_seconds + 5,
                group="web",
            )
        )

    async def _fetch(self, context: ToolContext, params: FetchParams) -> ToolResult:
        if self._fetcher is None:
            from openclaw_plugins.web_tools.runtime import Fetcher

            self._fetcher = Fetcher(self._context.settings(WebToolsSettings))
        return await self._fetcher.run(context, params)
