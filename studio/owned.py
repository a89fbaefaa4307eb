"""A person's own conversations: every call names the owner, and what belongs to others does not exist.

Unknown and foreign ids are refused in the same words, so nobody can find out which ids are real. This
module knows no policy and no page; it holds nothing about a visitor between calls.
"""

from __future__ import annotations

from memory.conversations import Conversations
from memory.schema import Conversation, Node
from studio.intake import ChatRefused, clean_message, title_of

NOT_HERE = "This conversation is not here. Choose one from your list, or start a new one."
MAX_SYSTEM_PROMPT_CHARS = 8_000
MAX_TITLE_CHARS = 120


class OwnedConversations:
    """`Conversations` behind a check of who is asking. Raises `ChatRefused` for what is not the owner's."""

    def __init__(self, conversations: Conversations, *, system_prompt: str = "") -> None:
        self._conversations = conversations
        self._system_prompt = system_prompt

    def begin(self, owner: str) -> Conversation:
        """A new, empty conversation with the studio's system prompt; its first message will name it."""
        return self._conversations.create(owner, system_prompt=self._system_prompt)

    def list(self, owner: str, *, limit: int = 200) -> list[Conversation]:
        """The owner's conversations, the most recently used first."""
        return self._conversations.list(owner, limit=limit)

    def get(self, owner: str, conversation_id: str) -> Conversation:
        """The conversation, when it is the owner's."""
        try:
            conversation = self._conversations.get(conversation_id)
        except KeyError as error:
            raise ChatRefused(NOT_HERE) from error
        if conversation.owner != owner:
            raise ChatRefused(NOT_HERE)
        return conversation

    def node(self, owner: str, node_id: str) -> Node:
        """The message, when it stands in one of the owner's conversations."""
        try:
            node = self._conversations.node(node_id)
        except KeyError as error:
            raise ChatRefused(NOT_HERE) from error
        self.get(owner, node.conversation_id)
        return node

    def path(self, owner: str, conversation_id: str, *, last: int | None = None) -> tuple[Node, ...]:
        """The messages being shown, first to last; with `last` only so many of them, the newest."""
        self.get(owner, conversation_id)
        return tuple(self._conversations.path(conversation_id, last=last))

    def said_before(self, owner: str, node: Node) -> int:
        """How many messages stand before this one on its path."""
        self.get(owner, node.conversation_id)
        return self._conversations.past_above(node).length

    def siblings(self, owner: str, node_id: str) -> tuple[Node, ...]:
        """The message and its alternatives (retries, edits), oldest first."""
        return tuple(self._conversations.siblings(self.node(owner, node_id).id))

    def show(self, owner: str, node_id: str) -> tuple[Node, ...]:
        """Show the branch through this message, down to its latest end; returns the new path."""
        node = self.node(owner, node_id)
        while below := self._conversations.children(node.conversation_id, node.id):
            node = below[-1]
        self._conversations.set_head(node.conversation_id, node.id)
        return tuple(self._conversations.path(node.conversation_id))

    def rename(self, owner: str, conversation_id: str, title: str) -> None:
        """Give the conversation another title."""
        self.get(owner, conversation_id)
        self._conversations.rename(conversation_id, title_of(clean_message(title, limit=MAX_TITLE_CHARS)))

    def set_system_prompt(self, owner: str, conversation_id: str, text: str) -> None:
        """Change what the policy is told before the conversation, from the next reply on; empty text
        removes it.
        """
        self.get(owner, conversation_id)
        cleaned = clean_message(text, limit=MAX_SYSTEM_PROMPT_CHARS) if text.strip() else ""
        self._conversations.set_system_prompt(conversation_id, cleaned)

    def hide(self, owner: str, conversation_id: str) -> None:
        """Take the conversation off the list; what was judged in it stays in the ledger."""
        self.get(owner, conversation_id)
        self._conversations.hide(conversation_id)
