"""A plugin for tests of replacing: it has one of everything, tells what happens to it, and fails where its settings say."""

from __future__ import annotations

DESK = """
from pydantic import ConfigDict

class Params(BaseModel):
    pass

class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str = "one"
    fail: str = ""
    hang: str = ""

class Part:
    def __init__(self, desk, name):
        self.desk, self.name = desk, name

    async def start(self):
        await self.desk.step(f"start {self.name}")

    async def stop(self):
        await self.desk.step(f"stop {self.name}")

class TheChannel(Part):
    id = label = "desk"
    capabilities = ChannelCapabilities()

    async def send(self, message):
        self.desk.say("send")
        await self.desk.context.service(asyncio.Event).wait()
        return Receipt(message_ids=(self.desk.word,))

    async def show_progress(self, progress): pass

    def status(self):
        return []

class ThePlugin:
    settings = Settings

    def __init__(self, context):
        self.context = context
        self.word = context.settings(Settings).word
        self.fail_if("constructor")

    def fail_if(self, what):
        if self.context.settings(Settings).fail == what:
            raise ValueError(f"{what} fails as it was told")

    def say(self, text):
        self.context.service(list).append(f"{self.word}: {text}")

    async def step(self, what):
        self.say(what)
        if self.context.settings(Settings).hang == what:
            await asyncio.Event().wait()
        self.fail_if(what)

    async def reload(self, change):
        self.say(f"reload {','.join(change.paths)} to {self.context.settings(Settings).word}")
        self.fail_if("reload")

    async def answer(self, context, params):
        self.say("tool")
        await self.context.service(asyncio.Event).wait()
        return ToolResult(text=self.word)

    @hookimpl
    def openclaw_register_services(self, registrar):
        registrar.add_unit(Part(self, "unit"))
        self.fail_if("services hook")

    @hookimpl
    def openclaw_register_channels(self, registrar):
        registrar.add_channel(TheChannel(self, "channel"))

    @hookimpl
    def openclaw_register_tools(self, registrar):
        registrar.add_tool(Tool(name="answer", label="Answer", description="Answers.", params=Params, run=self.answer,
                                retry_class=RetryClass.PURE, timeout_seconds=5.0))
        self.fail_if("tools hook")
"""


def section(word: str = "one", *, enabled: bool = True, fail: str = "", hang: str = "", **settings: str) -> dict[str, object]:
    """The config of a test with this section of the plugin `desk`."""
    return {"plugins": {"entries": {"desk": {"enabled": enabled, "config": {"word": word, "fail": fail, "hang": hang, **settings}}}}}
