"""A credential of one kind in the field of another is named by its form; none is compared with anything here, so nothing is guessed."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final

from openclaw_kernel.api.pairing import BOOTSTRAP_PREFIX
from openclaw_kernel.protocol.connect import Credentials

_LONGEST_CODE: Final = 4096


def misplaced(offered: Credentials, *, has_device: bool) -> str | None:
    """Say which field holds what belongs elsewhere, and where that is; None where nothing looks like it."""
    fields = {"auth.token": offered.token, "auth.password": offered.password, "auth.deviceToken": offered.device_token}
    for name, text in fields.items():
        if text and text.startswith(BOOTSTRAP_PREFIX):
            return f"{name} holds a bootstrap token, which belongs into auth.bootstrapToken of a client with a device identity"
        if text and is_setup_code(text):
            return f"{name} holds a setup code; decode it, and send the bootstrapToken in it as auth.bootstrapToken"
    token = offered.bootstrap_token
    if not token:
        return None
    if is_setup_code(token):
        return "auth.bootstrapToken holds a whole setup code; decode it, and send the bootstrapToken in it"
    if not token.startswith(BOOTSTRAP_PREFIX):
        return (
            "auth.bootstrapToken holds no bootstrap token; the gateway's own secret belongs into auth.token or auth.password,"
            " the token of a device into auth.deviceToken"
        )
    return None if has_device else "a bootstrap token opens for a client with a device identity only"


def is_setup_code(text: str) -> bool:
    """Tell whether a text has the form of a setup code: base64url of JSON with a bootstrap token."""
    if len(text) > _LONGEST_CODE or not text.startswith("ey"):
        return False
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(found, dict) and "bootstrapToken" in found
