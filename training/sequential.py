"""Is one of two versions chosen less often? A test that may be looked at after every vote, for as long as one likes.

With p the probability that a vote goes to the version under watch, the hypothesis is p >= 1/2: people like it at least
as well. Against it stand alternatives q < 1/2, and the e-value is their mean likelihood ratio to 1/2,

    e = mean over q of  (2 q)^chosen * (2 (1 - q))^passed_over.

Under the hypothesis it is a supermartingale that begins at 1, so it ever reaches 1/alpha with probability alpha at
most, whenever and however often it is looked at (Ville 1939; Ramdas, Grunwald, Vovk and Shafer 2023, "Game-theoretic
statistics and safe anytime-valid inference", section 3). Ties say nothing and are left out. Pure; it knows no votes'
origin: whether raters are many and honest is up to who counts them.
"""

from __future__ import annotations

import math

_ALTERNATIVES = tuple(step / 50 for step in range(5, 25))
"""0.10 to 0.48 in steps of 0.02: from a collapse, which a few votes show, to a difference that takes thousands."""


def evidence_against(chosen: int, passed_over: int) -> float:
    """The e-value against a version that was `chosen` so often and `passed_over` so often. Raises `ValueError` for
    negative counts."""
    if chosen < 0 or passed_over < 0:
        raise ValueError(f"Votes are {chosen} for and {passed_over} against; expected 0 or more of each.")
    logs = [chosen * math.log(2 * q) + passed_over * math.log(2 * (1 - q)) for q in _ALTERNATIVES]
    largest = max(logs)
    mean = sum(math.exp(value - largest) for value in logs) / len(logs)
    # Beyond what a float holds it is as good as infinite.
    return math.exp(min(700.0, largest + math.log(mean)))
