"""The engine: llama.cpp through `xllamacpp`. Imported by the worker process only."""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from openclaw_providers.local.weights import ENGINE_CURE

# A batch is the longest stretch the engine computes without asking whether it should go on: 64 tokens are about half a
# second on one slow core, and larger batches were no faster there.
BATCH_TOKENS: Final = 64
_LOG_ERRORS_ONLY: Final = 1


class EngineError(Exception):
    """The engine refused or failed. `code` is one of the worker's error codes, `details` JSON facts for the caller."""

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = dict(details or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 takes the likeliest token each time; `seed` None means a random one."""

    max_tokens: int
    temperature: float
    top_p: float = 0.95
    repeat_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How an answer ended. Of the prompt's tokens, `cached_tokens` were reused and `input_tokens` computed."""

    stop: Literal["stop", "length", "cancelled"]
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class Listener(Protocol):
    """Who asked for an answer; called on the engine's thread."""

    def cancelled(self) -> bool:
        """Say whether to stop; asked after each token and each batch of the prompt."""

    def progress(self, done: int, total: int) -> None:
        """Take note of how many tokens of the prompt have been read."""

    def delta(self, text: str) -> None:
        """Take a piece of the answer."""


class Engine:
    """One loaded model, for one thread at a time. What a prompt shares with the one before is not computed again."""

    def __init__(self, path: Path, *, context: int, threads: int) -> None:
        self.context = context
        library = _library()
        parameters = library.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = context
        parameters.n_parallel = 1
        parameters.n_batch = BATCH_TOKENS
        parameters.n_ubatch = BATCH_TOKENS
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
        parameters.n_threads_http = 1
        parameters.cache_ram_mib = 0
        parameters.fit_params = False
        parameters.ui = False
        parameters.verbosity = _LOG_ERRORS_ONLY
        self._server = _start(library, parameters)

    def generate(
        self,
        messages: Sequence[Mapping[str, str]],
        sampling: Sampling,
        *,
        listener: Listener,
    ) -> Completion:
        """Answer, telling the listener of every step.

        An eighth of the context, or what the answer may take if that is less, stays free for the answer. Raise
        `EngineError`: `context_too_long` (details `promptTokens`, `contextTokens`), `bad_request` or `engine`.
        """
        room = self.context - min(sampling.max_tokens, self.context // 8)
        collector = _Collector(listener, prompt_room=room)
        request = {
            "messages": [dict(message) for message in messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repeat_penalty": sampling.repeat_penalty,
            "seed": sampling.seed if sampling.seed is not None else secrets.randbits(31),
            "stop": list(sampling.stop),
            "cache_prompt": True,
            "return_progress": True,
            "stream": True,
        }
        try:
            self._server.handle_chat_completions(request, collector)
        except (ValueError, RuntimeError) as error:
            raise EngineError("bad_request", f"the engine refused the request: {error}") from error
        return collector.result()


class _Collector:
    """Takes the engine's stream; True ends it. An error is kept for later, because the engine drops exceptions."""

    def __init__(self, listener: Listener, *, prompt_room: int) -> None:
        self._listener = listener
        self._prompt_room = prompt_room
        self._stop: Literal["stop", "length", "cancelled"] | None = None
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._output_tokens = 0
        self._error: EngineError | None = None

    def __call__(self, chunk: Mapping[str, Any]) -> bool:
        if self._listener.cancelled():
            self._stop = "cancelled"
            return True
        if "error" in chunk:
            self._error = _typed(chunk["error"])
            return True
        progress = chunk.get("prompt_progress")
        if progress is not None:
            self._prompt_tokens, self._cached_tokens = int(progress["total"]), int(progress["cache"])
            if self._prompt_tokens > self._prompt_room:
                self._error = _too_long(self._prompt_tokens, self._prompt_room)
                return True
            self._listener.progress(int(progress["processed"]), self._prompt_tokens)
        for choice in chunk.get("choices", ()):
            self._take(choice)
        timings = chunk.get("timings")
        if timings is not None:
            self._cached_tokens = int(timings["cache_n"])
            self._prompt_tokens = self._cached_tokens + int(timings["prompt_n"])
            self._output_tokens = int(timings["predicted_n"])
        return False

    def _take(self, choice: Mapping[str, Any]) -> None:
        text = choice.get("delta", {}).get("content")
        if text:
            self._output_tokens += 1
            self._listener.delta(text)
        finish = choice.get("finish_reason")
        if finish is not None:
            self._stop = "length" if finish == "length" else "stop"

    def result(self) -> Completion:
        if self._error is not None:
            raise self._error
        if self._stop is None:
            raise EngineError("engine", "the engine ended the answer without saying why")
        return Completion(
            stop=self._stop,
            input_tokens=self._prompt_tokens - self._cached_tokens,
            cached_tokens=self._cached_tokens,
            output_tokens=self._output_tokens,
        )


def _typed(error: Mapping[str, Any]) -> EngineError:
    message = str(error.get("message", "unknown error"))
    match error.get("type"):
        case "exceed_context_size_error":
            return _too_long(int(error["n_prompt_tokens"]), int(error["n_ctx"]))
        case "invalid_request_error":
            return EngineError("bad_request", message)
        case _:
            return EngineError("engine", message)


def _too_long(prompt: int, room: int) -> EngineError:
    message = f"the prompt is {prompt} tokens long, but there is room for {room}"
    return EngineError("context_too_long", message, {"promptTokens": prompt, "contextTokens": room})


def _library() -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        message = f"the engine cannot be imported ({error}): {ENGINE_CURE}"
        raise EngineError("engine_missing", message) from error


def _start(library: Any, parameters: Any) -> Any:
    """Load the model, with nobody able to reach it from outside.

    The library always opens an HTTP listener beside its Python interface. It gets a key that nobody knows and, where
    the system has Unix sockets, a path in a private folder that is removed once the model is there.
    """
    parameters.api_keys = [secrets.token_hex(32)]
    folder = Path(tempfile.mkdtemp(prefix="openclaw-local-")) if os.name == "posix" else None
    if folder is not None:
        parameters.hostnames = [str(folder / "engine.sock")]
    try:
        return library.Server(parameters)
    except RuntimeError as error:
        message = f"the engine cannot load {parameters.model.path} (its own log says why): {error}"
        raise EngineError("model_unreadable", message) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
