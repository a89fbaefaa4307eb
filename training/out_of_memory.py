"""Out of memory: compute half as many rows at a time, and go on.

A micro-batch that does not fit is computed again in halves, with its part of the gradient unchanged, and from there on
all are; each level is said once, in the log. One row that does not fit is the caller's problem. It knows the errors by
which torch says so, rows and gradients; it knows no model and no loss.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from training.processes import ALONE, Processes

log = logging.getLogger("training")
T = TypeVar("T")
_CPU_REFUSALS = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: CUDA has a type for it, a CPU raises a `RuntimeError` with words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_REFUSALS)


class MicroBatch:
    """How many `rows` are computed at once: as many as were asked for, until memory runs out."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def over(self, items: Sequence[T], work: Callable[[list[T]], None]) -> None:
        """Give all `items` to `work`, so many at a time; a piece that did not fit is given to it again in halves."""
        done = 0
        while done < len(items):
            piece = list(items[done : done + self.rows])
            if self.fits(lambda piece=piece: work(piece), rows=len(piece)):  # type: ignore[misc]
                done += len(piece)

    def step(
        self, work: Callable[[], None], *, undo: Callable[[], None], processes: Processes = ALONE
    ) -> None:
        """Do `work`, which takes `rows` at a time; `undo` it and do it again while memory runs out in any process."""
        while not self.fits(work, rows=self.rows, processes=processes):
            undo()

    def fits(self, work: Callable[[], None], *, rows: int, processes: Processes = ALONE) -> bool:
        """Whether `work` on `rows` at a time ended; if memory ran out instead, `rows` are fewer from now on.

        Raises what `work` raises, and its want of memory where a single row is too much.
        """
        ran_out = False
        try:
            work()
        except (RuntimeError, MemoryError) as error:
            # Those who share a base's weights wait for this very pass: nobody can repeat it alone.
            if not is_out_of_memory(error) or rows <= 1 or processes.shards:
                raise
            ran_out = True
        # Only here have the frames of the failed attempt let go of their tensors.
        if not processes.any(ran_out):
            return True
        self.rows = min(self.rows, max(1, rows // 2))
        log.warning("Memory ran out with %d rows at a time. Going on with %d.", rows, self.rows)
        free()
        return False


def free() -> None:
    """Give unused memory back, so that the next attempt finds it in one piece."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Accumulated:
    """The gradients of `parameters` as they are now, to go back to if a pass has to be repeated."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._kept = [
            (value, None if value.grad is None else value.grad.detach().clone()) for value in parameters
        ]

    def restore(self) -> None:
        """Set every gradient back."""
        for parameter, gradient in self._kept:
            parameter.grad = None if gradient is None else gradient.clone()


def parts_of(inputs: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """A collated batch in `count` parts of nearly equal size, fewer where it has fewer rows.

    The number of rows is that of its shortest tensor; a tensor with several times as many holds several blocks of rows
    (chosen above rejected), and each block is divided. What has no rows is in every part.
    """
    lengths = [len(value) for value in inputs.values() if isinstance(value, Tensor) and value.ndim]
    rows = min(lengths)
    for part in torch.arange(rows).tensor_split(min(count, rows)):
        yield {name: _rows_of(value, part, rows=rows) for name, value in inputs.items()}


def _rows_of(value: Any, part: Tensor, *, rows: int) -> Any:
    if isinstance(value, Tensor) and value.ndim and len(value) % rows == 0:
        taken = part.to(value.device)
        return torch.cat([block[taken] for block in torch.split(value, rows)])
    if isinstance(value, list) and len(value) == rows:
        return [value[row] for row in part.tolist()]
    return value
