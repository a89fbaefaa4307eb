"""What LangChain had for long chats in its deprecated memories, set up as documented, for the recall test.

Each gives the prompt that a model would see of a dialogue within a budget of tokens. The vector memory brings back
passages and no recent turns, and here its vectors are of hashed words, which know no synonyms. It plants no fact.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from langchain_core.vectorstores import InMemoryVectorStore

from memory.hashed import HashedEmbeddings
from memory.langchain_messages import from_langchain, to_langchain
from memory.schema import Message
from memory.strategies.summarising import pick_sentences
from memory.window import Counter, WindowError


def classic_window(dialogue: Sequence[Message], budget: int, count: Counter) -> Sequence[Message]:
    """ConversationBufferWindowMemory with the largest k whose prompt fits."""
    from langchain_classic.memory import ConversationBufferWindowMemory

    memory = _quiet(ConversationBufferWindowMemory, return_messages=True)
    memory.chat_memory.add_messages([to_langchain(message) for message in dialogue[:-1]])
    for k in range(len(dialogue) // 2, 0, -1):
        memory.k = k
        prompt = [*_said(memory.load_memory_variables({})["history"]), dialogue[-1]]
        if count(prompt) <= budget:
            return prompt
    return [dialogue[-1]]


def classic_tokens(dialogue: Sequence[Message], budget: int, count: Counter) -> Sequence[Message]:
    """ConversationTokenBufferMemory, its model counting tokens as everybody does here."""
    from langchain_classic.memory import ConversationTokenBufferMemory

    room = budget - count([dialogue[-1]]) - 8
    memory = _quiet(
        ConversationTokenBufferMemory, llm=_counting(count), max_token_limit=room, return_messages=True
    )
    _talk(memory, dialogue)
    return [*_said(memory.load_memory_variables({})["history"]), dialogue[-1]]


def classic_summary(dialogue: Sequence[Message], budget: int, count: Counter) -> Sequence[Message]:
    """ConversationSummaryBufferMemory: two thirds for the newest messages, the rest for a summary by the same picking
    of sentences as ours, since both must have the same writer.
    """
    from langchain_classic.memory import ConversationSummaryBufferMemory

    class Picking(ConversationSummaryBufferMemory):
        def predict_new_summary(self, messages: Any, existing_summary: str) -> str:
            return pick_sentences(existing_summary, _said(messages), int(budget * 0.35 / 2 / 2))

    room = int((budget - count([dialogue[-1]])) * 0.65) - 8
    memory = _quiet(Picking, llm=_counting(count), max_token_limit=room, return_messages=True)
    _talk(memory, dialogue)
    prompt = [*_said(memory.load_memory_variables({})["history"]), dialogue[-1]]
    while count(prompt) > budget:
        prompt.pop(1)
    return prompt


def classic_vectors(dialogue: Sequence[Message], budget: int, count: Counter) -> Sequence[Message]:
    """VectorStoreRetrieverMemory over the same hashed vectors that ours can use: as many of the four nearest as fit."""
    from langchain_classic.memory import VectorStoreRetrieverMemory

    store = InMemoryVectorStore(HashedEmbeddings())
    memory = _quiet(VectorStoreRetrieverMemory, retriever=store.as_retriever(search_kwargs={"k": 4}))
    _talk(memory, dialogue)
    found = memory.load_memory_variables({"prompt": dialogue[-1].content})["history"]
    lines = found.splitlines()
    while lines and count([Message("system", "\n".join(lines)), dialogue[-1]]) > budget:
        lines.pop()
    return [Message("system", "\n".join(lines)), dialogue[-1]] if lines else [dialogue[-1]]


def _talk(memory: Any, dialogue: Sequence[Message]) -> None:
    for said, reply in zip(dialogue[:-1:2], dialogue[1::2], strict=False):
        memory.save_context({"input": said.content}, {"output": reply.content})


def _said(messages: Any) -> list[Message]:
    return [from_langchain(message) for message in messages]


def _quiet(kind: Any, **arguments: Any) -> Any:
    """One of the deprecated memories, without the warning that says so at every turn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**arguments)


def _counting(count: Counter) -> Any:
    from langchain_core.language_models import FakeListChatModel

    class Counting(FakeListChatModel):
        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            try:
                return count(_said(messages))
            except WindowError:
                return 0

    return Counting(responses=["-"])
