"""What a piece of work took: seconds by the clock and of the processor, the most memory, and the bytes of its models.

Memory is this process's own, so a piece of work that is to be compared with another runs in a process of its own. On a
machine without Linux's ``/proc`` the peak is that of the process's whole life. It knows no trainer and no model family.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

MEGABYTE = 1e6
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Taken:
    """`seconds` by the clock, `cpu` seconds of all of the process's threads.

    `peak_mb` is the most resident memory, `growth_mb` what of it was not there before; `device_mb` the most that the
    GPU's allocator had given out, None without one.
    """

    seconds: float
    cpu: float
    peak_mb: float
    growth_mb: float
    device_mb: float | None


class Meter:
    """``with Meter() as meter: ...``; afterwards `meter.taken` says what the block took."""

    taken: Taken

    def __enter__(self) -> Meter:
        self._before = resident_mb()
        _forget_peak()
        self._seconds, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds, cpu = time.perf_counter() - self._seconds, time.process_time() - self._cpu
        peak = _peak_mb()
        self.taken = Taken(seconds, cpu, peak, peak - self._before, _device_peak_mb())


def resident_mb() -> float:
    """Resident memory of this process now."""
    return _status_mb("VmRSS") or _life_peak_mb()


def tensor_mb(*models: Any) -> float:
    """Megabytes of all different tensors that `models` hold: parameters, buffers and what a quantized weight carries
    with it. Storage that is shared counts once.
    """
    seen: dict[int, int] = {}
    for model in models:
        for tensor in [*model.parameters(), *model.buffers()]:
            for part in (tensor, *_beside(getattr(tensor, "quant_state", None))):
                storage = part.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values()) / MEGABYTE


def _beside(state: Any) -> Iterator[Any]:
    """The tensors of a bitsandbytes quantization state, and of the one that its own scales were quantized by."""
    while state is not None:
        yield from (part for part in (state.absmax, state.code, state.offset) if part is not None)
        state = state.state2


def _forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")


def _peak_mb() -> float:
    return _status_mb("VmHWM") or _life_peak_mb()


def _device_peak_mb() -> float | None:
    import torch

    return torch.cuda.max_memory_allocated() / MEGABYTE if torch.cuda.is_available() else None


def _status_mb(name: str) -> float | None:
    """A line of ``/proc/self/status``, which is in kibibytes."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / MEGABYTE
    return None


def _life_peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
