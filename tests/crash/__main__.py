"""`make crash`: the soak. `ARGS="--cycles 500 --seed 7"`; `--at POINT` kills at one point only."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from tests.crash.soak import KINDS, soak


def main() -> int:
    """Run it; 1 where anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(100_000))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at", help="the only point to kill at, as points.log has it")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS], help="what the blocks are; without it all, in turn")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    print(f"seed {options.seed}, in {folder}", flush=True)
    asked = soak(
        folder,
        seed=options.seed,
        cycles=options.cycles,
        workers=options.workers,
        at=options.at,
        kinds=options.kinds,
        tell=partial(print, flush=True),
    )
    summary = asyncio.run(asked)
    print(summary)
    if not summary.faults:
        shutil.rmtree(folder)
    return 1 if summary.faults else 0


if __name__ == "__main__":
    sys.exit(main())
