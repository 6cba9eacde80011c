"""Import each module named on standard input in a process of its own, and print what went wrong as JSON lines.

Third parties that many modules share are imported once, before the processes part; of the project itself nothing is,
so a module that only imports after another one, or that warns, is found. A line `+NAME` imports a module for all that
follow: right where the import law keeps that module from knowing them, and much faster. Run it with `-W error`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import warnings

SHARED = ("aiohttp.web", "orjson", "pluggy", "pydantic", "ruamel.yaml", "sqlite_utils", "stevedore", "wsproto")
EXIT_IMPORTED = 0
EXIT_FAILED = 1


def import_in_child(name: str) -> int:
    """Import the module in a fork of this process; the exit status of that process."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = EXIT_FAILED
    try:
        importlib.import_module(name)
        status = EXIT_IMPORTED
    except BaseException:  # noqa: BLE001 - whatever an import raises is the finding, and this process ends here
        print(json.dumps({"module": name, "error": traceback.format_exc(limit=-4)}), flush=True)
    finally:
        # Not sys.exit: that would run what the parent has registered.
        os._exit(status)


def main() -> int:
    """Import all that standard input names, a name a line; 1 where one failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SHARED:
            importlib.import_module(name)
    outcomes = []
    for name in sys.stdin.read().split():
        if name.startswith("+"):
            importlib.import_module(name[1:])
            continue
        outcomes.append(import_in_child(name))
        if outcomes[-1] not in {EXIT_IMPORTED, EXIT_FAILED}:
            print(json.dumps({"module": name, "error": f"the process ended with {outcomes[-1]}"}), flush=True)
    return EXIT_FAILED if any(outcomes) else EXIT_IMPORTED


if __name__ == "__main__":
    sys.exit(main())
