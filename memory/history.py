"""A conversation as LangChain sees it: a chat message history over the same rows, for anyone's chain.

Reading gives the path that is shown, with the system prompt first; adding says something at its end; clearing
shows an empty path and deletes nothing. It keeps no copy, and knows neither turns nor judgements.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from memory.conversations import Conversations
from memory.langchain_messages import from_langchain, to_langchain
from memory.schema import Message


class LedgerHistory(BaseChatMessageHistory):
    """The shown path of one conversation. Works with LangChain's `RunnableWithMessageHistory`."""

    def __init__(self, conversations: Conversations, conversation_id: str) -> None:
        """Over an existing conversation. Raises `UnknownConversation` when there is none with this id."""
        super().__init__()
        conversations.get(conversation_id)
        self._conversations = conversations
        self._conversation_id = conversation_id

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # LangChain allows "a property or attribute"
        """The system prompt, if there is one, and the path to the head; the ids are those of the nodes."""
        prompt = self._conversations.get(self._conversation_id).system_prompt
        opening = [to_langchain(Message("system", prompt))] if prompt else []
        path = self._conversations.path(self._conversation_id)
        return [*opening, *(to_langchain(node.message, message_id=node.id) for node in path)]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Say `messages`, one after the other, at the end of the path.

        Raises `ValueError` and says none of them where one is a system message (set the conversation's prompt
        instead) or is not plain text.
        """
        said = [from_langchain(message) for message in messages]
        if any(message.role == "system" for message in said):
            raise ValueError("A system message cannot be said; use Conversations.set_system_prompt.")
        head = self._conversations.get(self._conversation_id).head
        for message in said:
            head = self._conversations.append(self._conversation_id, message, parent=head).id

    def clear(self) -> None:
        """Start over with an empty path. What was said stays in the tree."""
        self._conversations.set_head(self._conversation_id, None)
