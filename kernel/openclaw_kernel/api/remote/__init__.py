"""What a provider shares with every other that asks a server over HTTP.

Its settings, the reasons of failed calls, the client that is opened once, and what is read from an answer. Nothing of it knows an SDK or
an HTTP library. It is not part of `openclaw_kernel.api`, so that only who needs it pays for it:
`from openclaw_kernel.api.remote import ServerFaults`.
"""

from openclaw_kernel.api.remote.answers import UNPARSED, file_text, parse_arguments
from openclaw_kernel.api.remote.client import OpenedOnce
from openclaw_kernel.api.remote.failures import (
    LONGEST_WAIT_SECONDS,
    cause_of,
    is_number,
    kind_of_status,
    one_line,
    retry_after,
    seconds_until,
    without_password,
    without_secrets,
)
from openclaw_kernel.api.remote.faults import ServerFaults
from openclaw_kernel.api.remote.settings import ModelCost, ServedModel, ServerSettings

__all__ = [
    "LONGEST_WAIT_SECONDS",
    "UNPARSED",
    "ModelCost",
    "OpenedOnce",
    "ServedModel",
    "ServerFaults",
    "ServerSettings",
    "cause_of",
    "file_text",
    "is_number",
    "kind_of_status",
    "one_line",
    "parse_arguments",
    "retry_after",
    "seconds_until",
    "without_password",
    "without_secrets",
]
