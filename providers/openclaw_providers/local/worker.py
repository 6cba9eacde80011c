"""The worker process: one model, JSON lines on standard input and output, logs on standard error.

`python -m openclaw_providers.local.worker`. One JSON object per line, in:

- `{"op": "load", "path", "context", "threads"}`, first and once
- `{"op": "generate", "id", "messages": [{"role", "content"}], "maxTokens", "temperature"}` and, if wished, `"topP"`,
  `"repeatPenalty"`, `"seed"` and `"stop"`, a list of texts
- `{"op": "cancel", "id"}`, `{"op": "ping", "id"}`, `{"op": "shutdown"}`

and out:

- `{"event": "loaded", "model", "context", "threads", "seconds"}`, or `{"event": "failed", "code", "message"}` and the
  end; codes: `model_unreadable`, `engine_missing`
- `{"event": "progress", "id", "done", "total"}`: so many tokens of the prompt have been read
- `{"event": "delta", "id", "text"}`
- `{"event": "done", "id", "stop": "stop"|"length"|"cancelled", "inputTokens", "cachedTokens", "outputTokens"}`
- `{"event": "error", "id", "code", "message", "details"}`; codes: `context_too_long`, `bad_request`, `busy`,
  `not_loaded`, `engine`
- `{"event": "pong", "id"}`

Requests are answered one after the other. A cancelled one gets its `done` at once, while the engine stops at the next
token or batch. The process ends when its standard input does, so it never outlives the process that started it.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from openclaw_providers.local.engine import Engine, EngineError, Sampling
from openclaw_providers.local.weights import WeightsError, check_weights

PR_SET_PDEATHSIG: Final = 1
QUEUE_LIMIT: Final = 32
EXIT_LOAD_FAILED: Final = 3


class Output:
    """Writes events, one line each, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: str, **fields: Any) -> None:
        """Write one event."""
        line = json.dumps({"event": event, **fields}, separators=(",", ":"))
        with self._lock:
            self._stream.write(line.encode() + b"\n")
            self._stream.flush()

    def error(self, identity: str, code: str, message: str) -> None:
        """Write an error that has no details."""
        self.send("error", id=identity, code=code, message=message, details={})


@dataclass(slots=True)
class Job:
    """A request from its arrival to its one last event."""

    id: str
    request: Mapping[str, Any]
    output: Output
    ended: bool = False
    sent_tokens: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def cancelled(self) -> bool:
        """Say whether the engine should stop: whoever asked has had the last event."""
        return self.ended

    def progress(self, done: int, total: int) -> None:
        """Pass on how far the engine is with the prompt, unless the request has ended."""
        with self.lock:
            if not self.ended:
                self.output.send("progress", id=self.id, done=done, total=total)

    def delta(self, text: str) -> None:
        """Pass on a piece of the answer, unless it has ended."""
        with self.lock:
            if not self.ended:
                self.sent_tokens += 1
                self.output.send("delta", id=self.id, text=text)

    def end(self, event: str, **fields: Any) -> bool:
        """Send the last event; False where there has been one already."""
        with self.lock:
            if self.ended:
                return False
            self.ended = True
            self.output.send(event, id=self.id, **fields)
            return True

    def cancel(self) -> None:
        """End it now for the caller; the engine follows."""
        self.end("done", stop="cancelled", inputTokens=0, cachedTokens=0, outputTokens=self.sent_tokens)


class Worker:
    """Reads requests on the main thread, so that it always answers; loads and generates on a second one."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.Queue[Mapping[str, Any] | Job] = queue.Queue(QUEUE_LIMIT)
        self._loading = False
        threading.Thread(target=self._compute, name="compute", daemon=True).start()

    def take(self, line: bytes) -> bool:
        """Act on one line; False means the process is to end."""
        try:
            request = json.loads(line)
            operation, identity = request["op"], str(request.get("id", ""))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._output.error("", "bad_request", f"not a request: {error!r}")
            return True
        match operation:
            case "load" if not self._loading:
                self._loading = True
                self._waiting.put(request)
            case "generate":
                self._enqueue(Job(identity, request, self._output))
            case "cancel":
                job = self._jobs.get(identity)
                if job is not None:
                    job.cancel()
            case "ping":
                self._output.send("pong", id=identity)
            case "shutdown":
                return False
            case _:
                self._output.error(identity, "bad_request", f"unknown or repeated operation {operation!r}")
        return True

    def _enqueue(self, job: Job) -> None:
        if not self._loading:
            job.end("error", code="not_loaded", message="no model has been loaded", details={})
            return
        if job.id in self._jobs:
            self._output.error(job.id, "bad_request", f"the id {job.id!r} is in use")
            return
        self._jobs[job.id] = job
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            del self._jobs[job.id]
            job.end("error", code="busy", message=f"{QUEUE_LIMIT} requests are waiting already", details={})

    def _compute(self) -> None:
        load = self._waiting.get()
        if isinstance(load, Job):
            message = "a request came before the model"
            raise TypeError(message)
        engine = self._load(load)
        while True:
            job = self._waiting.get()
            if isinstance(job, Job):
                self._answer(engine, job)
                del self._jobs[job.id]

    def _load(self, request: Mapping[str, Any]) -> Engine:
        started = time.monotonic()
        path, context, threads = Path(request["path"]), int(request["context"]), int(request["threads"])
        try:
            check_weights(path)
            engine = Engine(path, context=context, threads=threads)
        except (WeightsError, EngineError) as error:
            self._output.send("failed", code=error.code, message=str(error))
            os._exit(EXIT_LOAD_FAILED)
        seconds = round(time.monotonic() - started, 3)
        self._output.send("loaded", model=path.stem, context=context, threads=threads, seconds=seconds)
        return engine

    def _answer(self, engine: Engine, job: Job) -> None:
        if job.cancelled():
            return
        try:
            sampling = _sampling(job.request)
            completion = engine.generate(job.request["messages"], sampling, listener=job)
        except (KeyError, TypeError, ValueError) as error:
            job.end("error", code="bad_request", message=f"a field is missing or wrong: {error!r}", details={})
        except EngineError as error:
            job.end("error", code=error.code, message=str(error), details=error.details)
        else:
            job.end(
                "done",
                stop=completion.stop,
                inputTokens=completion.input_tokens,
                cachedTokens=completion.cached_tokens,
                outputTokens=completion.output_tokens,
            )


def _sampling(request: Mapping[str, Any]) -> Sampling:
    seed = request.get("seed")
    return Sampling(
        max_tokens=int(request["maxTokens"]),
        temperature=float(request["temperature"]),
        top_p=float(request.get("topP", 1.0)),
        repeat_penalty=float(request.get("repeatPenalty", 1.0)),
        seed=None if seed is None else int(seed),
        stop=tuple(str(text) for text in request.get("stop", ())),
    )


def _end_with_parent() -> None:
    """Let the system kill this process with the one that started it, also amid a computation. Elsewhere the end of its input does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Serve until standard input ends or `shutdown` comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    # Whatever the engine prints goes to the log: the descriptor of the protocol is known to nobody else.
    protocol = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    worker = Worker(Output(protocol))
    for line in sys.stdin.buffer:
        if not worker.take(line):
            break
    # Not sys.exit: the engine's threads may be amid a computation, and nothing needs saving.
    os._exit(0)


if __name__ == "__main__":
    main()
