from __future__ import annotations

import asyncio
import threading

import pytest

from openclaw_kernel.api import Completed, ProviderError, ProviderErrorKind, Secret
from openclaw_kernel.api.remote import ModelCost, OpenedOnce, ServedModel, ServerFaults, ServerSettings


class Silence(Exception):
    """What a library raises for a timeout."""


class Loss(Exception):
    """What it raises for a connection that is gone."""


SETTINGS = ServerSettings.model_validate({"apiKey": "sk-precious", "headers": {"X-Team": "blue-team"}, "timeoutSeconds": 3})


@pytest.fixture
def faults() -> ServerFaults:
    return ServerFaults("mine", SETTINGS, "http://bob:hunter22@host/v1", address="the address of the API")


def raised(faults: ServerFaults, error: Exception) -> ProviderError:
    with pytest.raises(ProviderError) as found, faults.reported("m", silent=Silence, unconnected=Loss):
        raise error
    assert found.value.__cause__ is error
    assert (found.value.provider, found.value.model) == ("mine", "m")
    return found.value


def test_silence_names_the_setting_that_bounds_it(faults: ServerFaults) -> None:
    error = raised(faults, Silence())
    assert (error.kind, error.message) == (
        ProviderErrorKind.TIMEOUT,
        "http://host/v1 was silent for 3 s (models.providers.mine.timeoutSeconds)",
    )


def test_a_lost_connection_names_the_cause_and_what_to_check(faults: ServerFaults) -> None:
    error = raised(faults, Loss("refused"))
    assert (error.kind, error.message) == (
        ProviderErrorKind.NETWORK,
        "no connection to http://host/v1 (refused); check models.providers.mine.baseUrl and the network",
    )


@pytest.mark.parametrize("error", [AttributeError("x"), KeyError("x"), TypeError("x"), ValueError("x")])
def test_a_stream_of_another_form_says_where_the_address_is_set(faults: ServerFaults, error: Exception) -> None:
    told = raised(faults, error)
    assert told.kind is ProviderErrorKind.UNAVAILABLE
    assert told.message.endswith("; check that models.providers.mine.baseUrl is the address of the API")


def test_what_the_caller_reported_itself_passes(faults: ServerFaults) -> None:
    own = faults.error(ProviderErrorKind.REFUSAL, "no", "m")
    with pytest.raises(ProviderError) as found, faults.reported("m", silent=Silence, unconnected=Loss):
        raise own
    assert found.value is own


def test_no_secret_of_the_settings_is_passed_on(faults: ServerFaults) -> None:
    faults.token = Secret("of-the-login")
    said = "sk-precious blue-team hunter22 of-the-login"
    assert faults.error(ProviderErrorKind.AUTH, said, None, 1.5).message == "<secret> <secret> <secret> <secret>"
    assert faults.error(ProviderErrorKind.AUTH, said, None, 1.5).retry_after == 1.5


def test_no_part_of_a_secret_is_left_where_what_a_server_said_is_cut(faults: ServerFaults) -> None:
    for before in range(385, 401):
        assert "sk-p" not in faults.told("x" * before + " sk-precious, it said")


def test_an_answer_that_broke_off_is_no_answer(faults: ServerFaults) -> None:
    end = Completed(stop_reason="stop")
    assert faults.whole(end, "m", has_begun=True) is end
    with pytest.raises(ProviderError, match="ended the answer before it was complete") as broken:
        faults.whole(None, "m", has_begun=True)
    assert broken.value.kind is ProviderErrorKind.NETWORK
    with pytest.raises(ProviderError, match="without a single piece of an answer") as nothing:
        faults.whole(None, "m", has_begun=False)
    assert nothing.value.kind is ProviderErrorKind.UNAVAILABLE


def test_a_model_without_a_price_has_the_servers() -> None:
    model = ServedModel(id="m", cost=ModelCost(input=2.0), input=["text", "image"])
    paid, free = model.info("mine"), model.info("mine", price=0.0)
    assert (paid.ref, paid.name, paid.images, paid.input_price, paid.output_price) == ("mine/m", "m", True, 2.0, None)
    assert (free.input_price, free.output_price, free.cache_read_price) == (2.0, 0.0, 0.0)


class Client:
    """Counts how often it is closed, and tells in which thread it was made."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


async def test_a_client_is_made_once_off_the_loop_and_closed_once() -> None:
    opened = OpenedOnce(Client)
    await opened.close()
    one, other = await asyncio.gather(opened.get(), opened.get())
    assert one is other
    assert one.thread != threading.get_ident()
    await opened.close()
    await opened.close()
    assert one.closed == 1
    assert await opened.get() is not one
