"""The strategy that a conversation chooses, by its name, put together with what the studio has for it.

Names are ``everything``, ``last_turns:4``, ``token_budget``, ``summary``, ``recall`` and ``summary+recall``. This
module knows which strategies there are, and none of what they do.
"""

from __future__ import annotations

from memory.strategies.everything import Everything
from memory.strategies.last_turns import LastTurns
from memory.strategies.preparing import Strategy
from memory.strategies.recall import Recall, RecallAddition, Recollection
from memory.strategies.summary import RollingSummary, Summaries
from memory.strategies.token_budget import TokenBudget

DEFAULT = "token_budget"
NAMES = ("everything", "last_turns:4", "token_budget", "summary", "recall", "summary+recall")
MOST_TURNS = 1_000


def checked(name: str) -> str:
    """`name`, when it names a strategy. Raises `ValueError` with the names there are."""
    kind, _, number = name.partition(":")
    if kind == "last_turns" and number.isdecimal() and 1 <= int(number) <= MOST_TURNS:
        return f"last_turns:{int(number)}"
    if name in NAMES:
        return name
    raise ValueError(
        f"The way of remembering is {name!r}; expected one of {', '.join(NAMES)} (the number of turns from 1 to "
        f"{MOST_TURNS})."
    )


def strategy_for(name: str, *, summaries: Summaries, recollection: Recollection) -> Strategy:
    """The strategy called `name`. Raises `ValueError` for a name that is none."""
    kind, _, number = checked(name).partition(":")
    match kind:
        case "everything":
            return Everything()
        case "last_turns":
            return LastTurns(int(number))
        case "summary":
            return RollingSummary(summaries)
        case "recall":
            return Recall(recollection)
        case "summary+recall":
            return RollingSummary(summaries, others=[RecallAddition(recollection)])
        case _:
            return TokenBudget()
