"""The provider: one run of the program for each turn, resuming the conversation it keeps for the session."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

from openclaw_kernel.api import (
    ModelEvent,
    ModelInfo,
    ModelRequest,
    PluginContext,
    ProviderError,
    ProviderErrorKind,
)
from openclaw_providers.claude_cli.command import (
    Conversation,
    arguments,
    environment,
    find_program,
    input_line,
    mark_of,
)
from openclaw_providers.claude_cli.process import CliProcess, EndlessLine, Silence
from openclaw_providers.claude_cli.settings import KNOWN_MODELS, ClaudeCliSettings, model_info
from openclaw_providers.claude_cli.wire import Failure, Reader, UnknownConversation, failure_of, parse

_LONGEST_TOLD: Final = 1000


class ClaudeCliProvider:
    """One instance in `models.providers`."""

    label = "Claude (command line)"

    def __init__(self, identity: str, settings: ClaudeCliSettings, context: PluginContext) -> None:
        self.id = identity
        self._settings = settings
        self._context = context
        self._running: set[CliProcess] = set()

    async def start(self) -> None:
        """Remove the prompts that a gateway which was killed left behind; the program itself is started by each turn."""
        await asyncio.to_thread(shutil.rmtree, self._prompts, ignore_errors=True)

    async def stop(self) -> None:
        """End every run."""
        await asyncio.gather(*(process.close() for process in self._running))

    def models(self) -> Sequence[ModelInfo]:
        """Return the configured models, or the program's aliases."""
        return tuple(model_info(self.id, model) for model in self._settings.models or KNOWN_MODELS)

    def problem(self) -> str | None:
        """Say where the program is not there."""
        command = self._settings.command
        if find_program(command, os.environ) is not None:
            return None
        where = f"models.providers.{self.id}.command"
        return f"{where}: there is no program {command}; install it with npm install -g @anthropic-ai/claude-code"

    @property
    def _prompts(self) -> Path:
        return self._context.state_dir / "prompts" / self.id

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Run one turn; each failure is a `ProviderError`. Closing ends the program and all it started."""
        problem = self.problem()
        if problem is not None:
            raise self._error(ProviderErrorKind.UNAVAILABLE, problem, request.model)
        known = await self._recall(request)
        try:
            async with aclosing(self._turn(request, known)) as events:
                async for event in events:
                    yield event
            return
        except UnknownConversation:
            self._context.logger.info("%s: the program has lost a conversation; telling it again", self.id)
        async with aclosing(self._turn(request, None)) as events:
            async for event in events:
                yield event

    async def _turn(self, request: ModelRequest, known: Conversation | None) -> AsyncGenerator[ModelEvent, None]:
        cli_session = known.cli_session if known is not None else str(uuid.uuid4())
        reader = Reader(request.model)
        async with self._process(request, cli_session, resume=known is not None) as process:
            try:
                await process.say(input_line(request.messages, known, provider=self.id), self._settings.silence_seconds)
                async with aclosing(process.lines(self._settings.silence_seconds)) as lines:
                    async for line in lines:
                        for event in _events(reader, line):
                            yield event
                        if reader.completed is not None:
                            break
            except Silence as error:
                raise self._silent(request.model) from error
            except EndlessLine as error:
                message = f"{self._settings.command} wrote a line past 32 MiB; update it"
                raise self._error(ProviderErrorKind.UNAVAILABLE, message, request.model) from error
            except Failure as error:
                raise self._failed(error, request.model) from error
            await process.finish()
            if reader.completed is None:
                raise self._failed(_ending(process), request.model)
        made = Conversation(session=request.session_id, cli_session=cli_session, mark=mark_of(request.messages))
        await self._context.storage.put(_key(self.id, request.session_key), made.to_json())
        yield reader.completed

    @asynccontextmanager
    async def _process(self, request: ModelRequest, cli_session: str, *, resume: bool) -> AsyncGenerator[CliProcess, None]:
        system = await asyncio.to_thread(_write_system, self._prompts, request.system) if request.system else None
        try:
            wanted = arguments(request, self._settings, cli_session=cli_session, resume=resume, system_file=system)
            own = environment(request, self._settings, ambient=os.environ, own_folder=self._context.state_dir / self.id)
            process = await self._started(wanted, own, request)
            try:
                self._running.add(process)
                self._context.spawn(f"{self.id}: errors of the program", process.drain_errors())
                yield process
            finally:
                self._running.discard(process)
                await process.close()
        finally:
            if system is not None:
                system.unlink(missing_ok=True)

    async def _started(self, wanted: Sequence[str], own: dict[str, str], request: ModelRequest) -> CliProcess:
        try:
            # By its whole path: a name would be looked for in the workspace where the PATH has a relative entry.
            program = find_program(self._settings.command, os.environ) or self._settings.command
            return await CliProcess.start([program, *wanted], cwd=request.workspace, environment=own, home=self._context.home)
        except OSError as error:
            message = f"cannot start {self._settings.command} in {request.workspace}: {error}"
            raise self._error(ProviderErrorKind.UNAVAILABLE, message, request.model) from error

    async def _recall(self, request: ModelRequest) -> Conversation | None:
        stored = await self._context.storage.get(_key(self.id, request.session_key))
        known = None if stored is None else Conversation.from_json(stored)
        return known if known is not None and known.session == request.session_id else None

    def _silent(self, model: str) -> ProviderError:
        seconds = f"{self._settings.silence_seconds:g} s"
        where = f"models.providers.{self.id}.silenceSeconds"
        message = f"{self._settings.command} said nothing for {seconds} and was ended ({where})"
        return self._error(ProviderErrorKind.TIMEOUT, message, model)

    def _failed(self, failure: Failure, model: str) -> ProviderError:
        message = f"{self._settings.command}: {self._shown(failure.message)}"
        if failure.kind is ProviderErrorKind.AUTH:
            cure = f"run {self._settings.command} in a terminal and log in, or set models.providers.{self.id}.apiKey"
            if self._settings.api_key is not None:
                cure = f"check models.providers.{self.id}.apiKey"
            message += f"; {cure}"
        return self._error(failure.kind, message, model)

    def _shown(self, told: str) -> str:
        """Return what the program said as one line of bounded length, without the key."""
        key = self._settings.api_key.unwrap() if self._settings.api_key is not None else ""
        line = " ".join((told.replace(key, "<key>") if key else told).split())
        return line if len(line) <= _LONGEST_TOLD else f"{line[:_LONGEST_TOLD]} …"

    def _error(self, kind: ProviderErrorKind, message: str, model: str) -> ProviderError:
        return ProviderError(kind, message, provider=self.id, model=model)


def _ending(process: CliProcess) -> Failure:
    told = f"ended with code {process.returncode} before it answered"
    return failure_of(None, f"{told}: {process.errors}" if process.errors else told)


def _events(reader: Reader, line: bytes) -> list[ModelEvent]:
    said = parse(line)
    try:
        return [] if said is None else list(reader.read(said))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        shape = f"wrote a line of an unknown shape ({type(error).__name__}: {error})"
        cure = "another version of it is installed than is known here: update it or openclaw-kernel"
        raise Failure(ProviderErrorKind.UNAVAILABLE, f"{shape}; {cure}") from error


def _key(provider: str, session_key: str) -> str:
    # By the session's key, not its id: a reset replaces the row, so that there are never more of them than sessions.
    return f"conversation/{provider}/{session_key}"


def _write_system(folder: Path, text: str) -> Path:
    """Write the system prompt to a file: as an argument it would be in every list of processes."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".md", dir=folder)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return Path(name)
