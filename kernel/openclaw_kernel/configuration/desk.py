"""Changing `openclaw.yaml`: one at a time, over what the caller read, whole or not at all, and applied before the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from openclaw_config.issues import ConfigError, dotted
from openclaw_config.load import Loaded, load_text
from openclaw_config.merging import CannotMerge, differences, same
from openclaw_config.models import Config
from openclaw_config.patching import CannotEdit, tree_of
from openclaw_config.redaction import redact, secrets_in
from openclaw_config.restoring import CannotRestore, restored_text
from openclaw_config.schema_paths import agent_refusals, new_references
from openclaw_config.secrets import known_secrets
from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditLog
from openclaw_kernel.api.config import Applied, Change, ConfigConflict, ConfigPlan, Edit, Generation, Written
from openclaw_kernel.api.errors import Forbidden, GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.configuration.file import ConfigFile, FileChanged
from openclaw_kernel.configuration.view import ConfigView
from openclaw_kernel.generations import Generations
from openclaw_kernel.generations.book import ROLLBACK
from openclaw_kernel.live.leaves import remember
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger("openclaw.config")

STALE: Final = "config changed since last load; re-run config.get and retry"
"""Word for word what clients look for."""
_SUSPECT_BYTES: Final = 512
"""A file shorter than this may shrink as it likes."""
_MOST_DIFFERENCES: Final = 200
_CLOSE_SECONDS: Final = 5.0

ValueT = TypeVar("ValueT")


class Turn(Protocol):
    """The right to change what is in force, until it ends."""

    async def take(self, candidate: Loaded, change: Change) -> Applied:
        """Bring the candidate about; raise `NotApplied` with everything as it was."""
        ...


class Engine(Protocol):
    """What brings configurations about."""

    @property
    def accepted(self) -> Loaded: ...
    @property
    def generation(self) -> int: ...
    def plan(self, candidate: Config) -> ConfigPlan: ...
    def turn(self) -> AbstractAsyncContextManager[Turn]: ...


@dataclass(frozen=True, slots=True)
class _Found:
    """The file as it was when a change began."""

    text: str | None
    hash: str


class ConfigurationDesk:
    """Implements the service `Configuration`. `reread` takes the files as they are on disk."""

    def __init__(
        self,
        *,
        path: Path,
        engine: Engine,
        reread: Callable[[Change], Awaitable[Applied]],
        generations: Generations,
        audit: AuditLog,
        view: ConfigView,
        now_ms: Callable[[], int],
    ) -> None:
        self._file = ConfigFile(path)
        self._engine = engine
        self._reread = reread
        self._generations = generations
        self._audit = audit
        self._view = view
        self._now_ms = now_ms
        self._tasks = TaskOwner("configuration", _failed)

    async def snapshot(self) -> Mapping[str, Any]:
        """See `Configuration`."""
        return await self._view.snapshot(self._engine.accepted)

    async def schema(self) -> Mapping[str, Any]:
        """See `Configuration`."""
        return await self._view.schema()

    async def lookup(self, path: str) -> Mapping[str, Any]:
        """See `Configuration`."""
        return await self._view.lookup(path)

    async def plan(self, text: str) -> ConfigPlan:
        """See `Configuration`."""
        return await self.plan_edit(lambda _current: text)

    async def plan_edit(self, edit: Edit, *, by: Change | None = None) -> ConfigPlan:
        """See `Configuration`."""
        found = await self._found()
        text = await self._edited(edit, found)
        if by is not None and by.by_agent:
            await self._refuse_references(found, text)
        return self._engine.plan((await self._load(text)).config)

    async def write(self, edit: Edit, change: Change, *, base_hash: str | None, shrink: bool = False) -> Written:
        """See `Configuration`."""
        return await self._whole("write", self._write(edit, change, base_hash=base_hash, shrink=shrink))

    async def reload(self, change: Change) -> Written:
        """See `Configuration`."""
        return await self._whole("reload", self._reload(change))

    async def history(self, *, limit: int = 50, before: int | None = None) -> Sequence[Generation]:
        """See `Configuration`."""
        return await self._generations.history(limit=limit, before=before)

    async def text_of(self, generation: int) -> str:
        """See `Configuration`."""
        return await self._generations.text_of(generation)

    async def rollback(self, generation: int, change: Change) -> Written:
        """See `Configuration`."""
        content = await self._generations.content(generation)
        texts = {path: data.decode("utf-8") for path, data in content.items()}
        text = texts.pop(self._file.path, None)
        if text is None or any([await asyncio.to_thread(_differs, path, other) for path, other in texts.items()]):
            # One file is replaced at a time, and half of a generation is none.
            raise InvalidRequest(
                f"generation {generation}: other files than {self._file.path.name} were different then;"
                " put them back too, with openclaw-kernel config rollback"
            )
        origin = replace(change.origin, surface=ROLLBACK)
        return await self.write(lambda _text: text, replace(change, origin=origin), base_hash=None, shrink=True)

    async def close(self) -> None:
        """Let what is being written end."""
        await self._tasks.close(_CLOSE_SECONDS)

    async def _whole(self, what: str, work: Coroutine[Any, Any, ValueT]) -> ValueT:
        # A client that is gone meanwhile cancels its call; a file that is half replaced helps nobody.
        task: asyncio.Task[ValueT] = self._tasks.spawn(what, work)
        return await asyncio.shield(task)

    # Writing.

    async def _write(self, edit: Edit, change: Change, *, base_hash: str | None, shrink: bool) -> Written:
        async with self._engine.turn() as turn:
            found = await self._found()
            if base_hash is not None and base_hash != found.hash:
                raise await self._conflict(edit, found, base_hash)
            text = await self._edited(edit, found)
            if text == found.text:
                return self._unchanged(found)
            if change.by_agent:
                # Before it is loaded: that reads what its references name, and runs programs.
                await self._refuse_unmarked(found, text, change)
            if not shrink:
                await self._refuse_suspect(found, text, change)
            candidate = await self._candidate(text, change)
            remember(candidate)
            # Before it is taken: a restart that it wants may follow at once.
            keys = await self._changed_keys(found.text, text)
            await self._replace(edit, found, text)
            try:
                applied = await turn.take(candidate, change)
            except BaseException as error:
                # One that was broken off in the very end is in force, and the file has to say so.
                if self._engine.accepted is not candidate:
                    await self._put_back(found, text)
                if isinstance(error, GatewayError):
                    self._rejected(change, error.message)
                raise
        return Written(
            generation=applied.generation,
            plan=applied.plan,
            results=applied.results,
            restart=applied.restart,
            hash=candidate.hash,
            changed_keys=keys,
        )

    async def _reload(self, change: Change) -> Written:
        before = self._engine.accepted
        applied = await self._reread(change)
        after = self._engine.accepted
        return Written(
            generation=applied.generation,
            plan=applied.plan,
            results=applied.results,
            restart=applied.restart,
            hash=after.hash,
            changed_keys=await self._changed_keys(before.text, after.text),
            noop=after.hash == before.hash,
        )

    async def _changed_keys(self, before: str | None, after: str) -> Sequence[str]:
        # Both are parsed, which takes a second for a long file.
        return await asyncio.to_thread(_changed_keys, self._file.path.name, before, after)

    async def _found(self) -> _Found:
        try:
            text = await asyncio.to_thread(self._file.text)
        except ConfigError as error:
            raise _invalid(error) from error
        return _Found(text, await asyncio.to_thread(self._view.hash_of, text, self._engine.accepted))

    async def _edited(self, edit: Edit, found: _Found) -> str:
        try:
            return await asyncio.to_thread(self._restored, edit, found.text or "")
        except (CannotEdit, CannotMerge, CannotRestore) as error:
            raise InvalidRequest(str(error)) from error
        except ConfigError as error:
            raise _invalid(error) from error

    def _restored(self, edit: Edit, text: str) -> str:
        return restored_text(self._file.path.name, edit(text), text, self._known())

    def _known(self) -> frozenset[str]:
        return known_secrets() | frozenset(self._engine.accepted.secrets)

    async def _refuse_suspect(self, found: _Found, text: str, change: Change) -> None:
        size, before = len(text.encode()), len((found.text or "").encode())
        if before < _SUSPECT_BYTES or size * 2 >= before:
            return
        place = await asyncio.to_thread(self._file.keep_rejected, text, self._now_ms())
        self._rejected(change, "the file would lose more than half of itself")
        raise InvalidRequest(
            f"{self._file.path.name}: {size} bytes in the place of {before} would lose more than half of the file; what was sent is kept"
            f" as {place.name}; send it with allowShrink: true if that is meant"
        )

    async def _candidate(self, text: str, change: Change) -> Loaded:
        try:
            return await self._load(text)
        except InvalidRequest as error:
            self._rejected(change, "it is not valid", issues=len((error.details or {}).get("issues", ())))
            raise

    async def _load(self, text: str) -> Loaded:
        try:
            return await asyncio.to_thread(load_text, text, self._file.path)
        except ConfigError as error:
            raise _invalid(error) from error

    async def _refuse_references(self, found: _Found, text: str) -> None:
        refused = new_references(*await self._trees(found, text))
        if refused:
            raise Forbidden(f"{', '.join(refused[:5])}: an agent may write no reference and no include; write a value")

    async def _trees(self, found: _Found, text: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        try:
            before = await asyncio.to_thread(tree_of, self._file.path.name, found.text or "")
            return before, await asyncio.to_thread(tree_of, self._file.path.name, text)
        except ConfigError as error:
            raise _invalid(error) from error

    async def _refuse_unmarked(self, found: _Found, text: str, change: Change) -> None:
        name = self._file.path.name
        before, after = await self._trees(found, text)
        schema = await self._view.schema()
        refused = agent_refusals(schema["schema"], before, after)
        if not refused and same(before, after):
            refused = ["comments"]
        if refused:
            keys = ", ".join(refused[:5])
            self._audit.refused(
                AuditEntry(
                    action=AuditAction.CONFIG_REJECTED,
                    origin=change.origin,
                    subject=name,
                    reason="an agent may not write it",
                    details={"keys": keys, "byAgent": True},
                )
            )
            raise Forbidden(f"{keys}: an agent may not write it; ask a person to change it, with openclaw-kernel config set")

    async def _replace(self, edit: Edit, found: _Found, text: str) -> None:
        try:
            await asyncio.to_thread(partial(self._file.replace, text, expected=found.text))
        except FileChanged:
            raise await self._conflict(edit, await self._found(), found.hash, base=found.text) from None
        except ConfigError as error:
            raise _invalid(error) from error

    async def _put_back(self, found: _Found, text: str) -> None:
        try:
            if found.text is None:
                await asyncio.to_thread(partial(self._file.remove, expected=text))
            else:
                await asyncio.to_thread(partial(self._file.replace, found.text, expected=text))
        except (FileChanged, ConfigError):
            logger.warning("%s: was changed by somebody else while it was applied, and stays as it is now", self._file.path)
        except Unavailable as error:
            logger.error("%s", error.message)  # noqa: TRY400 - its own words say all

    def _unchanged(self, found: _Found) -> Written:
        return Written(
            generation=self._engine.generation,
            plan=ConfigPlan(changed=(), units=()),
            results=(),
            hash=found.hash,
            changed_keys=(),
            noop=True,
        )

    def _rejected(self, change: Change, reason: str, **details: Any) -> None:
        subject = self._file.path.name
        told = {**details, **({"byAgent": True} if change.by_agent else {})}
        self._audit.refused(
            AuditEntry(action=AuditAction.CONFIG_REJECTED, origin=change.origin, subject=subject, reason=reason, details=told)
        )

    # Conflicts.

    async def _conflict(self, edit: Edit, found: _Found, base_hash: str, base: str | None = None) -> ConfigConflict:
        try:
            if base is None:
                base = await self._generations.source_of(digest=base_hash)
            return ConfigConflict(STALE, await asyncio.to_thread(self._three_ways, edit, found, base))
        except (CannotEdit, CannotMerge, CannotRestore, ConfigError, GatewayError) as error:
            # What the caller wants cannot even be written over what it read; the conflict comes first.
            logger.debug("a conflict cannot be shown: %s", error)
            return ConfigConflict(STALE, ())

    def _three_ways(self, edit: Edit, found: _Found, base: str | None) -> Sequence[Mapping[str, Any]]:
        name = self._file.path.name
        theirs_text = found.text or ""
        known = self._known()
        yours = tree_of(name, self._restored(edit, theirs_text if base is None else base))
        theirs = tree_of(name, theirs_text)
        origin = theirs if base is None else tree_of(name, base)
        known |= {*secrets_in(theirs), *secrets_in(yours), *secrets_in(origin)}
        shown = [redact("", tree, known) for tree in (origin, theirs, yours)]
        real = {
            side: {where: (before, after) for where, before, after in differences(origin, tree)}
            for side, tree in (("theirs", theirs), ("yours", yours))
        }
        rows: list[Mapping[str, Any]] = []
        for where in sorted({*real["theirs"], *real["yours"]}, key=dotted)[:_MOST_DIFFERENCES]:
            values = [_value_at(tree, where) for tree in shown]
            both = where in real["theirs"] and where in real["yours"]
            is_conflict = both and not same(real["theirs"][where][1], real["yours"][where][1])
            rows.append({"path": dotted(where), "base": values[0], "theirs": values[1], "yours": values[2], "conflict": is_conflict})
        return rows


def _differs(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") != text
    except (OSError, UnicodeDecodeError):
        return True


def _value_at(tree: Any, where: Sequence[str | int]) -> Any:
    for part in where:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _changed_keys(name: str, before: str | None, after: str) -> Sequence[str]:
    try:
        source = tree_of(name, before or "")
    except ConfigError:
        source = {}
    return tuple(sorted(dotted(where) for where, _, _ in differences(source, tree_of(name, after))))


def _invalid(error: ConfigError) -> InvalidRequest:
    first = error.issues[0]
    more = f" (and {len(error.issues) - 1} more)" if len(error.issues) > 1 else ""
    return InvalidRequest(f"invalid config: {first}{more}", details={"issues": [issue.to_json() for issue in error.issues]})


def _failed(name: str, error: BaseException) -> None:
    # Whoever waits for it is told by the exception itself.
    logger.debug("%s failed", name, exc_info=error)
