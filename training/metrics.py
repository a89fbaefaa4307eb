"""The metrics file of a run: one JSON object a line, written as it happens, so that anything can tail it.

Keys (each line has the first five, the others where they apply):

- ``time``: Unix seconds; ``phase``: load, train, evaluate, gate or publish;
- ``step``, ``total_steps``: optimizer steps done, and to be done;
- ``progress``: 0 to 1 over the whole run; ``seconds_left``: estimate for the whole run, null while unknown;
- ``loss``, ``learning_rate``, ``grad_norm``: of this step; loss is DPO's plus the weighted SFT term, in nats;
- ``rewards/chosen``, ``rewards/rejected``: beta times the log-ratio of policy to reference, batch mean;
  ``rewards/margins``: their difference; ``rewards/accuracies``: share of pairs with a positive margin;
- ``logps/chosen``, ``logps/rejected``: log-probability of the replies, nats; ``entropy``: nats a token;
- with PPO, ``objective/...``, ``policy/...``, ``loss/...``, ``val/...`` instead: docs/ppo.md explains each;
- ``message``: what is being done, in words.

A number that is not finite is written as null. This module knows nothing of training or of plots.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

Phase = Literal["load", "train", "restrain", "evaluate", "gate", "publish"]


class MetricsWriter:
    """Appends lines to `path`, and gives each to `listen`. Line-buffered: a line is whole on disk, or (after a crash)
    the last one is cut.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        listen: Callable[[Mapping[str, Any]], None] = lambda line: None,
    ) -> None:
        self._clock, self._listen = clock, listen
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._last: dict[str, Any] = {"step": 0, "total_steps": 0, "progress": 0.0, "seconds_left": None}

    def write(self, phase: Phase, **values: Any) -> None:
        """Write one line. Step, total, progress and time left are carried over from the last line when not
        given.
        """
        self._last |= {key: values[key] for key in self._last if key in values}
        line = {"time": self._clock(), "phase": phase} | self._last | values
        finite = {key: _finite(value) for key, value in line.items()}
        self._file.write(json.dumps(finite) + "\n")
        self._listen(finite)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file, oldest first; empty while there is no file.

    The last line may be under way: it is left out until it parses. Raises `ValueError` for any other broken
    line.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_parse(line, path=path, number=number) for number, line in enumerate(lines[:-1], 1) if line]


def _parse(line: str, *, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number} is not JSON ({error.msg}): {line[:80]!r}.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number} is {line[:80]!r}; expected a JSON object.")
    return row


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
