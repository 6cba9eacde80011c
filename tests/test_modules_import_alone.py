"""Each module can be the first of the project to be imported, and warns of nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.import_law import is_in
from tests.support.source_tree import PACKAGE_ROOTS, ROOT, read_project

DEADLINE_SECONDS = 55
# What all else stands on, and which by the import law knows nothing of it.
FOUNDATION = ("openclaw_config", "openclaw_kernel.api", "openclaw_kernel.hookspecs")


def failures(names: list[str], *, path: list[Path], after: tuple[str, ...] = ()) -> dict[str, str]:
    """The modules that failed, with the end of the traceback; as many processes at once as there are cores."""
    workers = min(os.cpu_count() or 1, len(names))
    shared = [f"+{name}" for name in after]
    with ThreadPoolExecutor(workers) as pool:
        batches = pool.map(lambda batch: import_batch(batch, path=path), [[*shared, *names[k::workers]] for k in range(workers)])
    return {line["module"]: line["error"] for batch in batches for line in batch}


def import_batch(names: list[str], *, path: list[Path]) -> list[dict[str, str]]:
    outcome = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "tests" / "support" / "import_alone.py"],
        input="\n".join(names),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    lines = [json.loads(line) for line in outcome.stdout.splitlines() if line.startswith('{"module"')]
    assert outcome.returncode == (1 if lines else 0), outcome.stderr
    return lines


def test_each_module_imports_alone_and_without_a_warning() -> None:
    inside = [module.name for module in read_project() if module.path.relative_to(ROOT).parts[0] in PACKAGE_ROOTS]
    names = [name for name in inside if not name.endswith("__main__")]
    path = [ROOT / folder for folder in PACKAGE_ROOTS]
    failed = failures([name for name in names if is_in(name, FOUNDATION)], path=path)
    if not failed:
        failed = failures([name for name in names if not is_in(name, FOUNDATION)], path=path, after=FOUNDATION)
    assert not failed, "\n".join(f"{name}:\n{error}" for name, error in sorted(failed.items()))


BAD = {
    "raises": ("raise RuntimeError('no luck')", "no luck"),
    "warns": ("import warnings\nwarnings.warn('old', DeprecationWarning)", "DeprecationWarning: old"),
    "needs_another": ("import sys\nsys.modules['fine'].value", "KeyError: 'fine'"),
    "exits": ("raise SystemExit(0)", "SystemExit: 0"),
    "dies": ("import os\nos.kill(os.getpid(), 9)", "the process ended with -9"),
}


def test_a_module_that_cannot_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text("value = 1")
    for name, (source, _) in BAD.items():
        (tmp_path / f"{name}.py").write_text(source)
    failed = failures(["fine", *BAD], path=[tmp_path])
    assert failed.keys() == BAD.keys()
    for name, (_, reason) in BAD.items():
        assert reason in failed[name]
