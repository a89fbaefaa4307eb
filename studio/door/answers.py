"""What the door says: OpenAI's chat completion, its chunks and its list of models, with receipts in them.

Every choice carries its receipt under ``thumbprint``, and so does the answer, with the first one's; in a stream the
first and the last chunk of a choice carry it, in both places. Field for field this is what OpenAI sends; ours are
extra. This module knows no studio beyond the replies it is handed, and no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

if TYPE_CHECKING:
    from studio.door.completions import Answer, Reply

FinishReason = Literal["stop", "length"]


class ReceiptShape(BaseModel):
    """Proof of a reply: send `receipt` back with feedback."""

    receipt: str
    turn_id: str
    version: str
    fingerprint: str


class AssistantMessage(BaseModel):
    """What was said."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One reply."""

    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: None = None
    thumbprint: ReceiptShape


class Usage(BaseModel):
    """Tokens; the prompt's are counted once, however many replies there are."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    thumbprint: ReceiptShape


class Delta(BaseModel):
    """What came since the chunk before."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """One reply's part of a chunk."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: None = None
    thumbprint: ReceiptShape | None = None


class Chunk(BaseModel):
    """An event of a stream. Without choices, it is the last one and brings the usage."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    thumbprint: ReceiptShape | None = None


class ModelCard(BaseModel):
    """A name that a request may ask for, and what answers to it now."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["thumbprint"] = "thumbprint"
    version: str
    fingerprint: str


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class TakenShape(BaseModel):
    """What became of one judgement. `target` is the turn's or the comparison's id."""

    kind: str
    target: str
    outcome: Literal["recorded", "unchanged", "retracted"]


class FeedbackAnswer(BaseModel):
    """What became of each judgement of a request."""

    object: Literal["thumbprint.feedback"] = "thumbprint.feedback"
    judgements: list[TakenShape]


def completion(answer: Answer) -> Completion:
    """The whole answer, once every reply has ended by itself."""
    choices = [
        Choice(
            index=index,
            message=AssistantMessage(content=reply.stream.text),
            finish_reason=finish_reason(reply),
            thumbprint=receipt(reply),
        )
        for index, reply in enumerate(answer.replies)
    ]
    return Completion(
        id=_id(answer),
        created=int(answer.started_at),
        model=answer.model,
        system_fingerprint=_system_fingerprint(answer),
        choices=choices,
        usage=usage(answer.replies),
        thumbprint=choices[0].thumbprint,
    )


def chunk(answer: Answer, choice: ChunkChoice | None, *, used: Usage | None = None) -> Chunk:
    """One event of the answer's stream."""
    return Chunk(
        id=_id(answer),
        created=int(answer.started_at),
        model=answer.model,
        system_fingerprint=_system_fingerprint(answer),
        choices=[] if choice is None else [choice],
        usage=used,
        thumbprint=None if choice is None else choice.thumbprint,
    )


def receipt(reply: Reply) -> ReceiptShape:
    """The reply's receipt, opened for the reader."""
    given = reply.receipt
    return ReceiptShape(
        receipt=reply.signed, turn_id=given.turn_id, version=given.version, fingerprint=given.fingerprint
    )


def finish_reason(reply: Reply) -> FinishReason:
    """Why a reply that ended by itself did."""
    return "length" if reply.stream.finish == "length" else "stop"


def usage(replies: Sequence[Reply]) -> Usage:
    """The tokens of replies to one prompt."""
    prompt = replies[0].stream.prompt_tokens
    said = sum(reply.stream.completion_tokens for reply in replies)
    return Usage(prompt_tokens=prompt, completion_tokens=said, total_tokens=prompt + said)


def _id(answer: Answer) -> str:
    return f"chatcmpl-{answer.replies[0].receipt.turn_id}"


def _system_fingerprint(answer: Answer) -> str:
    return f"fp_{answer.replies[0].receipt.fingerprint}"
