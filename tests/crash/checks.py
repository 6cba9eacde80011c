"""What must hold of a block: each check gives a line for every violation."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from openclaw_plugins.conversation.outbox_rows import IN_DOUBT
from openclaw_plugins.conversation.recovery import MOST_RESUMES
from tests.crash.evidence import Evidence, Row
from tests.crash.load import Said
from tests.crash.model import read_order

TERMINAL = frozenset({"answered", "suppressed", "dead_lettered", "superseded"})
DELIVERED = frozenset({"sent", "unknown_after_send"})
STOP_MS = 1000
MODEL_RETRIES = 3
_TOKEN = re.compile(r"\bt\d{7}\b")
_MARKUP = re.compile(r"[*`_\\\s]+")


def everything(evidence: Evidence) -> list[str]:
    """All of it, of a block that has come to rest."""
    once = (accepted, ended, told_apart, one_turn, one_effect, one_copy)
    checks = (*once, nobody_left, gone_on, in_order, paired, stays_stopped, explained, silent)
    return [line for check in checks for line in check(evidence)]


def accepted(evidence: Evidence) -> list[str]:
    """P1: whatever somebody was told we have is on disk, once. Holds at any moment."""
    found = []
    rows = Counter(row["message_id"] for row in evidence.inbound)
    for said in evidence.told():
        count = rows[evidence.message_id(said)]
        if count != 1:
            found.append(f"P1: Telegram was told that we have {said.text!r} of {said.chat}; the ledger has it {count} times")
    for asked in evidence.asked:
        kept = len(evidence.rows_of(asked))
        if asked.answers and kept != 1:
            found.append(f"P1: {asked.method} with {asked.key} was answered {asked.answers}; on disk it is {kept} times")
        elif kept > 1:
            found.append(f"P5: {asked.method} with {asked.key} is on disk {kept} times")
    return found


def ended(evidence: Evidence) -> Iterator[str]:
    """P1: accepted == the sum of terminal states, each with its reason."""
    untold = [said.text for said in evidence.said if said.update_id >= evidence.confirmed_below]
    if untold:
        yield f"P1: Telegram still has {untold}"
    # A request that a client got an error for may have been taken all the same: the error may be how its turn ended.
    requests = [asked for asked in evidence.asked if asked.method != "send" and (asked.answers or evidence.rows_of(asked))]
    expected = len(evidence.told()) + len(requests)
    terminal = sum(row["state"] in TERMINAL for row in evidence.inbound)
    if not expected == terminal == len(evidence.inbound):
        yield f"P1: {expected} were accepted, {terminal} of {len(evidence.inbound)} rows are terminal: {evidence.ends()}"
    for row in evidence.inbound:
        if row["state"] not in TERMINAL:
            yield f"P1: {_name(row)} has not ended: {row['state']}"
        elif row["state"] != "answered" and not row["reason"]:
            yield f"P1: {_name(row)} is {row['state']} without a reason"
    for row in evidence.outbox:
        if row["state"] not in DELIVERED:
            yield f"P5: the delivery {row['text']!r} to {row['peer_id']} ended as {row['state']}: {row['error']}"


def told_apart(evidence: Evidence) -> Iterator[str]:
    """Every row is something that was sent."""
    messages = {evidence.message_id(said) for said in evidence.said}
    keys = {asked.key for asked in evidence.asked}
    for row in evidence.inbound:
        if row["message_id"] not in messages and row["run_id"] not in keys:
            yield f"{_name(row)} was sent by nobody"


def one_turn(evidence: Evidence) -> Iterator[str]:
    """P5: one run a message; it stands in the transcript once, and so does its answer."""
    runs = defaultdict(list)
    for run in evidence.runs:
        runs[run["inbound_id"]].append(run)
        if run["ended_ms"] is None:
            yield f"P9: the run {run['run_id']} in {run['session_key']} has not ended"
    for row in evidence.inbound:
        if len(runs[row["id"]]) > 1:
            yield f"P5: {_name(row)} has {len(runs[row['id']])} runs: {[run['state'] for run in runs[row['id']]]}"
    questions = Counter(_token(row) for row in evidence.messages if row["role"] == "user")
    answers = Counter(token for row in evidence.messages if row["role"] == "assistant" for token in _whole(_text(row["body"])))
    for kind, counts in (("question", questions), ("answer", answers)):
        for token, count in counts.items():
            if count > 1:
                yield f"P5: the {kind} {token} stands in the transcript {count} times"
    yield from _asked_again(evidence)


def _asked_again(evidence: Evidence) -> Iterator[str]:
    # Not the attempts of the ledger, which leave out those that a stop in order broke off.
    begun = {run["inbound_id"]: 1 + run["resumes"] for run in evidence.runs}
    times = {_token(row): begun.get(row["id"], 0) for row in evidence.inbound}
    failing = {said.order.token for said in evidence.said if said.order is not None and said.order.fail}
    for (token, results), count in Counter((ask["token"], ask["results"]) for ask in evidence.asks).items():
        allowed = max(1, times.get(token, 0)) + (MODEL_RETRIES if token in failing else 0)
        if count > allowed:
            yield f"P5: the model was asked {count} times for {token} with {results} results, begun {times.get(token)} times"


def one_effect(evidence: Evidence) -> Iterator[str]:
    """A call with effects runs at most once; one that is said to be done was done."""
    effects = Counter((line["token"], line["tool"]) for line in evidence.effects)
    steps = Counter((line["token"], line["step"]) for line in evidence.effects if line["tool"] == "append")
    for (token, step), count in steps.items():
        if count > 1:
            yield f"P4: the side-effecting call {step} of {token} ran {count} times"
    done: Counter[tuple[str, str]] = Counter()
    for row in evidence.messages:
        words = _text(row["body"]).split() if row["role"] not in ("user", "assistant") else []
        if words[-2:] == ["is", "done"]:
            done[words[-3], words[-5]] += 1
    for (token, tool), count in done.items():
        if effects[token, tool] < count:
            yield f"P10: the transcript says {count} times that {tool} of {token} is done; it ran {effects[token, tool]} times"


def one_copy(evidence: Evidence) -> Iterator[str]:
    """P5: what is sent is seen once, what is in doubt at most once, and nothing else is seen but beginnings of what broke off."""
    for chat, messages in evidence.visible.items():
        rows = [row for row in evidence.outbox if row["peer_id"] == str(chat)]
        sent = Counter(_plain(row["text"]) for row in rows if row["state"] == "sent")
        doubtful = Counter(_plain(row["text"]) for row in rows if row["state"] == "unknown_after_send")
        seen = Counter(_plain(message["text"]) for message in messages)
        answers = [said.order.answer for said in evidence.said if said.chat == chat and said.order is not None]
        for text in seen.keys() | sent.keys():
            begun = text.rstrip(" …")
            if not sent[text] and any(begun != answer and answer.startswith(begun) for answer in answers):
                continue
            most = sent[text] + doubtful[text]
            if text == _plain(IN_DOUBT):
                # Said again where it may not have arrived: read twice it says nothing wrong.
                most = sum(row["attempts"] for row in rows if row["text"] == IN_DOUBT)
            if not sent[text] <= seen[text] <= most:
                yield f"P5: {text!r} is seen {seen[text]} times in {chat}: sent {sent[text]}, in doubt {doubtful[text]}"
    copies = Counter(token for messages in evidence.visible.values() for message in messages for token in _whole(message["text"]))
    for token, count in copies.items():
        if count > 1:
            yield f"P5: the answer to {token} is seen {count} times"


def nobody_left(evidence: Evidence) -> Iterator[str]:
    """P1: each person is answered, or told that it failed, or was a stranger, or said stop."""
    for number, said in enumerate(evidence.said):
        row = evidence.row_of(said)
        if row is None:
            continue
        replies = [reply for reply in evidence.replies_to(row) if reply["text"] != IN_DOUBT]
        if said.kind == "stranger":
            if row["state"] != "suppressed":
                yield f"the stranger {_name(row)} is {row['state']}"
            continue
        if row["state"] in ("answered", "dead_lettered") and len(replies) != 1:
            yield f"P1: {_name(row)} is {row['state']} ({row['reason']}) with {len(replies)} replies: {[one['text'] for one in replies]}"
        if row["state"] == "suppressed" and not _stop_after(evidence.said, number):
            yield f"P1: {_name(row)} is suppressed ({row['reason']}), and nobody in its chat said stop"
    for chat in evidence.visible:
        rows = [row for row in evidence.outbox if row["peer_id"] == str(chat)]
        doubtful = [row for row in rows if row["state"] == "unknown_after_send" and row["run_id"] and row["inbound_id"]]
        notices = [row for row in rows if row["text"] == IN_DOUBT]
        if len(doubtful) != len(notices):
            yield f"P5: {len(doubtful)} answers to {chat} are in doubt, of {len(notices)} the person is told"


def gone_on(evidence: Evidence) -> Iterator[str]:
    """P4: a turn that was cut off is only given up where a call may have taken effect, or where that happened too often."""
    asked = [read_order(asked.params["message"]) for asked in evidence.asked if asked.method != "send"]
    orders = {order.token: order for order in (*asked, *(said.order for said in evidence.said)) if order is not None}
    for row in evidence.inbound:
        order = orders.get(_token(row))
        if row["state"] != "dead_lettered" or order is None or order.fail:
            continue
        in_doubt = "append" in order.tools and "the tool append was at work" in row["reason"]
        if not in_doubt and row["attempts"] <= MOST_RESUMES:
            yield f"P4: {_name(row)} was begun {row['attempts']} times and given up: {row['reason']}"


def in_order(evidence: Evidence) -> Iterator[str]:
    """P1: in each chat the answers come in the order of the questions."""
    for chat, messages in evidence.visible.items():
        asked = [said.order.token for said in evidence.said if said.chat == chat and said.order is not None]
        places = [asked.index(token) for message in messages for token in _whole(message["text"]) if token in asked]
        if places != sorted(places):
            yield f"P1: in {chat} the answers came in the order {[asked[place] for place in places]}"


def paired(evidence: Evidence) -> Iterator[str]:
    """P10: in the transcript each tool call has its result behind it, and no request was refused for its form."""
    sessions = defaultdict(list)
    for row in evidence.messages:
        sessions[row["session_id"]].append(row)
    for session_id, rows in sessions.items():
        waiting: set[str] = set()
        for row in sorted(rows, key=lambda each: int(each["seq"])):
            body = row["body"]
            if row["role"] in ("user", "assistant"):
                if waiting:
                    yield f"P10: {session_id} seq {row['seq']}: no result of {sorted(waiting)}"
                waiting = set(_calls(body))
            else:
                call = body.get("toolCallId")
                if call not in waiting:
                    yield f"P10: {session_id} seq {row['seq']}: a result of {call}, which nobody called"
                waiting.discard(call)
        if waiting:
            yield f"P10: {session_id}: no result of {sorted(waiting)} at its end"
    for ask in evidence.asks:
        if ask["refused"]:
            yield f"P10: the model refused a request for {ask['token']}: {ask['refused']}"


def stays_stopped(evidence: Evidence) -> Iterator[str]:
    """A stop that was acknowledged holds, also over a restart."""
    for number, said in enumerate(evidence.said):
        row = evidence.row_of(said) if said.kind == "stop" else None
        told = [reply["created_ms"] for reply in evidence.replies_to(row) if reply["text"].startswith("Stopped")] if row is not None else []
        for stopped_ms in told:
            for earlier in evidence.said[:number]:
                if earlier.chat == said.chat and earlier.order is not None:
                    yield from _went_on(evidence, earlier, stopped_ms)


def _went_on(evidence: Evidence, said: Said, stopped_ms: int) -> Iterator[str]:
    token = said.order.token if said.order is not None else ""
    for what, lines in (("the model was asked", evidence.asks), ("a tool ran", evidence.effects)):
        late = [round(line["at"] * 1000) - stopped_ms for line in lines if line["token"] == token]
        if any(delay > STOP_MS for delay in late):
            yield f"stop: {what} for {token} {max(late)} ms after its stop was acknowledged"
    row = evidence.row_of(said)
    for reply in evidence.replies_to(row) if row is not None else ():
        if reply["created_ms"] > stopped_ms and token in _whole(reply["text"]):
            yield f"stop: {token} was answered {reply['created_ms'] - stopped_ms} ms after its stop was acknowledged"


def explained(evidence: Evidence) -> Iterator[str]:
    """Every id can be asked why, and the answer is true."""
    for identity, row in evidence.identities().items():
        answer = evidence.why.get(identity, {"failed": "nobody asked"})
        if "failed" in answer:
            yield f"why {identity}: {answer['failed']}"
            continue
        deliveries = {one["deliveryId"]: one["state"] for one in answer["deliveries"]}
        if "outbox_id" in row:
            if deliveries.get(row["outbox_id"]) != row["state"]:
                yield f"why {identity}: it is {row['state']}, told is {deliveries}"
            continue
        message = answer["message"]
        if (message["state"], message["reason"]) != (row["state"], row["reason"]):
            yield f"why {identity}: it is {row['state']} ({row['reason']}), told is {message['state']} ({message['reason']})"
        if deliveries != {reply["outbox_id"]: reply["state"] for reply in evidence.replies_to(row)}:
            yield f"why {identity}: of its deliveries told is {deliveries}"
        # A client names its session itself, so that nobody decides.
        route = "named" if message["fromClient"] else message["route"]["reason"]
        if not all([route, message["admission"]["verdict"], message["endedMs"]]):
            yield f"why {identity}: not told is who decided, or when it ended: {message}"


def silent(evidence: Evidence) -> Iterator[str]:
    """The log has no errors."""
    for line, count in Counter(_error(text) for text in evidence.errors).items():
        yield f"the log has {count} times: {line}"


def unchanged(before: Evidence, after: Evidence) -> list[str]:
    """A start without anything new changes nothing."""
    found = []
    if before.ends() != after.ends() or before.deliveries() != after.deliveries():
        found.append(f"another start changed {before.ends()} {before.deliveries()} to {after.ends()} {after.deliveries()}")
    for chat, messages in after.visible.items():
        texts = [message["text"] for message in before.visible.get(chat, [])]
        if [message["text"] for message in messages] != texts:
            found.append(f"another start changed what {chat} sees: {texts} to {[message['text'] for message in messages]}")
    if len(after.asks) != len(before.asks) or len(after.effects) != len(before.effects):
        found.append("another start asked the model, or ran a tool")
    return found


# --- reading ----------------------------------------------------------------------------------------------------------


def _error(text: str) -> str:
    try:
        record = json.loads(text)
    except ValueError:
        return text
    last = str(record.get("error", "")).strip().rpartition("\n")[2]
    return f"{record.get('message')} {last}".strip()


def _name(row: Row) -> str:
    return f"{row['channel']} {row['message_id']} {row['body'].get('text')!r}"


def _token(row: Row) -> str:
    """The token in a message of the ledger or of the transcript."""
    found = _TOKEN.search(row["body"]["text"] if "text" in row["body"] else _text(row["body"]))
    return found.group() if found is not None else f"none in row {row['id']}"


def _text(body: dict[str, Any]) -> str:
    content = body.get("content")
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content or [] if isinstance(part, dict))


def _calls(body: dict[str, Any]) -> list[str]:
    content = body.get("content")
    parts = content if isinstance(content, list) else []
    return [part["id"] for part in parts if isinstance(part, dict) and part.get("type") == "toolCall"]


def _whole(text: str) -> list[str]:
    """The tokens whose answers stand in a text to their end."""
    return [token for token in _TOKEN.findall(text) if f"end of {token}" in text][:1]


def _plain(text: str) -> str:
    return _MARKUP.sub(" ", text).strip()


def _stop_after(said: Sequence[Said], number: int) -> bool:
    return any(later.kind == "stop" and later.chat == said[number].chat for later in said[number + 1 :])
