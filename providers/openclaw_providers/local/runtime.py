"""The provider: owns the worker process, restarts it when it dies, and turns requests into streams."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api import (
    ConfigRejected,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    NotReady,
    PluginContext,
    ProviderError,
    ProviderErrorKind,
    TextDelta,
)
from openclaw_providers.local import wire
from openclaw_providers.local.process import WorkerProcess
from openclaw_providers.local.settings import LocalSettings
from openclaw_providers.local.weights import (
    ENGINE_CURE,
    WEIGHTS_NAME,
    WeightsError,
    engine_installed,
    resolve_weights,
)

STOP_SECONDS: Final = 2.0
LAST_WORDS_SECONDS: Final = 1.0
FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 30.0
STABLE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why no worker can be had."""

    kind: ProviderErrorKind
    message: str


class Answer:
    """What the worker has said to one request and nobody has taken yet; as much as the token ceiling allows at most."""

    def __init__(self, identity: str) -> None:
        self.id = identity
        self.end: dict[str, Any] | None = None
        self._pieces: list[str] = []
        self._news = asyncio.Event()

    @property
    def done(self) -> dict[str, Any] | None:
        """The event `done`, where the answer ended well."""
        return self.end if self.end is not None and self.end["event"] == "done" else None

    @property
    def error(self) -> dict[str, Any]:
        """The event `error`, empty where there is none."""
        return self.end if self.end is not None and self.end["event"] == "error" else {}

    def take(self, event: dict[str, Any]) -> None:
        """Add an event of the worker."""
        match event["event"]:
            case "delta":
                self._pieces.append(event["text"])
            case "done" | "error":
                self.end = event
            case _:
                return
        self._news.set()

    async def next_text(self) -> str:
        """Wait for more text and return it; empty once all is taken and `end` is there."""
        while not self._pieces and self.end is None:
            self._news.clear()
            await self._news.wait()
        text = "".join(self._pieces)
        self._pieces.clear()
        return text


class LocalProvider:
    """One entry of `models.providers`: one model in one worker process."""

    def __init__(self, provider_id: str, settings: LocalSettings, context: PluginContext) -> None:
        self.id = provider_id
        self.label = "Local model"
        self._settings = settings
        self._context = context
        self._weights: Path | None = None
        self._task: asyncio.Task[Any] | None = None
        self._worker: WorkerProcess | None = None
        self._loaded: asyncio.Future[WorkerProcess | Failure] | None = None
        self._wanted = asyncio.Event()
        self._failure: Failure | None = None
        self._resting = False
        self._stopped = asyncio.Event()
        self._answers: dict[str, Answer] = {}
        self._counter = 0
        self._last_sign = 0.0

    @property
    def worker_pid(self) -> int | None:
        """The id of the worker process, None where none runs."""
        return self._worker.pid if self._worker is not None else None

    async def start(self) -> None:
        """Find engine and model, and load the model in the background where `preload` is set."""
        if not engine_installed():
            message = f"the engine of the local model is not installed: {ENGINE_CURE}"
            raise NotReady(message)
        try:
            self._weights = resolve_weights(self._settings.model_path)
        except WeightsError as error:
            if self._settings.model_path is None:
                raise NotReady(str(error)) from error
            key = f"models.providers.{self.id}.modelPath"
            raise ConfigRejected(key, error.found, error.cure) from error
        self._stopped.clear()
        self._loaded = asyncio.get_running_loop().create_future()
        if self._settings.preload:
            self._wanted.set()
        self._task = self._context.spawn(f"provider {self.id}: worker", self._supervise())

    async def stop(self) -> None:
        """End the worker and everything that waits for it."""
        self._stopped.set()
        self._wanted.clear()
        task, self._task = self._task, None
        if self._worker is not None:
            await self._worker.stop(grace_seconds=STOP_SECONDS)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def models(self) -> Sequence[ModelInfo]:
        """Return the one model."""
        path = self._settings.model_path
        name = WEIGHTS_NAME if path is None else Path(path).stem
        return (
            ModelInfo(
                id=name.lower(),
                provider=self.id,
                name=name,
                context_window=self._settings.context_tokens,
                max_output_tokens=self._settings.max_output_tokens,
                tools=False,
                input_price=0.0,
                output_price=0.0,
            ),
        )

    def problem(self) -> str | None:
        """Return why the last attempt to load failed, or that the provider does not run."""
        if self._failure is not None:
            return self._failure.message
        return None if self._task is not None else f"provider {self.id} is not started"

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer. A conversation too long loses its oldest turns; a single message too long is an error."""
        head = wire.head(self._settings, request.system)
        messages = wire.conversation(self._settings, request.messages)
        if not messages:
            raise self._error(ProviderErrorKind.BAD_REQUEST, "the request holds no text to answer", request.model)
        while True:
            worker = await self._available(request.model)
            answer = self._ask(worker, [*head, *messages], max_tokens=wire.answer_tokens(self._settings, request))
            try:
                while text := await answer.next_text():
                    yield TextDelta(text)
            finally:
                self._forget(worker, answer)
            if answer.done is not None:
                yield wire.completed(answer.done)
                return
            messages = self._after_error(answer.error, messages, request.model)

    def _after_error(self, end: dict[str, Any], messages: list[wire.ChatMessage], model: str) -> list[wire.ChatMessage]:
        """Return a shorter conversation to try, or raise."""
        code, message = str(end.get("code")), str(end.get("message"))
        details = end.get("details") or {}
        if code == "context_too_long":
            prompt, room = int(details["promptTokens"]), int(details["contextTokens"])
            shorter = wire.shorten(messages, prompt_tokens=prompt, context_tokens=room)
            if shorter is not None:
                return shorter
            message += f": shorten the message, or raise models.providers.{self.id}.contextTokens"
        raise self._error(wire.error_kind(code), message, model)

    async def _available(self, model: str) -> WorkerProcess:
        """Wait for a loaded worker; raise `ProviderError` where none can be had."""
        failure = self._failure if self._resting else None
        if failure is None:
            if self._loaded is None or self._task is None or self._task.done():
                raise self._error(ProviderErrorKind.UNAVAILABLE, f"provider {self.id} is not started", model)
            self._wanted.set()
            # The supervisor bounds the time by loadSeconds, so the waiting needs no deadline of its own.
            outcome = await asyncio.shield(self._loaded)
            if isinstance(outcome, WorkerProcess):
                return outcome
            failure = outcome
        raise self._error(failure.kind, failure.message, model)

    def _ask(self, worker: WorkerProcess, messages: list[wire.ChatMessage], *, max_tokens: int) -> Answer:
        self._counter += 1
        answer = Answer(str(self._counter))
        if not self._answers:
            self._last_sign = asyncio.get_running_loop().time()
        self._answers[answer.id] = answer
        if worker is not self._worker:
            answer.take(_gone(f"the worker of provider {self.id} has just ended: try again"))
            return answer
        worker.send(wire.generate_line(answer.id, self._settings, messages, max_tokens=max_tokens))
        return answer

    def _forget(self, worker: WorkerProcess, answer: Answer) -> None:
        del self._answers[answer.id]
        if answer.end is None:
            worker.send({"op": "cancel", "id": answer.id})

    async def _supervise(self) -> None:
        """Keep a worker running as long as it is wanted; each life ends in a delay that doubles until one lasts."""
        try:
            await self._keep_alive()
        finally:
            self._announce(Failure(ProviderErrorKind.UNAVAILABLE, f"provider {self.id} has been stopped"))

    async def _keep_alive(self) -> None:
        delay = FIRST_DELAY_SECONDS
        clock = asyncio.get_running_loop().time
        while not self._stopped.is_set():
            await self._wanted.wait()
            began = clock()
            failure, was_loaded = await self._live()
            if self._stopped.is_set():
                return
            if clock() - began > STABLE_SECONDS:
                delay = FIRST_DELAY_SECONDS
            self._failure = failure
            self._context.degrade(f"provider {self.id}: {failure.message}")
            if was_loaded:
                self._context.logger.warning("%s; it is started anew in %.1f s", failure.message, delay)
            else:
                # Loading it again would fail in the same way: that is left to the next question after the delay.
                self._wanted.clear()
                self._resting = True
                self._announce(failure)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY_SECONDS)
            self._resting = False

    async def _live(self) -> tuple[Failure, bool]:
        """Run one worker from start to end; return why it ended and whether it had loaded."""
        try:
            worker = self._worker = await WorkerProcess.start()
        except OSError as error:
            message = f"the worker process cannot be started: {error}"
            return Failure(ProviderErrorKind.UNAVAILABLE, message), False
        log: asyncio.Task[Any] | None = None
        loaded = False
        try:
            log = self._context.spawn(f"provider {self.id}: log of the worker", worker.copy_log(self._context.logger))
            failure = await self._load(worker)
            if failure is None:
                loaded = True
                failure = await self._serve(worker)
            return failure, loaded
        finally:
            self._worker = None
            worker.kill()
            try:
                await worker.ending()
                if log is not None:
                    await asyncio.wait({log}, timeout=LAST_WORDS_SECONDS)
                    log.cancel()
            finally:
                # A stop may break off the waits above; whoever waits for an answer is told all the same.
                self._end_answers(f"the worker of provider {self.id} ended amid the answer: try again")

    async def _load(self, worker: WorkerProcess) -> Failure | None:
        """Load the model; return why that failed, or None."""
        settings = self._settings
        threads = settings.threads or max(_cores() - 1, 1)
        worker.send({"op": "load", "path": str(self._weights), "context": settings.context_tokens, "threads": threads})
        try:
            async with asyncio.timeout(settings.load_seconds):
                event = await worker.next_event()
        except TimeoutError:
            cure = f"raise models.providers.{self.id}.loadSeconds"
            message = f"the model did not load within {settings.load_seconds:g} s: {cure}"
            return Failure(ProviderErrorKind.TIMEOUT, message)
        if event is None:
            return Failure(ProviderErrorKind.UNAVAILABLE, f"the worker ended while loading ({await worker.ending()})")
        if event["event"] != "loaded":
            return Failure(wire.error_kind(event["code"]), event["message"])
        self._context.logger.info("%s loaded in %.1f s on %d thread(s)", event["model"], event["seconds"], threads)
        self._ready(worker)
        return None

    def _ready(self, worker: WorkerProcess) -> None:
        if self._failure is not None:
            self._failure = None
            self._context.degrade(None)
        if self._settings.system_prompt == "compact":
            # What every prompt begins with is computed before the first question comes.
            messages = [*wire.head(self._settings, ""), {"role": "user", "content": "Hello!"}]
            worker.send(wire.generate_line("warm-up", self._settings, messages, max_tokens=1))
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_result(worker)

    async def _serve(self, worker: WorkerProcess) -> Failure:
        """Hand out the worker's events until it ends or falls silent; return why it ended."""
        clock = asyncio.get_running_loop().time
        self._last_sign = clock()
        reason = "it fell silent amid an answer and was ended"
        while not self._is_silent():
            since = self._last_sign if self._answers else clock()
            try:
                async with asyncio.timeout_at(since + self._settings.silence_seconds):
                    event = await worker.next_event()
            except TimeoutError:
                continue
            if event is None:
                reason = f"it ended ({await worker.ending()})"
                break
            self._last_sign = clock()
            answer = self._answers.get(event.get("id", ""))
            if answer is not None:
                answer.take(event)
        self._loaded = asyncio.get_running_loop().create_future()
        return Failure(ProviderErrorKind.UNAVAILABLE, f"the worker of the local model is gone: {reason}")

    def _is_silent(self) -> bool:
        quiet = asyncio.get_running_loop().time() - self._last_sign
        return bool(self._answers) and quiet >= self._settings.silence_seconds

    def _announce(self, failure: Failure) -> None:
        """Tell those who wait for a worker that there will be none; whoever asks later waits for the next one."""
        if self._loaded is None:
            return
        if not self._loaded.done():
            self._loaded.set_result(failure)
        self._loaded = None if self._stopped.is_set() else asyncio.get_running_loop().create_future()

    def _end_answers(self, message: str) -> None:
        for answer in self._answers.values():
            if answer.end is None:
                answer.take(_gone(message))

    def _error(self, kind: ProviderErrorKind, message: str, model: str) -> ProviderError:
        return ProviderError(kind, message, provider=self.id, model=model)


def _gone(message: str) -> dict[str, Any]:
    return {"event": "error", "code": "gone", "message": message, "details": {}}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
