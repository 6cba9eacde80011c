"""Code of a plugin is imported anew beside the old, and what keeps that from being honest is found and named."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

from openclaw_kernel.host.code import FreshCode, forget, loaded_of, why_restart
from openclaw_kernel.host.discovery import Found, discover
from tests.kernel.host.distributions import Distributions

PLUGIN = """
from . import parts
from .parts import Part

class ThePlugin:
    settings = None
    word = "one"

    def __init__(self, context):
        self.parts = parts
"""


@pytest.fixture
def found(distributions: Distributions) -> Found:
    """A plugin of two modules, installed and not imported."""
    package = distributions.add("parted", PLUGIN)
    (distributions.folder / package / "parts.py").write_text("class Part:\n    pass\n", encoding="utf-8")
    return next(found for found in discover().plugins if found.id == "parted")


@pytest.fixture
def outside() -> Iterator[ModuleType]:
    """A module of somebody else."""
    module = sys.modules["acme_somebody"] = ModuleType("acme_somebody")
    yield module
    del sys.modules["acme_somebody"]


def source(found: Found) -> Path:
    """The file of its class."""
    return Path(str(sys.modules[f"{found.package}.plugin"].__file__))


def test_fresh_code_is_what_is_on_disk_and_the_old_goes_on(found: Found) -> None:
    old = FreshCode(found.package).load(found)
    file = source(found)
    # Of the same length and in the same second: what was compiled is not believed.
    file.write_text(file.read_text().replace('"one"', '"two"'))

    new = FreshCode(found.package)
    fresh = new.load(found)
    new.keep()

    assert (old.word, fresh.word) == ("one", "two")
    assert sys.modules[f"{found.package}.plugin"].ThePlugin is fresh


def test_what_is_dropped_leaves_the_old_modules_in_their_place(found: Found) -> None:
    old = FreshCode(found.package).load(found)
    before = loaded_of(found.package)
    source(found).write_text("raise ValueError('no')\n")

    new = FreshCode(found.package)
    with pytest.raises(ValueError, match="no"):
        new.load(found)
    new.drop()

    assert loaded_of(found.package) == before
    assert sys.modules[f"{found.package}.plugin"].ThePlugin is old


def test_a_package_that_is_gone_is_forgotten(found: Found) -> None:
    FreshCode(found.package).load(found)
    forget(found.package)
    assert loaded_of(found.package) == {}


def test_nothing_keeps_ordinary_code_from_being_replaced(found: Found) -> None:
    plugin = FreshCode(found.package).load(found)(None)
    assert plugin.parts is sys.modules[f"{found.package}.parts"]
    assert why_restart(found) is None


@pytest.mark.parametrize("what", ["module", "class"])
def test_a_module_that_holds_something_of_it_is_named(found: Found, outside: ModuleType, what: str) -> None:
    FreshCode(found.package).load(found)
    parts = sys.modules[f"{found.package}.parts"]
    outside.__dict__["borrowed"] = parts if what == "module" else parts.Part

    assert why_restart(found) == f"the module acme_somebody holds {parts.__name__}{'' if what == 'module' else '.Part'} as borrowed"


def test_an_object_that_holds_a_module_of_it_is_named(found: Found, outside: ModuleType) -> None:
    FreshCode(found.package).load(found)
    holder = type("Holder", (), {"__module__": "acme_somebody", "__slots__": ("held",)})()
    holder.held = sys.modules[f"{found.package}.parts"]

    assert why_restart(found) == "a acme_somebody.Holder holds a module of it"


def test_a_c_extension_is_named(found: Found, distributions: Distributions) -> None:
    compiled = next(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob(f"_heapq*{EXTENSION_SUFFIXES[0]}"), None)
    if compiled is None:
        pytest.skip("this Python has its extensions built in")
    shutil.copy(compiled, distributions.folder / found.package / f"_heapq{EXTENSION_SUFFIXES[0]}")
    init = distributions.folder / found.package / "__init__.py"
    init.write_text("from . import _heapq\n", encoding="utf-8")
    FreshCode(found.package).load(found)

    assert why_restart(found) == f"{found.package}._heapq is a C extension, which cannot be loaded twice"
