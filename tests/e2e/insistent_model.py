"""A model that does what the last message says: `python -m tests.e2e.insistent_model --port 0`.

`loop` asks for the tool `mark`, again and again; `hang` gets no answer, ever; `call NAME ARGUMENTS` asks once for that tool; anything
else is answered with `answer to` and itself.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.crash.model import text_of
from tests.emulators.model_common import Settings, ToolCallTurn, Turn, main
from tests.emulators.openai import MODELS, OpenAIEmulator

CALL = re.compile(r"call (\w+) (\{.*\})", re.DOTALL)


class InsistentModel(OpenAIEmulator):
    """Answers each request by its last message of a person."""

    def _next_turn(self, body: dict[str, Any]) -> Turn:
        results = 0
        for message in reversed(body["messages"]):
            if message["role"] == "user":
                return self._turn(text_of(message), results)
            results += message["role"] == "tool"
        return super()._next_turn(body)

    def _turn(self, text: str, results: int) -> Turn:
        if "loop" in text:
            return Turn(tool_calls=[ToolCallTurn(name="mark", arguments={"step": results})])
        if "hang" in text:
            return Turn(hang=True)
        called = CALL.search(text)
        if called is not None and not results:
            return Turn(tool_calls=[ToolCallTurn(name=called[1], arguments=json.loads(called[2]))])
        return Turn(text=f"answer to {text}")


if __name__ == "__main__":
    main(InsistentModel, Settings(context_tokens=128_000, models=MODELS))
