"""Drivers are loaded by name from their entry-point group."""

from __future__ import annotations

import pytest

from openclaw_kernel.host.loader import LoadFailed, load_driver
from openclaw_kernel.store.sqlite import SqliteStore
from tests.kernel.host.distributions import Distributions


def test_the_embedded_store_is_a_driver_as_any_other() -> None:
    assert load_driver("openclaw.stores", "sqlite") is SqliteStore


def test_a_driver_of_another_distribution_is_found(distributions: Distributions) -> None:
    package = distributions.add("memory", "class ThePlugin: pass")
    distributions.add_entry_point("acme-memory", "openclaw.stores", "memory", f"{package}.plugin:ThePlugin")
    assert load_driver("openclaw.stores", "memory").__name__ == "ThePlugin"


def test_a_driver_nobody_offers_is_named() -> None:
    with pytest.raises(LoadFailed, match=r"no driver 'redis' in openclaw.stores; install the distribution that offers it"):
        load_driver("openclaw.stores", "redis")


def test_a_driver_two_offer_is_refused(distributions: Distributions) -> None:
    for name in ("one", "two"):
        package = distributions.add(name, "class ThePlugin: pass")
        distributions.add_entry_point(f"acme-{name}", "openclaw.stores", "twice", f"{package}.plugin:ThePlugin")
    with pytest.raises(LoadFailed, match="several distributions offer 'twice'"):
        load_driver("openclaw.stores", "twice")
