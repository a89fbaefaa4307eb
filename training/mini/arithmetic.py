"""Small sums: every question about numbers that the mini model is expected to get right, and how to answer it.

Knows whole numbers up to a hundred in digits and words; sums beyond that are `talk`'s to decline.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from training.mini import phrases
from training.mini.asking import Phrasings
from training.mini.grammar import REMARK, Body, Clause

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

PHRASINGS = Phrasings(
    (
        "what is {sum}",
        "{sum}",
        "{sum} =",
        "how much is {sum}",
        "calculate {sum}",
        "tell me {sum}",
        "can you work out {sum}",
        "whats {sum}",
        "what do you get for {sum}",
        "do you know what {sum} is",
        "{sum} is what",
        "solve {sum}",
        "add it up: {sum}",
    ),
    ("could you compute {sum}", "what would {sum} be", "please give me {sum}"),
)


@dataclass(frozen=True)
class Sum:
    """a (+, -, *, /) b = result, all whole numbers from 0 to 100."""

    a: int
    sign: str
    b: int
    result: int


def draw_sum(rng: random.Random) -> Sum:
    sign = rng.choice("++--**/")
    if sign == "+":
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        return Sum(a, sign, b, a + b)
    if sign == "-":
        a = rng.randint(1, 20)
        b = rng.randint(0, a)
        return Sum(a, sign, b, a - b)
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    return Sum(a, sign, b, a * b) if sign == "*" else Sum(a * b, sign, b, a)


def word(number: int) -> str:
    """A number from 0 to 100 in words."""
    if number < 20:
        return _ONES[number]
    if number == 100:
        return "one hundred"
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")


def spell(item: Sum, rng: random.Random) -> str:
    """The sum as a person types it: "3 + 4", "3+4", "three plus four"."""
    manner = rng.randrange(4)
    if manner == 0:
        return f"{item.a}{item.sign}{item.b}"
    if manner == 1:
        return f"{item.a} {rng.choice('*x') if item.sign == '*' else item.sign} {item.b}"
    name = _sign_word(item.sign)
    return f"{word(item.a)} {name} {word(item.b)}" if manner == 2 else f"{item.a} {name} {item.b}"


def solve(item: Sum, rng: random.Random) -> Body:
    """The result, in digits or in words, with something true about it for those who want more."""
    show = word if rng.random() < 0.4 else str
    whole = f"{show(item.a)} {_sign_word(item.sign)} {show(item.b)} is {show(item.result)}"
    frames = (whole, whole, whole, f"the answer is {show(item.result)}", f"that makes {show(item.result)}")
    parity = "even" if item.result % 2 == 0 else "odd"
    more = [
        Clause(f"{show(item.result)} is an {parity} number", REMARK),
        Clause("the numbers are small", REMARK, because="larger ones are too hard for this model"),
        Clause("this can be checked with counting beads", REMARK),
    ]
    if item.sign in "+*":
        more.append(Clause(f"{show(item.b)} {_sign_word(item.sign)} {show(item.a)} gives the same", REMARK))
    return Body(
        core=(Clause(rng.choice(frames), REMARK, _reason(item)),),
        more=tuple(rng.sample(more, len(more))),
        intros=("here is the sum:", "step by step:", "the result:"),
        example="one plus one, which is two",
        trailers=phrases.TALK_TRAILERS,
        tip="check a sum by doing it the other way round",
        questions=("shall we try another sum", "would you like another one", "open"),
    )


def states_result(item: Sum, reply: str) -> bool:
    """Whether the reply's first statement of a result ("is 7", "makes seven") is the right one."""
    found = re.search(r"\b(?:is|makes) (one hundred|[a-z]+(?:-[a-z]+)?|\d+)\b", reply.lower())
    return found is not None and found[1] in (str(item.result), word(item.result))


def _sign_word(sign: str) -> str:
    return {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[sign]


def _reason(item: Sum) -> str:
    return {
        "+": f"adding {item.b} to {item.a} gives {item.result}",
        "-": f"taking {item.b} from {item.a} leaves {item.result}",
        "*": f"{item.a} groups of {item.b} make {item.result}",
        "/": f"{item.result} times {item.b} is {item.a}",
    }[item.sign]
