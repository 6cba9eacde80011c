"""Each plugin gets its own part of the config, checked by its own model; what is wrong is said by key path and cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openclaw_kernel.api import PluginState
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import Hosting

MakeHosting = Callable[..., Hosting]

SETTINGS = """
from pydantic import ConfigDict, Field
from typing import Literal

class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = 1

class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    bot_token: Secret = Field(default=Secret("x"), alias="botToken")
    color: Literal["red", "blue"] = "red"
    accounts: dict[str, Inner] = {}
    size: int = Field(default=1, ge=1)

class ThePlugin:
    settings = Settings

    def __init__(self, context):
        self.context = context
        self.got = context.settings(Settings)

    @hookimpl
    def openclaw_register_services(self, registrar):
        registrar.provide(Settings, self.got)
"""

PROVIDER = """
from pydantic import ConfigDict

class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    {field}

class OneProvider:
    label = "One"

    def __init__(self, id, settings):
        self.id = id
        self.settings = settings

    async def start(self): pass
    async def stop(self): pass
    def models(self):
        return [ModelInfo(id="m", provider=self.id, name="m")]
    async def stream(self, request):
        yield Completed(stop_reason="stop")
    def problem(self): return None

class ThePlugin:
    settings = Settings

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_providers(self, registrar):
        for id, settings in self.context.instances(Settings).items():
            registrar.add_provider(OneProvider(id, settings))
"""

WRONG: dict[str, dict[str, Any]] = {
    "channels.bot.botTokn: unknown key 'botTokn'; did you mean 'botToken'?": {"botTokn": "x"},
    "channels.bot.zzz: unknown key 'zzz'; use one of: accounts, botToken, color, size": {"zzz": "x"},
    "channels.bot.accounts.a.dept: unknown key 'dept'; did you mean 'depth'?": {"accounts": {"a": {"dept": 1}}},
    "channels.bot.color: found 'rd'; input should be 'red' or 'blue'": {"color": "rd"},
    "channels.bot.size: found int; input should be greater than or equal to 1": {"size": 0},
    "channels.bot.botToken: found list; input should be a valid string": {"botToken": ["secret"]},
}


@pytest.mark.parametrize("reason", WRONG)
async def test_a_wrong_section_fails_its_plugin_with_path_and_cure(reason: str, good: Distributions, hosting: MakeHosting) -> None:
    good.add("bot", SETTINGS, kind="channel")
    running = hosting({"channels": {"good": {}, "bot": WRONG[reason]}})
    await running.run()
    assert running.state("bot") is PluginState.FAILED
    assert reason in running.reason("bot")
    assert "secret" not in running.reason("bot")
    await running.check_good()


async def test_a_plugin_gets_its_validated_section(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bot", SETTINGS, kind="channel")
    running = hosting({"channels": {"good": {}, "bot": {"enabled": True, "color": "blue"}}})
    await running.run()
    (settings,) = [owned.item for kind, owned in running.host.registry.services.items() if kind.__name__ == "Settings"]
    assert settings.color == "blue"  # type: ignore[attr-defined]
    assert running.host.settings_schemas()["bot"]["properties"]["color"]["type"] == "string"


async def test_a_model_that_cannot_be_described_leaves_the_others_described(good: Distributions, hosting: MakeHosting) -> None:
    broken = SETTINGS.replace(
        "class Settings(BaseModel):",
        """class Settings(BaseModel):
    @classmethod
    def model_json_schema(cls, **_options):
        raise KeyError("no schema")
""",
    )
    assert broken != SETTINGS
    good.add("bot", SETTINGS, kind="channel")
    good.add("odd", broken, kind="channel")
    running = hosting({"channels": {"good": {}, "bot": {}, "odd": {}}})
    await running.run()
    schemas = running.host.settings_schemas()
    assert schemas["odd"] == {"type": "object"}
    assert "color" in schemas["bot"]["properties"]


async def test_asking_for_another_model_is_a_fault_of_the_plugin(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bot", SETTINGS.replace("context.settings(Settings)", "context.settings(Inner)"), kind="channel")
    running = hosting({"channels": {"good": {}, "bot": {}}})
    await running.run()
    assert "ask for the class named in the plugin's 'settings'" in running.reason("bot")


async def test_a_section_of_a_plugin_without_settings_must_be_empty(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting({"channels": {"good": {"color": "red"}}})
    await running.run()
    assert running.reason("good") == "channels.good: the plugin takes no settings; remove the section's keys"


DISABLED: dict[str, dict[str, Any]] = {
    "there is no section channels.bot": {"channels": {"good": {}}},
    "channels.bot.enabled is false": {"channels": {"good": {}, "bot": {"enabled": False}}},
    "plugins.entries.bot.enabled is false": {
        "channels": {"good": {}, "bot": {}},
        "plugins": {"entries": {"bot": {"enabled": False}}},
    },
}


@pytest.mark.parametrize("reason", DISABLED)
async def test_a_disabled_plugin_is_never_imported(reason: str, good: Distributions, hosting: MakeHosting) -> None:
    good.add("bot", "raise AssertionError('imported')", kind="channel")
    running = hosting(DISABLED[reason])
    await running.run()
    assert (running.state("bot"), running.reason("bot")) == (PluginState.DISABLED, reason)
    assert running.host.problems() == []
    await running.check_good()


async def test_all_strangers_are_disabled_at_once(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting({"plugins": {"enabled": False}})
    await running.run()
    assert (running.state("good"), running.reason("good")) == (PluginState.DISABLED, "plugins.enabled is false")


PARTS_OF_NOBODY: dict[str, dict[str, Any]] = {
    "channels.goood: no channel plugin 'goood' is installed; did you mean 'good'?": {"channels": {"goood": {}}},
    "plugins.entries.goodd: no plugin 'goodd' is installed; did you mean 'good'?": {"plugins": {"entries": {"goodd": {}}}},
    "models.providers.foo: no plugin provides api 'bar'; installed: one": {"models": {"providers": {"foo": {"api": "bar"}}}},
    "models.providers.foo: no provider plugin is for this id; name one with 'api'; installed: one": {"models": {"providers": {"foo": {}}}},
}


@pytest.mark.parametrize("problem", PARTS_OF_NOBODY)
async def test_a_part_of_the_config_nobody_owns_is_a_problem(problem: str, good: Distributions, hosting: MakeHosting) -> None:
    good.add("one", PROVIDER.format(field="size: int = 1"), kind="provider")
    running = hosting(PARTS_OF_NOBODY[problem])
    await running.run()
    assert running.host.problems() == [problem]


CLAIMS = """
[provider]
apis = ["one-completions"]
ids = ["two"]
"""


async def test_provider_entries_are_given_by_api_else_by_id(good: Distributions, hosting: MakeHosting) -> None:
    good.add("one", PROVIDER.format(field="size: int = 1"), kind="provider", manifest=CLAIMS)
    entries = {"one": {}, "two": {}, "three": {"api": "one"}, "four": {"api": "one-completions", "size": 4}}
    running = hosting({"channels": {"good": {}}, "models": {"providers": entries}})
    await running.run()
    assert list(running.host.providers.ids()) == ["one", "two", "three", "four"]
    assert running.host.problems() == []


async def test_a_settings_model_that_declares_api_sees_it(good: Distributions, hosting: MakeHosting) -> None:
    good.add("one", PROVIDER.format(field="api: str"), kind="provider")
    running = hosting({"models": {"providers": {"x": {"api": "one"}}}})
    await running.run()
    provider: Any = running.host.registry.providers["x"].item
    assert provider.settings.api == "one"


async def test_one_wrong_entry_leaves_the_others_at_work(good: Distributions, hosting: MakeHosting) -> None:
    good.add("one", PROVIDER.format(field="size: int = 1"), kind="provider")
    running = hosting({"channels": {"good": {}}, "models": {"providers": {"one": {}, "bad": {"api": "one", "sise": 1}}}})
    await running.run()
    assert list(running.host.providers.ids()) == ["one"]
    assert running.state("one") is PluginState.DEGRADED
    assert running.reason("one") == "models.providers.bad.sise: unknown key 'sise'; did you mean 'size'?"
    await running.check_good()


async def test_a_provider_with_only_wrong_entries_fails(good: Distributions, hosting: MakeHosting) -> None:
    good.add("one", PROVIDER.format(field="size: int = 1"), kind="provider")
    running = hosting({"channels": {"good": {}}, "models": {"providers": {"one": {"size": "big"}}}})
    await running.run()
    assert running.state("one") is PluginState.FAILED
    assert "models.providers.one.size: found str; input should be a valid integer" in running.reason("one")
    await running.check_good()


async def test_a_plugin_that_is_wanted_and_unavailable_is_a_problem(good: Distributions, hosting: MakeHosting) -> None:
    need = '[[needs]]\nmodule = "no_such_module"\ninstall = "openclaw-kernel[telegram]"'
    good.add("bot", "raise AssertionError('imported')", kind="channel", manifest=need)
    running = hosting({"channels": {"good": {}, "bot": {}}})
    await running.run()
    line = "plugin 'bot' is unavailable: pip install \"openclaw-kernel[telegram]\""
    assert running.host.problems() == [line]
    assert running.state("bot") is PluginState.UNAVAILABLE
    await running.check_good()
