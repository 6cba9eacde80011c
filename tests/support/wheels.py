"""Wheels without a build: what is in the folder of a project, or in a few texts, as pip installs it. And a venv to install them into."""

from __future__ import annotations

import base64
import hashlib
import tomllib
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, bytes],
    entry_points: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    requires: Sequence[str] = (),
) -> Path:
    """Write a wheel of these files; `entry_points` are by group and name. Return its path."""
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {one}\n" for one in requires)
    points = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in named.items()) for group, named in entry_points.items()
    )
    content = {
        **files,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points.encode(),
    }
    rows = [f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in content.items()]
    content[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{plain}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in content.items():
            archive.writestr(path, data)
    return wheel


def wheel_of(project: Path, folder: Path) -> Path:
    """Write the wheel of a project whose package lies beside its pyproject.toml."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = about["entry-points"]
    packages = {value.partition(".")[0] for named in groups.values() for value in named.values()}
    files = {
        str(path.relative_to(project)): path.read_bytes()
        for package in packages
        for path in sorted((project / package).rglob("*"))
        if path.is_file() and path.suffix in {".py", ".toml"}
    }
    return make_wheel(folder, about["name"], about["version"], files=files, entry_points=groups)


def venv_beside(folder: Path) -> Path:
    """Make a venv that sees all that is installed here and has a place of its own to install into; return its Python."""
    here = Path(pytest_site())
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    (site / "beside.pth").write_text(f"import site; site.addsitedir({str(here)!r})\n", encoding="utf-8")
    return folder / "bin" / "python"


def pytest_site() -> str:
    """Where pytest itself is installed."""
    import pytest

    return str(Path(pytest.__file__).parents[1])


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
