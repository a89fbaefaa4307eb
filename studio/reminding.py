"""What the policy is reminded of: the prompt for the next reply of a conversation, by the way that it has chosen.

The prompt made here is the whole of what the policy sees, and is stored with the turn. Making it reads only what is
there already; whatever takes time (summaries, embeddings) is made on a thread of its own after a reply has begun, and
the next prompt has it. This module starts no reply and writes no message.
"""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass

from langchain_core.embeddings import Embeddings
from langchain_core.language_models.chat_models import BaseChatModel

from memory.conversations import Conversations
from memory.database import Database, StorageError
from memory.embedded import EmbeddedRecollection, VectorShelf
from memory.facts import Facts
from memory.hashed import HashedEmbeddings
from memory.past import Followed, Past
from memory.schema import Conversation, Message
from memory.search import StoredRecollection
from memory.strategies.choosing import strategy_for
from memory.strategies.preparing import Prepared, Request, density, left_out_before
from memory.strategies.recall import Recollection
from memory.strategies.summarising import WrittenSummary, pick_sentences
from memory.strategies.summary import Summarise, advance, words_for
from memory.summaries import StoredSummaries
from studio.intake import ChatRefused
from studio.policy.interface import Policy
from studio.settings import StudioSettings

logger = logging.getLogger(__name__)

AHEAD = 0.85
"""Summaries are made as if the budget were so much smaller, so that the next message finds them made."""
STEPS_AT_ONCE = 8
NEXT_MESSAGE = Message("user", "?")


@dataclass(frozen=True)
class _Maker:
    """What makes summaries, and its name: another maker's summaries are not mixed with its own."""

    name: str
    summarise: Summarise


class Reminder:
    """Prepares prompts, and keeps summaries and embeddings up with the conversations. Thread-safe; close it."""

    def __init__(
        self, settings: StudioSettings, *, database: Database, conversations: Conversations, policy: Policy
    ) -> None:
        self._settings = settings
        self._database = database
        self._conversations = conversations
        self._policy = policy
        self._facts = Facts(database)
        self._density = 4.0
        self._maker = _maker(settings.summarise_with, policy)
        embeddings = _embeddings(settings.recall_with)
        self._shelf = (
            None if embeddings is None else VectorShelf(database, embeddings, maker=settings.recall_with)
        )
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="reminder", daemon=True)
        self._thread.start()

    @property
    def budget(self) -> int:
        """Most tokens of a prompt: the model's context, less the longest reply."""
        return self._policy.context_tokens - self._settings.max_new_tokens

    def prepare(self, conversation: Conversation, past: Past) -> Prepared:
        """The prompt for the reply to the end of `past`. Raises `ChatRefused` where none fits."""
        strategy = strategy_for(
            conversation.memory or self._settings.remember,
            summaries=self._summaries(conversation.id),
            recollection=self._recollection(conversation),
        )
        try:
            prepared = strategy.prepare(self._request(conversation, past))
        except ValueError as error:  # too long, or nothing that the chat template can express
            raise ChatRefused(str(error)) from error
        self._density = density(prepared)
        return prepared

    def keep_up(self, conversation_id: str) -> None:
        """Have summaries and embeddings made of what is new in the conversation. Returns at once."""
        self._queue.put(conversation_id)

    def catch_up(self, conversation_id: str) -> bool:
        """Make what is missing, at most `STEPS_AT_ONCE` summaries; True when there is more to do. Blocks."""
        conversation = self._conversations.get(conversation_id)
        name = conversation.memory or self._settings.remember
        if "recall" in name and self._shelf is not None:
            self._shelf.catch_up(conversation_id)
        if "summary" not in name:
            return False
        past = self._conversations.past(conversation_id)
        request = self._request(conversation, Followed(past, NEXT_MESSAGE), share=AHEAD)
        made = advance(
            self._summaries(conversation_id),
            past,
            upto=min(past.length, left_out_before(request)),
            summarise=self._maker.summarise,
            most_words=words_for(self.budget),
            most_steps=STEPS_AT_ONCE,
        )
        return made == STEPS_AT_ONCE

    def close(self) -> None:
        """Finish what is under way and stop; the rest is made when the conversation goes on."""
        self._queue.put(None)
        self._thread.join(timeout=10.0)

    def _request(self, conversation: Conversation, past: Past, *, share: float = 1.0) -> Request:
        return Request(
            system=conversation.system_prompt,
            past=past,
            budget=int(self.budget * share),
            count_tokens=self._policy.count_tokens,
            facts=self._facts_of(conversation.owner),
            characters_per_token=self._density,
        )

    def _facts_of(self, owner: str) -> tuple[str, ...]:
        if not self._settings.remember_facts:
            return ()
        return tuple(fact.text for fact in self._facts.list(owner))

    def _summaries(self, conversation_id: str) -> StoredSummaries:
        return StoredSummaries(self._database, conversation_id, maker=self._maker.name)

    def _recollection(self, conversation: Conversation) -> Recollection:
        if self._shelf is None:
            return StoredRecollection(self._database, conversation.owner, elsewhere=conversation.elsewhere)
        return EmbeddedRecollection(
            self._database, self._shelf, conversation.owner, elsewhere=conversation.elsewhere
        )

    def _run(self) -> None:
        while (conversation_id := self._queue.get()) is not None:
            try:
                if self.catch_up(conversation_id):
                    self._queue.put(conversation_id)
            except (StorageError, ChatRefused) as error:
                logger.warning("Conversation %s is not summarised yet: %s", conversation_id, error)
            except Exception:
                logger.exception("Conversation %s could not be summarised or embedded", conversation_id)


def _maker(name: str, policy: Policy) -> _Maker:
    if name == "picked":
        return _Maker("picked", pick_sentences)
    if name == "policy":
        if not isinstance(policy, BaseChatModel):
            raise ValueError(
                "summarise_with is 'policy', but this policy is no LangChain chat model; use 'picked'."
            )
        return _Maker(f"policy:{policy.identity}", WrittenSummary(policy))
    from langchain.chat_models import init_chat_model

    return _Maker(name, WrittenSummary(init_chat_model(name)))


def _embeddings(name: str) -> Embeddings | None:
    if name == "words":
        return None
    if name == "hashed":
        return HashedEmbeddings()
    from langchain.embeddings import init_embeddings

    return init_embeddings(name)
