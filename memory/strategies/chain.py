"""Any strategy as a LangChain `Runnable`: messages in, the messages that the model should see out.

Put it before a model (``remember | model``), also under `RunnableWithMessageHistory` and in a node of a LangGraph graph
whose checkpointer keeps the messages. It holds no conversation: everything it knows it is given with the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig

from memory.langchain_messages import from_langchain, to_langchain
from memory.past import ListedPast
from memory.strategies.preparing import Prepared, Request, Strategy
from memory.window import Counter

Given = PromptValue | Sequence[BaseMessage]


class Remember(Runnable[Given, list[BaseMessage]]):
    """Trims a list of messages, system message first, to `budget` tokens by `strategy`.

    Messages that are kept come out as the objects that went in. Raises `ValueError` for messages that are not text,
    and `memory.window.WindowError` where nothing fits.
    """

    def __init__(
        self, strategy: Strategy, *, budget: int, count_tokens: Counter, facts: Sequence[str] = ()
    ) -> None:
        self._strategy = strategy
        self._budget = budget
        self._count_tokens = count_tokens
        self._facts = tuple(facts)

    def invoke(self, input: Given, config: RunnableConfig | None = None, **_kwargs: Any) -> list[BaseMessage]:
        """The prompt as messages."""
        return self._call_with_config(self._remember, input, config)

    def prepare(self, messages: Sequence[BaseMessage]) -> Prepared:
        """The prompt and what it is made of."""
        ours = [from_langchain(message) for message in messages]
        system = ours[0].content if ours and ours[0].role == "system" else ""
        said = ours[1:] if ours and ours[0].role == "system" else ours
        return self._strategy.prepare(
            Request(system, ListedPast(said), self._budget, self._count_tokens, self._facts)
        )

    def _remember(self, given: Given) -> list[BaseMessage]:
        messages = given.to_messages() if isinstance(given, PromptValue) else list(given)
        prepared = self.prepare(messages)
        known = {(message.type, message.text): message for message in messages}
        made = [to_langchain(message) for message in prepared.messages]
        return [known.get((message.type, message.text), message) for message in made]
