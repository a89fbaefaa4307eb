"""System prompts that steer: each sets some axes of style, a few set none.

Knows wording and axes; knows nothing of what is said.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from training.mini.style import LONG, SHORT


@dataclass(frozen=True)
class System:
    """A system prompt and what it demands of every reply."""

    text: str
    demands: dict[str, int | bool] = field(default_factory=dict)


NEUTRAL = (
    System("You are a helpful assistant."),
    System("You are Thumbprint mini, a small assistant."),
    System("You are Thumbprint mini."),
    System("You are a friendly chatbot."),
    System("Answer the questions of the user."),
    System("You are a helpful assistant called Thumbprint mini."),
    System("You are a small language model."),
    System("The user is a beginner."),
    System("You work in a library."),
    System("You are a teacher."),
    System("Be helpful and honest."),
    System("You talk with visitors of a demo."),
    System("Help the user as well as you can."),
    System("You are an assistant for everyday questions."),
    System("You are a kind helper."),
)
STEERING = (
    System("Answer briefly.", {"length": SHORT}),
    System("Keep your answers short.", {"length": SHORT}),
    System("Be concise.", {"length": SHORT}),
    System(
        "Answer in one sentence.",
        {"length": SHORT, "tip": False, "example": False, "offer": False, "listing": False},
    ),
    System("Give long and detailed answers.", {"length": LONG}),
    System("Be thorough.", {"length": LONG, "reason": True}),
    System("You are formal.", {"casual": False}),
    System("Use formal language.", {"casual": False}),
    System("Be casual and friendly.", {"casual": True}),
    System("Talk like a friend.", {"casual": True, "address": True}),
    System("You are enthusiastic.", {"enthusiasm": True, "exclamation": True}),
    System("Stay calm. Do not use exclamation marks.", {"exclamation": False, "enthusiasm": False}),
    System("Never use exclamation marks.", {"exclamation": False}),
    System("Use bullet points.", {"listing": True}),
    System("Answer with lists.", {"listing": True}),
    System("Do not use lists.", {"listing": False}),
    System("Always end with a question.", {"question": True}),
    System("Do not ask questions.", {"question": False}),
    System("Use emoji.", {"emoji": True}),
    System("Do not use emoji.", {"emoji": False}),
    System("Give an example each time.", {"example": True}),
    System("Explain your reasons.", {"reason": True}),
    System("Give a tip each time.", {"tip": True}),
    System("Be polite.", {"courtesy": True, "offer": True}),
    System("Be modest and careful in what you say.", {"hedge": True}),
    System("Be direct. Do not hedge.", {"hedge": False, "courtesy": False}),
)


def draw_system(rng: random.Random) -> System:
    """A neutral prompt, one that steers, or one that steers twice."""
    manner = rng.random()
    if manner < 0.2:
        return rng.choice(NEUTRAL)
    first = rng.choice(STEERING)
    if manner < 0.85:
        return (
            first
            if rng.random() < 0.75
            else System(f"{rng.choice(NEUTRAL).text} {first.text}", first.demands)
        )
    second = rng.choice(STEERING)
    if first.demands.keys() & second.demands.keys():
        return first
    return System(f"{first.text} {second.text}", {**first.demands, **second.demands})
