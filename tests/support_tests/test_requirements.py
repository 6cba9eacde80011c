"""A test that cannot run is never silent: it is listed with its reason, and fails a strict session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import requirements

PLUGIN = ("-p", "tests.support.requirements", "-p", "no:cacheprovider")


@pytest.fixture(autouse=True)
def relaxed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from a machine that is not strict and has no ngircd; with no other plugin than the one under test."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("OPENCLAW_TEST_STRICT", raising=False)
    monkeypatch.setitem(requirements.REQUIREMENTS, "ngircd", missing)


def missing() -> Path:
    message = "the program ngircd is missing: install it"
    raise requirements.MissingRequirementError(message)


NEEDS_NGIRCD = """
    import pytest

    @pytest.mark.requires("ngircd")
    def test_irc():
        raise AssertionError("ran")

    def test_other():
        pass
"""


def test_a_test_whose_requirement_is_missing_is_listed_with_its_reason(pytester: pytest.Pytester) -> None:
    module = pytester.makepyfile(NEEDS_NGIRCD)
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.stdout.fnmatch_lines(
        [
            "*not run: 1*",
            f"{module.name}::test_irc: the program ngircd is missing: install it",
            "*1 passed, 1 not run*",
        ]
    )
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize("variable", ["CI", "OPENCLAW_TEST_STRICT"])
def test_a_strict_session_fails_for_one_test_not_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "true")
    pytester.makepyfile(NEEDS_NGIRCD)
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.stdout.fnmatch_lines(["*a test not run fails this session*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_strict_session_in_which_all_ran_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setitem(requirements.REQUIREMENTS, "ngircd", lambda: requirements.TESTS)
    pytester.makepyfile("import pytest\n@pytest.mark.requires('ngircd')\ndef test_irc():\n    pass")
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert "not run" not in result.stdout.str()


@pytest.mark.parametrize(
    "body",
    [
        "import pytest\ndef test_one():\n    pytest.skip('no time')",
        "import pytest\n@pytest.mark.skip(reason='no time')\ndef test_one():\n    pass",
        "import pytest\n@pytest.mark.skipif(True, reason='no time')\ndef test_one():\n    pass",
        "import pytest\npytest.skip('no time', allow_module_level=True)",
        "import unittest\nclass TestOne(unittest.TestCase):\n    def test_one(self):\n        self.skipTest('no time')",
    ],
)
def test_any_other_way_to_skip_counts_as_not_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile(test_fine="def test_fine():\n    pass", test_skips=body)
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.stdout.fnmatch_lines(["*not run: 1*", "test_skips.py*: no time"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_an_expected_failure_is_not_counted_as_not_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile("import pytest\n@pytest.mark.xfail(reason='known')\ndef test_one():\n    raise ValueError")
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(xfailed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_misspelt_requirement_stops_the_session(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.requires('ngircdd')\ndef test_irc():\n    pass")
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.stderr.fnmatch_lines(["*requires('ngircdd',) is not known: use *ngircd*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_failing_test_still_fails_beside_one_not_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(NEEDS_NGIRCD, test_fails="def test_fails():\n    assert False")
    result = pytester.runpytest_inprocess(*PLUGIN)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("environment", "strict"),
    [
        ({}, False),
        ({"CI": "true"}, True),
        ({"CI": "false"}, False),
        ({"OPENCLAW_TEST_STRICT": "1"}, True),
        ({"CI": "true", "OPENCLAW_TEST_STRICT": "0"}, False),
    ],
)
def test_the_environment_decides_whether_a_session_is_strict(environment: dict[str, str], *, strict: bool) -> None:
    assert requirements.is_strict(environment) is strict


def test_a_missing_program_names_its_cure() -> None:
    with pytest.raises(requirements.MissingRequirementError, match=r"no-such-program is missing: build it$"):
        requirements.find_program("no-such-program", cure="build it")
