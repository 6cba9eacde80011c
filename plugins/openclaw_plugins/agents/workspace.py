"""An agent's folder: made once, never overwritten, read as data only."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STARTER_FILES: Final = {
    "AGENTS.md": "Answer in a few plain sentences. If you do not know something, say so.\n",
    "SOUL.md": "You are friendly, honest and direct.\n",
    "IDENTITY.md": "<!-- Who the agent is. Fill in what you like. -->\n- Name:\n- Emoji:\n",
    "USER.md": "<!-- What the agent should know about you: name, language, habits. -->\n",
    "TOOLS.md": "<!-- Notes for the agent on its tools: accounts, places, habits. -->\n",
}
"""In the order of the prompt. What stands in a comment is for people and never reaches the model."""

_READ_CAP: Final = 1 << 20
_COMMENT: Final = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FIELD: Final = re.compile(r"(?:[-*]\s*)?\**(?P<name>name|emoji|avatar)\**:\**(?P<value>.*)", re.IGNORECASE)
_LONGEST_FIELD: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceText:
    """What the files say: texts by file name without comments, the identity, and a line for each file left out."""

    texts: dict[str, str]
    name: str | None = None
    emoji: str | None = None
    avatar: str | None = None
    problems: tuple[str, ...] = ()


class Workspace:
    """One agent's folder. Its methods do blocking file I/O; `latest` does none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest = WorkspaceText(texts={})
        """What the last `read` found."""
        self._cache: dict[str, tuple[tuple[int, int, int], str]] = {}

    def ensure(self) -> None:
        """Make the folder, private and with the starter files, unless it is there; raise `OSError`."""
        try:
            self.path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not self.path.is_dir():
                raise
            return
        self.path.chmod(0o700)
        for name, text in STARTER_FILES.items():
            with (self.path / name).open("x", encoding="utf-8") as file:
                file.write(text)

    def read(self) -> WorkspaceText:
        """Read the prompt files, again only those that changed."""
        texts: dict[str, str] = {}
        problems: list[str] = []
        for name in STARTER_FILES:
            try:
                texts[name] = self._read_file(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.append(f"{self.path / name}: not read: {error.strerror or error}")
        fields, texts["IDENTITY.md"] = _identity(texts.get("IDENTITY.md", ""))
        self.latest = WorkspaceText(
            texts={name: text for name, text in texts.items() if text},
            name=fields.get("name") or None,
            emoji=fields.get("emoji") or None,
            avatar=fields.get("avatar") or None,
            problems=tuple(problems),
        )
        return self.latest

    def _read_file(self, name: str) -> str:
        # Tools write into this folder: a link or a pipe put there must neither lead outside nor block.
        descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(0, "it is not a regular file")
            key = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            cached = self._cache.get(name)
            if cached is not None and cached[0] == key:
                return cached[1]
            text = _COMMENT.sub("", file.read(_READ_CAP).decode("utf-8", "replace")).strip()
            self._cache[name] = (key, text)
            return text


def _identity(text: str) -> tuple[dict[str, str], str]:
    """Return the fields of an identity file and the text without them.

    Tools write this file, and a pattern that searched it whole would take the time of its length squared.
    """
    fields: dict[str, str] = {}
    others: list[str] = []
    for line in text.splitlines():
        found = _FIELD.fullmatch(line.strip()) if len(line) <= _LONGEST_FIELD else None
        if found is None:
            others.append(line)
        else:
            fields[found["name"].lower()] = found["value"].strip("* \t")
    return fields, "\n".join(others).strip()
