"""What went wrong in a forward pass, and what to tell the person whose reply it was. It knows no rows and no engine."""

from __future__ import annotations

import logging
from collections.abc import Sized

import torch

logger = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "The machine ran out of memory for this reply. Try again when fewer replies are under way, or shorten the "
    "conversation."
)
FAILED = "The model failed while writing this reply ({error}). Try again; the log has the details."
NOT_NUMBERS = "The model gave no valid numbers for this reply, so it was stopped. Its adapter may be damaged."
CLOSING = "The studio is shutting down."


def explain(error: Exception, rows: Sized) -> str:
    """Log `error` with its traceback and say it in a sentence for the person."""
    logger.error("A pass with %d rows failed.", len(rows), exc_info=error)
    return OUT_OF_MEMORY if is_out_of_memory(error) else FAILED.format(error=error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` means that the device or the machine had no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # torch's CPU allocator raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def free_memory(device: torch.device) -> None:
    """Give what a failed pass left behind back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
