"""The cells of a study of settings: what was measured in each, kept line by line, and what they say together.

Pure but for one file, to which finished cells are appended. It runs nothing and knows no model.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Estimate = tuple[float, float]
"""A mean and its standard error; not numbers where there are too few values."""
_FIGURES = ("gain", "trained", "facts_change", "kl", "seconds")


@dataclass(frozen=True)
class Cell:
    """What tells one cell from another. `tried` are the flags of the settings under test; empty for the defaults."""

    tried: str
    rater: str
    comparisons: int
    seed: int


@dataclass(frozen=True)
class Measured:
    """A cell's measurements. Shares are of held-out replies; kl in nats a reply; None where nothing was trained.

    `common` are the flags that held for all cells of the study.
    """

    tried: str
    rater: str
    comparisons: int
    seed: int
    state: str
    verdict: str
    failed_checks: list[str]
    ties: int
    training_pairs: int | None
    judged_pairs: int | None
    before: float
    after: float | None
    trained: float | None
    gain: float | None
    facts_base: float
    facts_change: float | None
    kl: float | None
    scale: float | None
    win_rate: float | None
    forgotten: float | None
    seconds: float
    phase_seconds: dict[str, float]
    commit: str | None
    load: float | None
    samples: list[str]
    common: str

    @property
    def cell(self) -> Cell:
        """Whose measurements these are."""
        return Cell(self.tried, self.rater, self.comparisons, self.seed)


def all_cells(
    tried: Sequence[str], raters: Sequence[str], comparisons: Sequence[int], seeds: Sequence[int]
) -> Iterator[Cell]:
    """Every cell once: few comparisons first, then seed by seed, all settings of a rater together."""
    for number, seed, rater, flags in itertools.product(sorted(comparisons), seeds, raters, tried):
        yield Cell(flags, rater, number, seed)


def read_cells(file: Path, *, common: str) -> dict[Cell, Measured]:
    """The cells that are done; a last line that was cut by a kill is left out.

    Raises `ValueError` where `file` holds cells under other common flags, which could not be compared.
    """
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    found = [Measured(**json.loads(line)) for line in lines]
    for cell in found:
        if cell.common != common:
            raise ValueError(
                f"{file} holds cells that were measured with {cell.common!r}, and these would be with {common!r}. "
                "Name another --file."
            )
    return {cell.cell: cell for cell in found}


def append_cell(file: Path, measured: Measured) -> None:
    """Add a line to `file`; what is left of a line that was cut goes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if text and not text.endswith("\n"):
        file.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(measured)) + "\n")


def mean(cells: Iterable[Measured], figure: str) -> Estimate:
    """Mean and standard error of a figure over the cells that have it."""
    return _estimate([value for cell in cells if (value := getattr(cell, figure)) is not None])


def difference(cells: Sequence[Measured], defaults: Sequence[Measured], figure: str) -> Estimate:
    """How much higher a figure is than under the defaults: mean and standard error of the differences between cells of
    the same rater, comparisons and seed.
    """
    known = {_place(cell): getattr(cell, figure) for cell in defaults}
    pairs = [(getattr(cell, figure), known.get(_place(cell))) for cell in cells]
    return _estimate([value - other for value, other in pairs if value is not None and other is not None])


def table(measured: Sequence[Measured]) -> str:
    """Markdown: one line for each rater under the same settings and number of comparisons, and one for all of them."""
    lines = [
        "| settings | comparisons | rater | gain (SE) | trained | facts (SE) | KL | scale | promoted | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (number, tried), together in _grouped(measured, lambda cell: (cell.comparisons, cell.tried)):
        rows = [(rater, cells) for (rater,), cells in _grouped(together, lambda cell: (cell.rater,))]
        for rater, cells in [*rows, ("**all**", together)] if len(rows) > 1 else rows:
            lines.append(f"| {tried or 'defaults'} | {number} | {rater} | {_row(cells)} |")
    return "\n".join(lines)


def comparison_table(measured: Sequence[Measured]) -> str:
    """Markdown: each set of settings against the defaults, cell by cell; empty without any but the defaults."""
    defaults = [cell for cell in measured if not cell.tried]
    lines = [
        "| settings | comparisons | cells | gain - defaults' (SE) | facts - defaults' (SE) | seconds - defaults' |",
        "|---|---|---|---|---|---|",
    ]
    others = [cell for cell in measured if cell.tried]
    for (number, tried), cells in _grouped(others, lambda cell: (cell.comparisons, cell.tried)):
        gain, facts, seconds = (
            difference(cells, defaults, figure) for figure in ("gain", "facts_change", "seconds")
        )
        lines.append(
            f"| {tried} | {number} | {len(cells)} | {_with_error(gain, signed=True)} | "
            f"{_with_error(facts, digits=3, signed=True)} | {_number(seconds[0], digits=0, signed=True)} |"
        )
    return "\n".join(lines) if others else ""


def summary(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """By settings and number of comparisons, over raters and seeds: means with standard errors, JSON-ready."""
    defaults = [cell for cell in measured if not cell.tried]
    found = []
    for (number, tried), cells in _grouped(measured, lambda cell: (cell.comparisons, cell.tried)):
        figures: dict[str, float | None] = {}
        for name in _FIGURES:
            figures |= _named(name, mean(cells, name))
            figures |= _named(f"{name}_difference", difference(cells, defaults, name)) if tried else {}
        found.append(
            {
                "settings": tried,
                "comparisons": number,
                "raters": sorted({cell.rater for cell in cells}),
                "seeds": sorted({cell.seed for cell in cells}),
                "cells": len(cells),
                "promoted": sum(cell.state == "published" for cell in cells),
                **figures,
            }
        )
    return found


def _row(cells: Sequence[Measured]) -> str:
    promoted = sum(cell.state == "published" for cell in cells)
    return " | ".join(
        [
            _with_error(mean(cells, "gain")),
            _number(mean(cells, "trained")[0]),
            _with_error(mean(cells, "facts_change"), digits=3, signed=True),
            _number(mean(cells, "kl")[0]),
            _number(mean(cells, "scale")[0]),
            f"{promoted} of {len(cells)}",
            _number(mean(cells, "seconds")[0], digits=0),
        ]
    )


def _grouped(
    cells: Iterable[Measured], key: Callable[[Measured], tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], list[Measured]]]:
    """The cells by `key`, in its order."""
    for name, members in itertools.groupby(sorted(cells, key=key), key=key):
        yield name, list(members)


def _place(cell: Measured) -> tuple[str, int, int]:
    return cell.rater, cell.comparisons, cell.seed


def _estimate(values: Sequence[float]) -> Estimate:
    if not values:
        return math.nan, math.nan
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _named(name: str, estimate: Estimate) -> dict[str, float | None]:
    value, error = (None if math.isnan(number) else number for number in estimate)
    return {name: value, f"{name}_error": error}


def _with_error(estimate: Estimate, *, digits: int = 2, signed: bool = False) -> str:
    value, error = estimate
    text = _number(value, digits=digits, signed=signed)
    return text if math.isnan(error) else f"{text} ({_number(error, digits=digits)})"


def _number(value: float, *, digits: int = 2, signed: bool = False) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
