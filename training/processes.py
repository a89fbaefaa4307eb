"""Several processes that train one adapter together, as ``accelerate launch`` and ``torchrun`` start them.

All run the same code on the same settings and hold the same adapter; what is divided is the rows of each pass, and what
is found is summed or gathered so that everybody goes on with the same numbers. The first process leads: it alone reads
the ledger, keeps the run's row, draws progress and publishes (`Processes.led`). A wish to stop that it hears of ends
all of them at their next meeting. With one process everything here is what it would be without this module, and torch
is not even loaded for it.

Which rows, gradients or decisions these are is the callers' to know.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
U = TypeVar("U")
_PATIENCE = timedelta(hours=6)
"""How long a process waits for the others. One that has died is noticed at once, by its connection."""


class Order(Protocol):
    """What the leading process sets about; it is sent to the others."""

    def take_part(self, processes: Processes) -> None:
        """Do this process's share, meeting the leading one wherever it does."""


class Processes:
    """`count` processes, of which this is number `rank`; number 0 leads. `shards` says whether each holds only a part
    of the base while gradients are computed (`training.sharding`).

    `control` is a process group for messages and for tensors on a CPU (gloo); others go through the default group.
    """

    def __init__(self, rank: int = 0, count: int = 1, *, control: Any = None, shards: bool = False) -> None:
        self.rank, self.count, self.shards, self._control = rank, count, shards, control
        self._pending: Exception | None = None
        self._ordered = False

    @property
    def leads(self) -> bool:
        """Whether this is the process that talks to the outside."""
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> list[T]:
        """This process's share of `items`: every `count`-th, so that a sorted list is dealt out evenly."""
        return list(items[self.rank :: self.count])

    def dealt(self, passes: Sequence[T]) -> list[tuple[T, int]]:
        """This process's share of forward and backward passes, each with 1 where it counts.

        All get the same number, since those who share a base's weights must pass through it together: whoever has one
        fewer repeats another, which counts 0.
        """
        most = -(-len(passes) // self.count)
        mine = [(item, 1) for item in self.mine(passes)]
        return mine + [(passes[0], 0)] * (most - len(mine))

    def rows_each(self, rows: int, passes: int) -> int:
        """Rows in one process's forward pass, where one process would make `passes` of `rows` in a step: as many, but
        no more than it takes to keep all processes at work."""
        return min(rows, max(1, rows * passes // self.count))

    def share_of_step(self, rows: int, passes: int) -> tuple[int, int]:
        """(rows, passes) of each process in a step that one process makes in `passes` of `rows`, for trainers that give
        every process the same. Passes are divided first. Raises `ValueError` where neither comes out even.
        """
        if passes % self.count == 0:
            return rows, passes // self.count
        if rows % self.count == 0:
            return rows // self.count, passes
        raise ValueError(
            f"Steps of {rows} x {passes} rows (batch_size x gradient_accumulation) cannot be divided among "
            f"{self.count} processes. Set gradient_accumulation or batch_size to a multiple of {self.count}."
        )

    def gathered(self, found: Sequence[T]) -> list[T]:
        """What all found for their shares (`mine`), in the order of the whole. A meeting."""
        if self.count == 1:
            return list(found)
        self.meet()
        shares = self._messages(list(found))
        whole: list[T | None] = [None] * sum(len(share) for share in shares)
        for rank, share in enumerate(shares):
            whole[rank :: self.count] = share
        return whole  # type: ignore[return-value]

    def pooled(self, mine: Sequence[T], work: Callable[[list[T]], list[U]]) -> list[U]:
        """The part that belongs to `mine` of what `work` makes of everybody's rows, by rank. A meeting."""
        if self.count == 1:
            return work(list(mine))
        self.meet()
        shares = self._messages(list(mine))
        found = work([item for share in shares for item in share])
        start = sum(len(share) for share in shares[: self.rank])
        return found[start : start + len(mine)]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place. A meeting.

        The tensors are joined for the way; shapes and order must be the same everywhere. The sum is bit for bit the
        same in every process.
        """
        if self.count == 1 or not tensors:
            return
        import torch

        self.meet()
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        torch.distributed.all_reduce(flat, group=None if flat.is_cuda else self._control)
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def add_up_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum the gradients of `parameters` over all processes; none counts as zeros. A meeting."""
        if self.count == 1:
            return
        import torch

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add_up([parameter.grad for parameter in parameters if parameter.grad is not None])

    def totals(self, figures: dict[str, float]) -> dict[str, float]:
        """The sum of each figure over all processes; one that a process does not have counts as 0. A meeting."""
        if self.count == 1:
            return figures
        self.meet()
        everybodys = self._messages(figures)
        names = dict.fromkeys(name for theirs in everybodys for name in theirs)
        return {name: sum(theirs.get(name, 0.0) for theirs in everybodys) for name in names}

    def any(self, mine: bool) -> bool:
        """Whether `mine` is true in some process. A meeting."""
        if self.count == 1:
            return mine
        self.meet()
        return any(self._messages(mine))

    def led(self, action: Callable[[], T]) -> T:
        """What `action` gives in the leading process, in all of them; what it raises there is raised in all.

        The others do not run it, so it may use what only the leader has. A meeting.
        """
        if self.count == 1:
            return action()
        self.meet()
        answer: tuple[T | None, Exception | None] = (None, None)
        if self.leads:
            try:
                answer = (action(), None)
            except Exception as error:  # noqa: BLE001 - a boundary between processes: raised again in all of them
                answer = (None, error)
        value, raised = self._broadcast(answer)
        if raised is not None:
            raise raised
        found: T = value
        return found

    def give_order(self, order: Order | None) -> None:
        """Let the others, who wait in `take_order`, know what is to be done. A meeting."""
        self._ordered = True
        self.led(lambda: order)

    def take_order(self) -> Order | None:
        """What the leading process gives the others to do; None if it is not going to do anything. A meeting."""
        nothing: Order | None = None
        return self.led(lambda: nothing)

    def dismiss(self) -> None:
        """Let the others go if they still wait for an order. Only the leading process may do so."""
        if not self._ordered:
            self.give_order(None)

    def deferred(self, check: Callable[[], None]) -> Callable[[], None]:
        """`check` for places where processes are at different steps: the leader alone makes it, and what it raises
        ends all processes at their next meeting."""
        if self.count == 1:
            return check

        def later() -> None:
            if self.leads and self._pending is None:
                try:
                    check()
                except Exception as wish:  # noqa: BLE001 - a boundary between processes: raised again in all of them
                    self._pending = wish

        return later

    def meet(self) -> None:
        """Wait for all, and raise what one of them has been holding back."""
        if self.count == 1:
            return
        held = self._pending
        if not any(self._messages(held is not None)):
            return
        self._pending = None
        raise next(error for error in self._messages(_sendable(held)) if error is not None)

    def _messages(self, mine: Any) -> list[Any]:
        """What every process says, by rank."""
        import torch

        said: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(said, mine, group=self._control)
        return said

    def _broadcast(self, answer: tuple[Any, Exception | None]) -> tuple[Any, Exception | None]:
        import torch

        message = [(answer[0], _sendable(answer[1]))]
        torch.distributed.broadcast_object_list(message, src=0, group=self._control)
        return answer if self.leads else message[0]


ALONE = Processes()
"""The one process of an ordinary training."""


def launched_together() -> bool:
    """Whether this process was started as one of several, by the environment that launchers set."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the processes that were launched together with this one: NCCL between GPUs, gloo between CPUs.

    Without a launcher this is `ALONE`. The trainers of TRL find the same group by themselves, through accelerate. Who
    has met them already meets them again, and they part when the first one leaves.
    """
    if not launched_together():
        yield ALONE
        return
    import torch
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    shards, outermost = _take_wish_to_shard(), not torch.distributed.is_initialized()
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
        # Each process computes on its own share of the cores; accelerate would claim all of them.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
    control = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield Processes(state.process_index, state.num_processes, control=control, shards=shards)
    finally:
        if outermost:
            torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)


def _take_wish_to_shard() -> bool:
    """Whether the launcher was asked for FSDP or ZeRO-3, which is taken out of the environment: the base is sharded by
    `training.sharding`, in one way for every method and device, and accelerate then only averages gradients."""
    if os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return True
    if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") != "3":
        return False
    return os.environ.pop("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def _sendable(error: Exception | None) -> Exception | None:
    """The error itself, or one with its words where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except (pickle.PicklingError, TypeError, AttributeError):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
