"""What clients send: OpenAI's chat request, and feedback for receipts. What the OpenAPI page says is made from these.

Fields that would change the meaning of a reply and that this studio cannot honour are refused unless they ask for
nothing (null, false, 0, empty); unknown ones are ignored, as clients send many that matter elsewhere. This module
checks shapes only: which model there is, how much fits and whose receipt it is, the parts behind it say.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from memory.schema import Criterion, Label

MOST_REPLIES = 128
"""Bound of `n` in the schema, OpenAI's; the studio's own is the rows that it generates at the same time."""
_IDLE: tuple[Any, ...] = (None, False, 0, "", [], {})


def _refuse(value: Any) -> Any:
    if value not in _IDLE:
        raise ValueError(
            "this studio does not offer it, and without it the reply would be another one. Leave it out."
        )
    return value


Unsupported = Annotated[Any, AfterValidator(_refuse), WithJsonSchema({"enum": [*_IDLE]})]
"""A field that must not ask for anything."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number. JSON knows one kind of number only, and some clients write 5 as 5.0."""


class Shape(BaseModel):
    """JSON as it is: a number in quotes is no number, and NaN is none either."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class TextPart(Shape):
    """A piece of a message. Text is the only kind that this studio reads."""

    type: Literal["text"]
    text: str


class ChatMessage(Shape):
    """One message. ``developer`` is OpenAI's later word for ``system``."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    tool_calls: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Shape):
    """What comes with a stream."""

    include_usage: bool | None = None


class ResponseFormat(Shape):
    """Plain text is the only form of a reply."""

    type: Literal["text"]


class ChatRequest(Shape):
    """``POST /v1/chat/completions``. What is left out or null is the studio's own setting.

    With ``n`` and a ``seed``, the replies are drawn with seed, seed + 1 and so on.
    """

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0.0, le=2.0)
    top_p: float | None = Field(None, gt=0.0, le=1.0)
    max_tokens: Whole | None = Field(None, ge=1, le=2**31)
    max_completion_tokens: Whole | None = Field(None, ge=1, le=2**31)
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
        | None
    ) = None
    seed: Whole | None = Field(None, ge=-(2**63), lt=2**63)
    n: Whole | None = Field(None, ge=1, le=MOST_REPLIES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=512)
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Unsupported = None
    functions: Unsupported = None
    logprobs: Unsupported = None
    top_logprobs: Unsupported = None
    logit_bias: Unsupported = None
    presence_penalty: Unsupported = None
    frequency_penalty: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None

    @property
    def most_tokens(self) -> int | None:
        """The reply's limit, by its later name where both are given."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stop_words(self) -> tuple[str, ...]:
        """What ends a reply early."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


SignedReceipt = Annotated[str, Field(max_length=2_000)]
Rater = Annotated[str | None, Field(max_length=512)]
_OF_ONE_REPLY = ("thumb", "score", "correction", "text")


class Feedback(Shape):
    """``POST /v1/feedback``. No other API has it, so a field that is not known is a mistake and is refused.

    A judgement that is null is taken back. `rater` tells a client's own users apart; only a salted hash is kept.
    """

    model_config = ConfigDict(extra="forbid")

    rater: Rater = None


class OneReply(Feedback):
    """Judgements of one reply: a thumb, marks from 1 to 5, the reply as it should have been, or a critique."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [judgement]} for judgement in _OF_ONE_REPLY]}
    )

    receipt: SignedReceipt
    thumb: Literal["up", "down"] | None = None
    score: Annotated[dict[Criterion, Annotated[Whole, Field(ge=1, le=5)]], Field(min_length=1)] | None = None
    correction: str | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> OneReply:
        if not self.judged:
            raise PydanticCustomError(
                "nothing_said", "With receipt goes at least one of thumb, score, correction, text."
            )
        return self

    @property
    def judged(self) -> list[str]:
        """The judgements that were given or taken back."""
        return [name for name in _OF_ONE_REPLY if name in self.model_fields_set]


class TwoReplies(Feedback):
    """Which of two replies to the same messages is better; the letters are the places of their receipts."""

    receipts: Annotated[list[SignedReceipt], Field(min_length=2, max_length=2)]
    comparison: Label | None


def _which(body: Any) -> str | None:
    if not isinstance(body, dict):
        return None
    return "two replies" if "receipts" in body or "comparison" in body else "one reply"


FeedbackRequest = Annotated[
    Annotated[OneReply, Tag("one reply")] | Annotated[TwoReplies, Tag("two replies")],
    Discriminator(
        _which,
        custom_error_type="neither",
        custom_error_message="Send an object: a receipt with what you say of it, or two receipts with a comparison.",
    ),
]
"""Either of the two."""
