"""What is the same in the requests and answers of every server; pure."""

from __future__ import annotations

import json
from typing import Any, Final

from openclaw_kernel.api.transcript import File

#: Where the arguments of a model that wrote broken JSON are kept, so that the tool's own check tells the model.
UNPARSED: Final = "unparsed_arguments"


def parse_arguments(text: str) -> dict[str, Any]:
    """Read a tool call's arguments; what is no JSON object is kept whole under `unparsed_arguments`."""
    try:
        read = json.loads(text or "{}")
    except ValueError:
        return {UNPARSED: text}
    return read if isinstance(read, dict) else {UNPARSED: text}


def file_text(file: File) -> str:
    """Return a file as text for a model that takes none: its name and type, and what it says where that can be read."""
    named = f"[attached file {file.file_name} ({file.mime_type})"
    return f"{named}, which cannot be read here]" if file.text is None else f"{named}]\n{file.text}"
