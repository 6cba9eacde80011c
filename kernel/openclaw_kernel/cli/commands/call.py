"""`openclaw-kernel call METHOD [JSON]`: any method of the gateway."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from openclaw_kernel.cli.errors import BadUsage, Refused
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, escaped


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
examples:
  openclaw-kernel call system-presence
  openclaw-kernel call sessions.list '{"limit": 5}'
  openclaw-kernel call chat.inject - < params.json"""
    parser = commands.add("call", "call a method and print what it returns, as JSON", run=run, asks_gateway=True, details=details)
    parser.add_argument("method", metavar="METHOD", nargs="?", help="name of the method", default=None)
    commands.listed_by["call", "METHOD"] = "call --list"
    parser.add_argument("params", metavar="JSON", nargs="?", help="its params, an object; - reads them from stdin", default=None)
    parser.add_argument("--list", action="store_true", help="list the methods that the gateway advertises", default=False)
    parser.add_argument("--final", action="store_true", help="where a method answers twice, wait for the second (agent)", default=False)
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="how long to wait for the answer (default: 30)", default=30.0)


def run(options: argparse.Namespace) -> int:
    """Call and print."""
    if options.method is None and not options.list:
        raise BadUsage("call: name a METHOD; openclaw-kernel call --list shows them")
    params = _read_params(options.params)
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        methods = [str(name) for name in client.hello.get("features", {}).get("methods", ())]
        if options.list:
            if options.json:
                emit_json(methods)
            else:
                emit("\n".join(sorted(methods)))
            return OK
        try:
            result = client.request(options.method, params, seconds=options.timeout, final=options.final)
        except Refused as refused:
            raise _with_suggestion(refused, options.method, methods) from refused
    if options.json:
        emit_json(result)
    else:
        emit(escaped(json.dumps(result, indent=2, ensure_ascii=False)))
    return OK


def _read_params(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    source = "stdin" if text == "-" else "JSON"
    try:
        params = json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise BadUsage(f"call: {source}: not valid JSON ({error}); write an object such as '{{\"limit\": 5}}'") from error
    if not isinstance(params, dict):
        raise BadUsage(f"call: {source}: found {type(params).__name__}; write an object such as '{{\"limit\": 5}}'")
    return params


def _with_suggestion(refused: Refused, method: str, methods: list[str]) -> Refused:
    if not str(refused.error.get("message", "")).startswith("unknown method"):
        return refused
    import difflib

    near = difflib.get_close_matches(method, methods, n=1)
    cure = f"; did you mean {near[0]}?" if near else "; openclaw-kernel call --list shows the methods"
    return Refused("call", refused.error, cure=cure)
