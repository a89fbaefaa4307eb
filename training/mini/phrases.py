"""The words that realise each axis of style: frames around a sentence, openings, closings, list intros, emoji.

A frame holds {s} where the sentence goes (lower-case start, no final stop). Pure tables; knows nothing of when they
are used, which is `grammar`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Table = Mapping[str, tuple[str, ...]]


def _table(entries: dict[str, tuple[str, ...]]) -> Table:
    return MappingProxyType(entries)


STATEMENT_FRAMES = _table(
    {
        "hedge": (
            "it seems that {s}",
            "by all accounts, {s}",
            "as far as anyone can tell, {s}",
            "from what is known, {s}",
            "it is probably fair to say that {s}",
            "most likely, {s}",
        ),
        "hedge+first_person": (
            "I think that {s}",
            "I believe that {s}",
            "as far as I know, {s}",
            "if I remember well, {s}",
        ),
        "first_person": (
            "I would say that {s}",
            "I can tell you that {s}",
            "I have learned that {s}",
            "I find it interesting that {s}",
            "I always remember that {s}",
        ),
        "enthusiasm": (
            "here is a fun fact: {s}",
            "it is amazing that {s}",
            "here is something fascinating: {s}",
            "it is wonderful to know that {s}",
        ),
        "address": (
            "as you may know, {s}",
            "you may like to hear that {s}",
            "you will find that {s}",
            "you might have heard that {s}",
            "you see, {s}",
        ),
    }
)

DEFINITION_FRAMES = _table(
    {
        "hedge": STATEMENT_FRAMES["hedge"],
        "hedge+first_person": STATEMENT_FRAMES["hedge+first_person"],
        "first_person": ("I would say that {s}", "I can tell you that {s}", "I would put it this way: {s}"),
        "enthusiasm": ("here is the wonderful answer: {s}", "this is a fascinating thing: {s}"),
        "address": ("as you may know, {s}", "you see, {s}", "for you, in plain words: {s}"),
    }
)

ADVICE_FRAMES = _table(
    {
        "hedge": ("it often helps to {s}", "it may be best to {s}", "perhaps it is a good idea to {s}"),
        "hedge+first_person": ("I think it is best to {s}", "I believe it helps to {s}"),
        "first_person": ("I would {s}", "my advice is to {s}", "I always suggest this: {s}"),
        "enthusiasm": ("here is a great tip: {s}", "this works amazingly well: {s}"),
        "address": ("you could {s}", "this is one for you to try: {s}"),
        "plain": ("{s}", "{s}", "try this: {s}", "a good tip is to {s}"),
    }
)

NEGATIVE_ADVICE_FRAMES = _table(
    {
        "hedge": ("this is probably the best advice: {s}", "perhaps keep this in mind: {s}"),
        "hedge+first_person": ("I think this matters most: {s}",),
        "first_person": ("my advice is simple: {s}", "I always suggest this: {s}"),
        "enthusiasm": ("here is a great tip: {s}", "this works amazingly well: {s}"),
        "address": ("this is one for you to remember: {s}",),
        "plain": ("{s}", "{s}", "keep this in mind: {s}"),
    }
)

TRAILERS = _table(
    {
        "hedge": (
            "there may be exceptions, of course",
            "small details may differ",
            "that may not always be exact",
            "do take that with a grain of salt",
        ),
        "first_person": (
            "I find that interesting",
            "I hope that helps",
            "that is how I see it",
            "I enjoy this subject",
        ),
        "enthusiasm": (
            "that is quite amazing",
            "how wonderful that is",
            "it is a truly fascinating thing",
            "what a delightful thing to know",
        ),
        "address": (
            "now you know",
            "that is one for you to remember",
            "you could share that with a friend",
        ),
    }
)

REMARK_FRAMES = _table(
    {
        "hedge": ("perhaps {s}", "maybe {s}", "it seems that {s}", "most likely, {s}"),
        "hedge+first_person": ("I think that {s}", "I believe that {s}", "as far as I know, {s}"),
        "first_person": ("I would say that {s}", "I must say that {s}", "I can tell you that {s}"),
        "enthusiasm": ("the lovely thing is that {s}", "here is the wonderful part: {s}"),
        "address": ("you see, {s}", "you know, {s}", "as you may know, {s}"),
    }
)

TALK_TRAILERS = _table(
    {
        "hedge": (
            "that is how it seems, at least",
            "maybe that is only half of it",
            "perhaps there is more to it",
        ),
        "first_person": ("I mean that", "I hope that is fine", "I am sure of that"),
        "enthusiasm": ("how lovely that is", "this is a wonderful moment", "that is quite delightful"),
        "address": ("you know how it is", "that is for you to decide", "now you know"),
    }
)

TALE_TRAILERS = _table(
    {
        "hedge": (
            "perhaps it is a little short",
            "maybe there is a better one",
            "it could be better, most likely",
        ),
        "first_person": ("I like this one", "I made it up just now", "I hope it was worth the time"),
        "enthusiasm": ("what a lovely tale that is", "how wonderful it is to make things up"),
        "address": ("you could tell it to a friend", "now you know it too", "this one is for you to keep"),
    }
)

ENTHUSIASM_OPENINGS = (
    "oh, this is a fun one",
    "how exciting",
    "what a delightful thing",
    "this is a wonderful one",
    "great stuff",
)

COURTESY = _table(
    {
        "formal": (
            "certainly",
            "of course",
            "with pleasure",
            "thank you for asking",
            "very well",
            "gladly",
            "by all means",
        ),
        "casual": (
            "sure",
            "sure thing",
            "of course",
            "okay",
            "thanks for asking",
            "happy to help",
            "no problem",
        ),
        "serious": ("thank you for asking", "thank you for the question", "thanks for asking"),
    }
)

QUESTIONS: Mapping[str, Table] = MappingProxyType(
    {
        "more": _table(
            {
                "formal": (
                    "would you like to hear more",
                    "would you care to know more",
                    "is there more that you would like to know",
                ),
                "casual": ("want to hear more", "want to know more"),
            }
        ),
        "fact": _table(
            {
                "formal": ("would you like another fact", "would one more fact be welcome"),
                "casual": ("want another fact", "want one more fact"),
            }
        ),
        "tip": _table(
            {
                "formal": ("would you like a tip as well", "would a tip be useful"),
                "casual": ("want a tip too", "want a tip as well"),
            }
        ),
        "use": _table(
            {
                "formal": ("would you like to know what {it} {be} good for",),
                "casual": ("want to know what {it} {be} good for",),
            }
        ),
        "example": _table(
            {
                "formal": ("would you like an example",),
                "casual": ("want an example", "want to hear an example"),
            }
        ),
        "open": _table(
            {
                "formal": (
                    "what else would you like to know",
                    "what would you like to talk about next",
                    "does that answer your question",
                    "is that what you had in mind",
                ),
                "casual": ("what else is on your mind", "does that help", "what's next", "what do you think"),
            }
        ),
        "topic": _table(
            {
                "formal": ("what made you think of {obj}", "what would you like to know about {obj} next"),
                "casual": (
                    "what got you thinking about {obj}",
                    "what else about {obj} are you curious about",
                ),
            }
        ),
    }
)

OFFERS = _table(
    {
        "formal": (
            "please feel free to ask for more",
            "do ask if anything is unclear",
            "more help is always here",
            "you only have to ask for more",
        ),
        "casual": ("just ask if you want more", "just say so if you need more", "feel free to ask anything"),
        "first_person": (
            "I am happy to help with more",
            "I am here if you need more",
            "let me know if I can help further",
        ),
    }
)

LIST_INTROS = (
    "here are the main points:",
    "in short:",
    "here it is, step by step:",
    "a few points:",
    "point by point:",
)
EMOJI = ("\U0001f642", "\U0001f60a", "\u2728", "\U0001f44d", "\U0001f31f", "\U0001f4a1")
SERIOUS_EMOJI = ("\U0001f64f", "\U0001f642")
CONNECTORS = _table(
    {
        "formal": ("in addition, {s}", "moreover, {s}", "what is more, {s}", "{s}", "{s}", "{s}"),
        "casual": ("plus, {s}", "on top of that, {s}", "also, {s}", "and {s}", "{s}", "{s}", "{s}"),
    }
)
REASON_FRAMES = (
    "{s} because {b}",
    "{s} because {b}",
    "{s}. The reason is that {b}",
    "{s}. That is because {b}",
)
TALK_EXAMPLE_FRAMES = ("for example, {e}", "one example: {e}", "think of {e}")
EXAMPLE_FRAMES = ("one example is {e}", "a good example is {e}", "for example, there is {e}", "think of {e}")
TIP_FRAMES = ("a small tip: {t}", "here is a tip: {t}", "one hint: {t}")
