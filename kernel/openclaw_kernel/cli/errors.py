"""Why a command ends without its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openclaw_kernel.cli.exits import CONFIG, FAILED, NOT_RESTARTED, TEMPORARY, UNREACHABLE, USAGE

if TYPE_CHECKING:
    from openclaw_config.issues import Issue


class CommandFailed(Exception):
    """Ends the command with `status`; the message is one line that names the place and the cure."""

    status = FAILED

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        return {"message": str(self)}


class BadUsage(CommandFailed):
    """The command line is wrong in a way the parser cannot see."""

    status = USAGE


class BadConfig(CommandFailed):
    """openclaw.yaml cannot be used; the message has a line for each thing that is wrong, `issues` the same for programs."""

    status = CONFIG

    def __init__(self, message: str, issues: Sequence[Issue] = ()) -> None:
        super().__init__(message)
        self.issues = issues

    def to_json(self) -> dict[str, Any]:
        """The message, and each issue with its place, pointer and fix."""
        return {**super().to_json(), **({"issues": [issue.to_json() for issue in self.issues]} if self.issues else {})}


class Unreachable(CommandFailed):
    """No gateway answers."""

    status = UNREACHABLE


class NotRestarted(CommandFailed):
    """The gateway stopped for a restart, and its program cannot be run again."""

    status = NOT_RESTARTED


class NotNow(CommandFailed):
    """The same command can work later."""

    status = TEMPORARY


class Refused(CommandFailed):
    """The gateway answered with an error; `error` is the wire's: code, message, details?, retryable?, retryAfterMs?."""

    def __init__(self, place: str, error: Mapping[str, Any], *, cure: str = "") -> None:
        self.error = error
        self.retryable = bool(error.get("retryable"))
        self.status = TEMPORARY if self.retryable else FAILED
        message = str(error.get("message") or error.get("code") or "refused without a reason")
        super().__init__(f"{place}: {message}{cure}")

    def to_json(self) -> dict[str, Any]:
        """The wire's error."""
        return {**self.error, "message": str(self)}


def unknown_shape(method: str, missing: KeyError) -> CommandFailed:
    """The error for an answer that lacks something this version shows; gateways of other versions may."""
    return CommandFailed(f"{method}: the gateway's answer has no {missing}, perhaps it is of another version; --json prints the answer")
