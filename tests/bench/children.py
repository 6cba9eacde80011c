"""Plugins that run wild in processes of their own, as programs of a state folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.kernel.children.support import PRELUDE, add_program

MORE_MS: Final = 50.0
"""By how much others may be slower beside one of them."""

WILD: Final = {
    "busy loop": "while True: pass",
    "a flood of messages": "while True: say({'method': 'log', 'params': {'level': 'info', 'message': 'x' * 200}})",
    "a flood of its log": "while True: print('x' * 200, file=sys.stderr)",
    "dies at once, again and again": "os._exit(1)",
}


def install(home: Path, name: str) -> None:
    """Put the plugin `wild` there, which does this once it is started; `calm` does nothing."""
    home.mkdir(parents=True, mode=0o700)
    body = WILD.get(name, "pass")
    source = f"""
import threading
def go():
    {body}
def begin():
    threading.Thread(target=go, daemon=True).start()
serve(on_start=begin)
"""
    add_program(home, "wild", PRELUDE + source)
