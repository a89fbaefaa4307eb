"""Our messages as LangChain's and back. Text only: what would be lost in translation is refused."""

from __future__ import annotations

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from memory.schema import Message


def to_langchain(message: Message, *, message_id: str | None = None) -> BaseMessage:
    """The message in LangChain's class for its role."""
    match message.role:
        case "system":
            return SystemMessage(message.content, id=message_id)
        case "user":
            return HumanMessage(message.content, id=message_id)
        case "assistant":
            return AIMessage(message.content, id=message_id)


def from_langchain(message: BaseMessage) -> Message:
    """The message with its role.

    Raises `ValueError` for other kinds of message, tool calls, and content that is not all text.
    """
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        raise ValueError("The message calls tools; expected plain text. Keep tool calls out of this chat.")
    text = message.content if isinstance(message.content, str) else _joined(message.content)
    if isinstance(message, SystemMessage):
        return Message("system", text)
    if isinstance(message, HumanMessage):
        return Message("user", text)
    if isinstance(message, AIMessage):
        return Message("assistant", text)
    raise ValueError(f"Message type is {message.type!r}; expected 'system', 'human' or 'ai'.")


def _joined(parts: list[str | dict[str, object]]) -> str:
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("The message holds parts that are not text (images, audio); expected plain text.")
    return "".join(str(text) for text in texts)
