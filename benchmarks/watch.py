"""How soon are bad promotions rolled back by votes, and how often good ones? Looked at after every simulated vote.

    python -m benchmarks.watch [--versions 4000] [--votes 2000] [--odds 20] [--seed 1]

Each simulated version is preferred to the one before it with a fixed probability, and votes come until it is rolled
back or there are `--votes` of them. Three ways to decide on the same votes:

- e-value: `training.sequential`, as the studio does
- peeking: an exact binomial test at 5 % after every vote, which is what looking at a p-value day by day amounts to
- fixed: the same test once, after as many votes as give it a power of 80 % against the true share

Prints a table and one JSON line. It knows no database and no model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf

import numpy as np
from scipy.stats import binom

from benchmarks.machine import describe
from training.sequential import evidence_against

_LEVEL, _POWER = 0.05, 0.8


@dataclass(frozen=True)
class Row:
    """Versions preferred in `share` of pairs. `*_rolled` are shares rolled back, `*_votes` votes it took: the median
    and the 80th percentile over all versions, None where fewer were rolled back at all."""

    share: float
    evidence_rolled: float
    evidence_votes: int | None
    evidence_votes_80: int | None
    peeking_rolled: float
    fixed_rolled: float | None
    fixed_votes: int | None


def main() -> None:
    """Simulate, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--versions", type=int, default=4_000, help="simulated promotions for each share")
    parser.add_argument("--votes", type=int, default=2_000, help="most votes for each")
    parser.add_argument("--odds", type=float, default=20.0, help="evidence at which a version goes back")
    parser.add_argument("--seed", type=int, default=1, help="what people vote")
    options = parser.parse_args()
    draw = np.random.default_rng(options.seed)
    evidence_limits = _limits(
        options.votes, lambda chosen, n: evidence_against(chosen, n - chosen) >= options.odds
    )
    peeking_limits = binom.ppf(_LEVEL, np.arange(1, options.votes + 1), 0.5) - 1
    rows = []
    for share in (0.6, 0.5, 0.45, 0.4, 0.3, 0.2):
        chosen = np.cumsum(draw.random((options.versions, options.votes)) < share, axis=1)
        rows.append(_row(share, chosen, evidence_limits, peeking_limits))
    _print(rows, options)


def _limits(votes: int, alarm: Callable[[int, int], bool]) -> np.ndarray:
    """For 1 to `votes` votes, the most for the version at which there still is an alarm; -1 where there is none."""
    limits = np.full(votes, -1)
    most = -1
    for n in range(1, votes + 1):
        while alarm(most + 1, n):
            most += 1
        limits[n - 1] = most
    return limits


def _row(share: float, chosen: np.ndarray, evidence_limits: np.ndarray, peeking_limits: np.ndarray) -> Row:
    taken = _first(chosen <= evidence_limits)
    fixed = _fixed_votes(share, most=chosen.shape[1]) if share < 0.5 else None
    return Row(
        share=share,
        evidence_rolled=float(np.isfinite(taken).mean()),
        evidence_votes=_percentile(taken, 50),
        evidence_votes_80=_percentile(taken, 80),
        peeking_rolled=float(np.isfinite(_first(chosen <= peeking_limits)).mean()),
        fixed_rolled=float((chosen[:, fixed - 1] <= peeking_limits[fixed - 1]).mean()) if fixed else None,
        fixed_votes=fixed,
    )


def _first(alarms: np.ndarray) -> np.ndarray:
    """The vote of each version's first alarm; infinite where there is none."""
    return np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1.0, inf)


def _percentile(votes: np.ndarray, percent: int) -> int | None:
    found = float(np.percentile(votes, percent, method="higher"))
    return int(found) if np.isfinite(found) else None


def _fixed_votes(share: float, *, most: int) -> int | None:
    """Votes after which the exact test finds a version of this `share` worse with the power asked for; None for more
    than `most`."""
    enough = (n for n in range(5, most + 1) if binom.cdf(binom.ppf(_LEVEL, n, 0.5) - 1, n, share) >= _POWER)
    return next(enough, None)


def _print(rows: list[Row], options: argparse.Namespace) -> None:
    machine = describe()
    print(" ".join(f"{key}={value}" for key, value in machine.items()))
    print(
        "\n| preferred | e-value: rolled back | votes, median | 80 % | peeking | fixed: rolled back | votes |"
    )
    print("|" + "---|" * 7)
    for row in rows:
        fixed = _percent(row.fixed_rolled) if row.fixed_rolled is not None else None
        shown = [
            _percent(row.share),
            _percent(row.evidence_rolled),
            row.evidence_votes,
            row.evidence_votes_80,
        ]
        shown += [_percent(row.peeking_rolled), fixed, row.fixed_votes]
        print("| " + " | ".join("" if value is None else str(value) for value in shown) + " |")
    found = [asdict(row) for row in rows]
    print(json.dumps({"benchmark": "watch", **vars(options), **machine, "rows": found}))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
