"""On what a benchmark ran, and what else the machine was doing: figures without this cannot be compared.

It reads and changes nothing; what it cannot find out it leaves out.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def describe() -> dict[str, Any]:
    """Date, commit, processor, cores of this process, load (runnable threads over 1, 5, 15 minutes), torch."""
    import torch

    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }
    if hasattr(os, "getloadavg"):
        found["load"] = [round(load, 2) for load in os.getloadavg()]
    return found


def _commit() -> str | None:
    """The commit that is checked out, with a plus when files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+"]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
