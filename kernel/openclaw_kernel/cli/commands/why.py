"""`openclaw-kernel why ID`: the way of one message, from its arrival to its end."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from openclaw_kernel.cli.errors import unknown_shape
from openclaw_kernel.cli.exits import FAILED, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import GREEN, RED, YELLOW, duration, emit, emit_json, harmless, note, one_line, paint_out, table

Part = Mapping[str, Any]

EXACT_BELOW_MS: Final = 10_000

_COLOURS: Final = {
    "answered": GREEN,
    "sent": GREEN,
    "suppressed": YELLOW,
    "superseded": YELLOW,
    "unknown_after_send": YELLOW,
    "failed": RED,
    "dead_lettered": RED,
}
_DEAD: Final = frozenset({"dead_lettered", "failed", "unknown_after_send"})


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
The id is that of a run, of a message on its platform (also with its chat and channel: telegram:42:7), of a delivery, one of the ledger
(m12, as this command and dead list print it), or the beginning of one. Where it can mean several, they are listed."""
    parser = commands.add("why", "tell what became of a message, and why", run=run, asks_gateway=True, details=details)
    parser.add_argument("id", metavar="ID", help="an id of the message, its run or its delivery")


def run(options: argparse.Namespace) -> int:
    """Ask and show."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        answer = client.request("messages.why", {"id": options.id})
    several = "candidates" in answer
    if options.json:
        emit_json(answer)
        return FAILED if several else OK
    answer = harmless(answer)
    try:
        if several:
            note(f"why: {options.id!r} can mean several; name one of them by its id")
            emit(table([(one["id"], one["about"]) for one in answer["candidates"]], head=("ID", "WHAT")))
            return FAILED
        show(answer)
    except KeyError as missing:
        raise unknown_shape("messages.why", missing) from missing
    return OK


def show(answer: Part) -> None:
    """Lay the way of one message or delivery out for people."""
    message = answer["message"]
    if answer.get("swept"):
        _show_swept(answer["swept"])
    if answer.get("note"):
        _show_note(answer["note"])
    for request in answer.get("requests", ()):
        failed = f", refused with {request['error']}" if request["error"] else ""
        emit(
            f"{clock(request['createdMs'])}  {request['method']} by {request['principal']}, {request['state']}{failed}; it made no message"
        )
    if message is not None:
        _show_message(message, answer.get("waitsBehind", ()))
    for number, turn in enumerate(answer["turns"], 1):
        _show_turn(number, turn)
    _show_blocks(answer.get("loopBlocks", ()))
    for delivery in answer["deliveries"]:
        _show_delivery(delivery)
    for entry in answer["history"]:
        emit(f"{clock(entry['atMs'])}  {entry['action']} of the {entry['what']} by {entry['by']}; it was {_ended(entry)}")
    if message is not None:
        emit("")
        emit(f"{message['ledgerId']} is {paint_out(_ended(message), _COLOURS.get(message['state'], ''))}")
        if message["state"] == "dead_lettered" and message["forgottenMs"] is None:
            emit(f"another turn: openclaw-kernel dead retry {message['ledgerId']}")


def _show_blocks(blocks: Sequence[Part]) -> None:
    for block in blocks:
        who = f"plugin {block['plugin']}" if block["plugin"] else "no plugin's code"
        emit(f"{clock(block['atMs'])}  everything had waited for {block['ms'] / 1000:.1f} s: the event loop was kept by {who}")


def clock(milliseconds: float | None) -> str:
    """A time of this machine's clock, to the millisecond."""
    if milliseconds is None:
        return "not written down"
    try:
        seconds = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(milliseconds / 1000))
    except (OverflowError, OSError, ValueError):
        return f"{milliseconds:.0f} ms, which is no time"
    return f"{seconds}.{int(milliseconds) % 1000:03d}"


def quoted(part: Part) -> str:
    """A text as it was shortened, marked where something is missing."""
    text = one_line(part["text"], 200)
    shortened = part["textShortened"] or text.endswith("…")
    return f"“{text}”{' (shortened)' if shortened else ''}"


def _show_message(message: Part, ahead: Sequence[str]) -> None:
    sender = message["sender"]
    name = one_line(f"{sender['name']} ({sender['id']})" if sender["name"] else str(sender["id"]))
    rows: list[tuple[str, object]] = [
        ("message", f"{message['ledgerId']}: {message['messageId']} on {message['channel']}, account {message['accountId']}"),
        ("from", f"{name}{', a client of the gateway' if message['fromClient'] else ''}"),
        ("text", quoted(message)),
        ("received", f"{clock(message['receivedMs'])}, accepted {clock(message['acceptedMs'])}"),
        ("route", _route(message["route"])),
        ("admission", _admission(message["admission"])),
        ("queue", _queue(message, ahead)),
    ]
    if message["stopAskedMs"] is not None:
        rows.append(("stop", f"asked {clock(message['stopAskedMs'])}"))
    if message["endedMs"] is not None:
        rows.append(("ended", clock(message["endedMs"])))
    emit(table(rows))


def _route(route: Part) -> str:
    if not route["sessionKey"]:
        return "not decided"
    return f"{route['sessionKey']}, agent {route['agentId']}: {route['reason'] or 'named by the client'}"


def _admission(admission: Part) -> str:
    if not admission["verdict"]:
        return "not written down"
    return f"{admission['verdict']}: {admission['reason']}"


def _queue(message: Part, ahead: Sequence[str]) -> str:
    if message["queueWaitMs"] is not None:
        since = f"queued {clock(message['queuedMs'])}, " if message["queuedMs"] is not None else ""
        return f"{since}turn began {clock(message['begunMs'])}, after {milliseconds(message['queueWaitMs'])}"
    if ahead:
        return f"waits behind {', '.join(ahead)}"
    return "no turn has begun" if message["endedMs"] is None else "no turn began"


def _show_turn(number: int, turn: Part) -> None:
    emit("")
    took = _took(turn["startedMs"], turn["endedMs"])
    resumed = f", resumed {turn['resumes']} times" if turn["resumes"] else ""
    emit(f"turn {number}: run {turn['runId']}, {turn['state']}{took}{resumed}{_spent(turn)}")
    if turn["error"]:
        emit(f"  error: {one_line(turn['error'], 300)}")
    if turn["steps"]:
        rows = [(step["kind"], step["name"], *_step(step)) for step in turn["steps"]]
        emit("\n".join(f"  {line}" for line in table(rows).splitlines()))
    if turn["moreSteps"]:
        emit("  and further calls that are not shown")


def _step(step: Part) -> Iterator[str]:
    yield str(step["state"])
    yield clock(step["startedMs"])
    yield milliseconds(step["endedMs"] - step["startedMs"]) if step["endedMs"] is not None else "-"
    yield ", ".join(filter(None, (step["retryClass"], _spent(step).removeprefix(", "), one_line(step["error"] or ""))))


def _spent(part: Part) -> str:
    used = part["inputTokens"] + part["cacheReadTokens"] + part["cacheWriteTokens"]
    tokens = f", {used} tokens in, {part['outputTokens']} out" if used or part["outputTokens"] else ""
    return f"{tokens}, ${part['costUsd']:.4f}" if part["costUsd"] is not None else tokens


def _show_delivery(delivery: Part) -> None:
    emit("")
    place = delivery["place"]
    thread = f", thread {place['threadId']}" if place["threadId"] else ""
    emit(
        f"{delivery['kind']} {delivery['deliveryId']} to {place['peerKind']} {place['peerId']}{thread}"
        f" on {delivery['channel']}, account {delivery['accountId']}: {paint_out(_ended(delivery), _COLOURS.get(delivery['state'], ''))}"
    )
    files = f", {delivery['files']} files" if delivery["files"] else ""
    emit(f"  text: {quoted(delivery)}{files}")
    for attempt in delivery["attemptLog"]:
        pause = f", the platform asked for {milliseconds(attempt['retryAfterMs'])}" if attempt["retryAfterMs"] is not None else ""
        error = f": {one_line(attempt['error'], 200)}" if attempt["error"] else ""
        emit(f"  attempt {attempt['number']}: {clock(attempt['startedMs'])}, {attempt['outcome']}{error}{pause}")
    if len(delivery["attemptLog"]) < delivery["attempts"]:
        emit(f"  of {delivery['attempts']} attempts the last {len(delivery['attemptLog'])} are kept")
    if delivery["platformIds"]:
        emit(f"  receipt: {', '.join(delivery['platformIds'])}")
    if delivery["nextAttemptMs"] is not None:
        emit(f"  next attempt: {clock(delivery['nextAttemptMs'])}")
    if delivery["state"] in _DEAD and delivery["forgottenMs"] is None:
        emit(f"  send it again: openclaw-kernel dead retry {delivery['deliveryId']}")


def _show_swept(swept: Part) -> None:
    emit(
        f"{swept['what']} {swept['name']} on {swept['channel']} ended as {swept['state']} at {clock(swept['endedMs'])};"
        " the ledger kept the rest for its days (ledgerDays) and has deleted it"
    )


def _show_note(shown: Part) -> None:
    emit(f"{clock(shown['createdMs'])}  written into the transcript of {shown['sessionKey'] or shown['sessionId']} by the {shown['role']}")
    emit(f"  text: {quoted(shown)}")
    emit("  no message of the ledger belongs to it: it was injected, or the ledger has deleted the message")


def _ended(part: Part) -> str:
    reason = part.get("reason") or part.get("error")
    return f"{part['state']}: {one_line(reason, 300)}" if reason else str(part["state"])


def _took(started: float | None, ended: float | None) -> str:
    return "" if started is None or ended is None else f" in {milliseconds(ended - started)}"


def milliseconds(span: float) -> str:
    """A span of time, exact where it is short."""
    return f"{max(0, int(span))} ms" if span < EXACT_BELOW_MS else duration(span)
