"""Plugins are found without importing them, and what is wrong with one is said in a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from openclaw_kernel.api import API_VERSION
from openclaw_kernel.host.discovery import Found, discover
from openclaw_kernel.host.loader import load_driver
from openclaw_kernel.host.manifest import API_VERSIONS
from openclaw_kernel.store.sqlite import SqliteStore
from tests.kernel.host.distributions import Distributions

BOOM = "raise AssertionError('imported')"


def found(plugin_id: str) -> Found:
    return next(plugin for plugin in discover().plugins if plugin.id == plugin_id)


def test_a_plugin_is_found_without_being_imported(distributions: Distributions) -> None:
    package = distributions.add("bells", BOOM, kind="channel", version="2.5", manifest='after = ["conversation"]')
    bells = found("bells")
    assert (bells.kind, bells.distribution, bells.version, bells.bundled) == ("channel", "acme-bells", "2.5", False)
    assert (bells.state, bells.reason, bells.package, bells.section) == ("discovered", None, package, "channels.bells")
    assert bells.manifest is not None
    assert bells.manifest.after == ["conversation"]
    assert package not in sys.modules


def test_the_bundled_plugins_are_found_through_the_same_door() -> None:
    echo = found("echo")
    assert (echo.kind, echo.bundled, echo.section) == ("provider", True, "models.providers")


def test_a_module_without_a_package_is_found(distributions: Distributions) -> None:
    (distributions.folder / "lonely.py").write_text(BOOM)
    (distributions.folder / "lonely.toml").write_text('api = 1\nid = "lonely"\nsummary = "x"\n')
    distributions.add_entry_point("acme-lonely", "openclaw.plugins", "lonely", "lonely:ThePlugin")
    assert (found("lonely").state, found("lonely").package) == ("discovered", "lonely")


def test_a_namespace_package_over_two_folders_is_found(
    distributions: Distributions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    for folder, name in ((distributions.folder, "one"), (other, "two")):
        package = folder / "acme_space" / name
        package.mkdir(parents=True)
        (package / "plugin.py").write_text(BOOM)
        (package / "plugin.toml").write_text(f'api = 1\nid = "{name}"\nsummary = "x"\n')
        distributions.add_entry_point(f"acme-{name}", "openclaw.plugins", name, f"acme_space.{name}.plugin:ThePlugin")
    monkeypatch.syspath_prepend(str(other))
    assert [found(name).state for name in ("one", "two")] == ["discovered", "discovered"]


MANIFESTS = {
    "no manifest": (None, "plugin.toml: there is no manifest; add it and make the build include it"),
    "no toml": ("after = [", "not valid TOML"),
    "unknown key": ('afters = ["x"]', "plugin.toml: afters: unknown key 'afters'; did you mean 'after'?"),
    "unknown key below": ('[provider]\napi = ["x"]', "provider.api: unknown key 'api'; did you mean 'apis'?"),
    "wrong type": ("after = 3", "after: found int; input should be a valid list"),
    "wrong word": ('[reload]\n"channels.x" = "warm"', "found 'warm'; input should be 'none', 'hot', 'unit' or 'process'"),
    "missing key": ('[[needs]]\nmodule = "x"', "needs.0.install: missing; add it"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_wrong_manifest_names_file_key_and_cure(case: str, distributions: Distributions) -> None:
    manifest, reason = MANIFESTS[case]
    distributions.add("wrong", BOOM, manifest=manifest)
    assert found("wrong").state == "failed"
    assert reason in (found("wrong").reason or "")


def test_a_manifest_nested_beyond_all_measure_is_refused(distributions: Distributions) -> None:
    distributions.add("wrong", BOOM, manifest=f"x = {'[' * 5000}{']' * 5000}")
    assert "nested too deep" in (found("wrong").reason or "")


def test_an_id_of_the_kernels_own_is_refused(distributions: Distributions) -> None:
    distributions.add("kernel", BOOM)
    assert "the id 'kernel' is the gateway's own; choose another" in (found("kernel").reason or "")


@pytest.mark.parametrize("metadata", [b"", b"\xff\xfe\x00", b"Metadata-Version: 2.1\n", None], ids=["empty", "binary", "nameless", "gone"])
def test_a_distribution_with_broken_metadata_fails_alone(metadata: bytes | None, good: Distributions) -> None:
    good.add("bad", BOOM, distribution="acme-bad")
    path = good.folder / "acme_bad-1.0.dist-info" / "METADATA"
    path.unlink() if metadata is None else path.write_bytes(metadata)
    assert found("bad").state == "failed"
    assert f"in {good.folder}" in (found("bad").reason or "")
    assert "reinstall it" in (found("bad").reason or "")
    assert found("good").state == "discovered"


BROKEN_ENTRY_POINTS = {
    "binary": b"\xff\xfe[openclaw.plugins]\n",
    "of others, without a value": b"[console_scripts]\nfoo\n",
    "without a group": b"foo = bar\n",
}


@pytest.mark.parametrize("case", BROKEN_ENTRY_POINTS)
def test_a_distribution_with_broken_entry_points_spoils_no_other(case: str, good: Distributions) -> None:
    info = good.folder / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_bytes(BROKEN_ENTRY_POINTS[case])
    assert found("good").state == "discovered"
    assert load_driver("openclaw.stores", "sqlite") is SqliteStore
    # Named only where it may have concerned a plugin.
    assert any(str(good.folder) in problem for problem in discover().problems) == (case == "binary")


@pytest.mark.parametrize("value", ["!!not valid", "", ":Class"])
def test_an_entry_point_that_cannot_be_read_is_named(value: str, distributions: Distributions) -> None:
    distributions.add_entry_point("acme-odd", "openclaw.plugins", "odd", value)
    assert "is not written as 'package.plugin:Class'; correct it" in (found("odd").reason or "")
    assert found("odd").package is not None


def test_an_id_that_cannot_be_one_is_a_problem_and_no_plugin(distributions: Distributions) -> None:
    distributions.add_entry_point("acme-odd", "openclaw.plugins", "F\u00f6\u00f6 bar", "x:Y")
    (problem,) = discover().problems
    assert "acme-odd: the plugin id 'F\u00f6\u00f6 bar' is not usable" in problem


def replace_manifest(distributions: Distributions, old: str, new: str) -> str:
    package = distributions.add("wrong", BOOM)
    path = distributions.folder / package / "plugin.toml"
    path.write_text(path.read_text().replace(old, new))
    return found("wrong").reason or ""


def test_a_manifest_of_another_id_is_refused(distributions: Distributions) -> None:
    reason = replace_manifest(distributions, 'id = "wrong"', 'id = "right"')
    assert "id is 'right', the entry point is named 'wrong'; make them equal" in reason


def test_a_manifest_for_a_later_api_is_refused(distributions: Distributions) -> None:
    reason = replace_manifest(distributions, "api = 1", "api = 2")
    assert "api is 2, this kernel offers 1; install a matching version" in reason


def test_the_api_version_is_one_of_those_offered() -> None:
    assert API_VERSION in API_VERSIONS


def test_an_entry_point_without_its_module_is_named(distributions: Distributions) -> None:
    distributions.add_entry_point("acme-gone", "openclaw.plugins", "gone", "acme_gone.plugin:ThePlugin")
    assert "there is no module 'acme_gone.plugin'; reinstall the plugin" in (found("gone").reason or "")


def test_an_entry_point_that_names_a_module_is_refused(distributions: Distributions) -> None:
    distributions.add_entry_point("acme-mod", "openclaw.plugins", "mod", "json")
    assert "name a class: 'package.plugin:Class'" in (found("mod").reason or "")


def test_a_missing_need_makes_it_unavailable_with_the_line_that_helps(distributions: Distributions) -> None:
    distributions.add(
        "needy",
        BOOM,
        manifest="""
        [[needs]]
        module = "json.decoder"
        install = "never-asked"
        [[needs]]
        module = "no_such_module.below"
        install = "openclaw-kernel[telegram]"
        [[needs]]
        module = "no_such_module"
        install = "openclaw-kernel[telegram]"
        """,
    )
    needy = found("needy")
    assert f"{needy.state}: {needy.reason}" == 'unavailable: pip install "openclaw-kernel[telegram]"'


def test_two_strangers_with_one_id_are_both_refused_by_name(distributions: Distributions) -> None:
    distributions.add("twin", BOOM, distribution="acme-twin")
    distributions.add("twin", BOOM, distribution="umbrella-twin", kind="channel", version="3.0")
    discovery = discover()
    (twin,) = [plugin for plugin in discovery.plugins if plugin.id == "twin"]
    assert twin.state == "failed"
    for text in (twin.reason, *discovery.problems):
        assert "acme-twin 1.0" in (text or "")
        assert "umbrella-twin 3.0" in (text or "")


def test_a_bundled_plugin_wins_over_a_stranger_of_its_id(distributions: Distributions) -> None:
    distributions.add("echo", BOOM, distribution="acme-echo")
    discovery = discover()
    assert [plugin.distribution for plugin in discovery.plugins if plugin.id == "echo"] == ["openclaw-kernel"]
    (problem,) = discovery.problems
    assert "acme-echo 1.0; the bundled one is used, uninstall acme-echo" in problem


def test_a_plugin_installed_a_moment_ago_is_found(distributions: Distributions) -> None:
    discover()
    distributions.add("fresh", BOOM)
    assert found("fresh").state == "discovered"


def test_listing_plugins_imports_neither_pluggy_nor_stevedore_nor_aiohttp() -> None:
    script = (
        "import sys; from openclaw_kernel.host.discovery import discover; discover();"
        "print([name for name in ('pluggy', 'stevedore', 'aiohttp', 'openclaw_plugins', 'openclaw_channels') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
