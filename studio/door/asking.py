"""What a request asks, in the studio's own words: messages to answer, a version by name, and how to draw replies.

Nothing is trimmed: a client says what the policy is to see, and is told when that does not fit. Text is cleaned as the
chat cleans it. This module knows no policy, no conversation and no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass

from memory.schema import Message
from studio.door.problems import Problem
from studio.door.shapes import ChatMessage, ChatRequest
from studio.intake import ChatRefused, clean_message
from studio.settings import StudioSettings


@dataclass(frozen=True)
class Asked:
    """`messages` ends with a user's; only its first may be the system's. `seed` None draws one for each reply."""

    messages: tuple[Message, ...]
    model: str
    temperature: float
    top_p: float
    most_tokens: int
    stop: tuple[str, ...]
    seed: int | None
    count: int
    user: str


def read(request: ChatRequest, settings: StudioSettings) -> Asked:
    """What `request` asks. Raises `Problem` for what this studio cannot answer."""
    count = request.n or 1
    if count > settings.max_rows:
        raise Problem(
            400,
            "invalid_value",
            f"n: {count} replies; at most {settings.max_rows} are made at once.",
            param="n",
        )
    return Asked(
        messages=_messages(request.messages, limit=settings.max_message_chars),
        model=request.model,
        temperature=settings.temperature if request.temperature is None else request.temperature,
        top_p=settings.top_p if request.top_p is None else request.top_p,
        most_tokens=request.most_tokens or settings.max_new_tokens,
        stop=request.stop_words,
        seed=request.seed,
        count=count,
        user=request.user or "",
    )


def _messages(written: list[ChatMessage], *, limit: int) -> tuple[Message, ...]:
    """The messages with all system text in front as one, as chat templates want it."""
    system: list[str] = []
    said: list[Message] = []
    for place, message in enumerate(written):
        param = f"messages.{place}"
        text = _cleaned(message, limit=limit, param=f"{param}.content")
        if message.role in ("user", "assistant"):
            said.append(Message(message.role, text))
        elif said:
            raise Problem(
                400,
                "unsupported_value",
                f"{param}.role: system messages come before all others.",
                param=param,
            )
        elif text:
            system.append(text)
    if not said or said[-1].role != "user":
        raise Problem(
            400,
            "unsupported_value",
            "messages: the last one must be the user's, to reply to.",
            param="messages",
        )
    return (*([Message("system", "\n\n".join(system))] if system else []), *said)


def _cleaned(message: ChatMessage, *, limit: int, param: str) -> str:
    """The text without control characters. Only a user's must say something: an earlier reply may be empty."""
    if message.role != "user" and not message.text.strip():
        return ""
    try:
        return clean_message(message.text, limit=limit)
    except ChatRefused as error:
        raise Problem(400, "invalid_value", f"{param}: {error}", param=param) from error
