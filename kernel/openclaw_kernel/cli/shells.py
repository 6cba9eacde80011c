"""Completion scripts for shells, from a description of the parser."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from openclaw_kernel.cli.parsing import PROGRAM, Commands


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its spellings, what it does, and the kind of its value: none, any or folder."""

    spellings: tuple[str, ...]
    summary: str
    value: str


@dataclass(frozen=True, slots=True)
class Place:
    """What may follow a command: `path` holds the words so far, `words` pairs of what may come next and its summary."""

    path: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]
    listed_by: str | None = None
    """A command of ours whose lines may come next too."""


def describe(parser: argparse.ArgumentParser, commands: Commands) -> list[Place]:
    """Walk the parser."""
    return [*_describe(parser, commands, (), None)]


def _describe(parser: argparse.ArgumentParser, commands: Commands | None, path: tuple[str, ...], listed_by: str | None) -> Iterator[Place]:
    words: list[tuple[str, str]] = []
    options: list[Option] = []
    # argparse offers no other way to ask a parser what it takes.
    for action in parser._actions:  # noqa: SLF001 - see above
        if action.option_strings:
            value = "none" if action.nargs == 0 else "folder" if action.metavar == "FOLDER" else "any"
            options.append(Option(tuple(action.option_strings), _summary(action.help), value))
        elif commands is None and action.choices is not None:
            words += [(str(choice), "") for choice in action.choices]
    if commands is not None:
        words = [(name, _summary(commands.summaries[name])) for name in commands.parsers]
    yield Place(path, tuple(words), tuple(options), listed_by)
    if commands is not None:
        for name, below in commands.parsers.items():
            listed = next((command for (owner, _), command in commands.listed_by.items() if owner == name), None)
            yield from _describe(below, commands.below.get(name), (*path, name), listed)


def _summary(text: str | None) -> str:
    # %-formats are argparse's; of a long help the first part is enough beside a word.
    return re.split(r"[;(]|, e\.g\.", text or "")[0].replace("%%", "%").strip()


def bash(places: list[Place]) -> str:
    """A script for bash 4 and later."""
    cases = "\n".join(f"    {_pattern(place)}) words={_quoted(_all_words(place))};;" for place in places)
    listing = "".join(
        f'    {_pattern(place)}) words+=" $({PROGRAM} {place.listed_by} 2>/dev/null)";;\n' for place in places if place.listed_by
    )
    return f"""\
# bash completion for {PROGRAM}
_openclaw_kernel() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} path="" words="" word i
  case "$previous" in
    {"|".join(_with_value(places, "folder"))}) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return;;
    {"|".join(_with_value(places, "any"))}) COMPREPLY=(); return;;
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="$path ${{COMP_WORDS[i]}}"
    case "$word" in
      {"|".join(_pattern(place) for place in places if place.path)}) path=$word;;
    esac
  done
  case "$path" in
{cases}
  esac
  case "$path" in
{listing}    *) ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -F _openclaw_kernel {PROGRAM}
"""


def zsh(places: list[Place]) -> str:
    """A script for zsh; works from a folder of `fpath` and when it is sourced."""
    cases = "\n".join(f"    {_pattern(place)}) candidates=({' '.join(map(shlex.quote, _described(place)))});;" for place in places)
    listing = "".join(
        f'    {_pattern(place)}) candidates+=(${{(f)"$({PROGRAM} {place.listed_by} 2>/dev/null)"}});;\n'
        for place in places
        if place.listed_by
    )
    return f"""\
#compdef {PROGRAM}
_openclaw_kernel() {{
  local at="" word i
  local -a candidates
  case "${{words[CURRENT-1]}}" in
    {"|".join(_with_value(places, "folder"))}) _files -/; return;;
    {"|".join(_with_value(places, "any"))}) return;;
  esac
  for ((i = 2; i < CURRENT; i++)); do
    word="$at ${{words[i]}}"
    case "$word" in
      {"|".join(_pattern(place) for place in places if place.path)}) at=$word;;
    esac
  done
  case "$at" in
{cases}
  esac
  case "$at" in
{listing}    *) ;;
  esac
  _describe 'openclaw-kernel' candidates
}}
if [ "$funcstack[1]" = "_openclaw_kernel" ]; then _openclaw_kernel "$@"; else compdef _openclaw_kernel {PROGRAM}; fi
"""


def fish(places: list[Place]) -> str:
    """A script for fish."""
    paths = [place.path for place in places]
    lines = [f"# fish completion for {PROGRAM}", f"complete -c {PROGRAM} -f"]
    for place in places:
        below = [path[-1] for path in paths if path[:-1] == place.path and path]
        seen = [f"__fish_seen_subcommand_from {word}" for word in place.path]
        condition = "; and ".join([*seen, *([f"not __fish_seen_subcommand_from {' '.join(below)}"] if below else [])]) or "true"
        start = f"complete -c {PROGRAM} -n {shlex.quote(condition)}"
        lines += [f"{start} -a {word}{_fish_summary(summary)}" for word, summary in place.words]
        if place.listed_by:
            listing = shlex.quote(f"({PROGRAM} {place.listed_by} 2>/dev/null)")
            lines.append(f"{start} -a {listing}")
        for option in place.options:
            spellings = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.spellings)
            value = {"none": "", "any": " -x", "folder": " -x -a '(__fish_complete_directories)'"}[option.value]
            lines.append(f"{start} {spellings}{value}{_fish_summary(option.summary)}")
    return "\n".join(lines) + "\n"


def _fish_summary(text: str) -> str:
    return f" -d {shlex.quote(text)}" if text else ""


def _pattern(place: Place) -> str:
    return shlex.quote("".join(f" {word}" for word in place.path))


def _all_words(place: Place) -> list[str]:
    return [*(word for word, _ in place.words), *(spelling for option in place.options for spelling in option.spellings)]


def _quoted(words: list[str]) -> str:
    return shlex.quote(" ".join(words))


def _described(place: Place) -> list[str]:
    options = [(spelling, option.summary) for option in place.options for spelling in option.spellings]
    return [f"{word}:{summary.replace(':', ',')}" if summary else word for word, summary in (*place.words, *options)]


def _with_value(places: list[Place], kind: str) -> list[str]:
    return sorted({spelling for place in places for option in place.options if option.value == kind for spelling in option.spellings})


SCRIPTS: Final[dict[str, Callable[[list[Place]], str]]] = {"bash": bash, "zsh": zsh, "fish": fish}
