"""Asks the model, in a gateway that runs in this process."""

from openclaw_kernel.api import Providers
from openclaw_kernel.testing import StartGateway


async def test_it_says_everything_twice(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({"models": {"providers": {"parrot": {"word": "&"}}}}) as gateway:
        assert await gateway.ask("hello") == "hello & hello"


async def test_the_default_is_the_first_provider_that_can_answer(openclaw_gateway: StartGateway) -> None:
    providers = {"parrot": {"mood": "sulking"}, "second": {"api": "parrot"}}
    async with openclaw_gateway({"models": {"providers": providers}}) as gateway:
        assert gateway.service(Providers).problem("parrot") == "models.providers.parrot.mood: it is sulking; remove it"
        assert gateway.service(Providers).models()[0].ref == "second/grey"
        assert await gateway.ask("hello") == "hello and hello"
