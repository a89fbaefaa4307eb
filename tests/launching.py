"""Starts a test's job in several processes, as a launcher does, and waits for all of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

JOB = Path(__file__).resolve().parent / "processes_job.py"


def run_together(*words: object, count: int = 2, seconds: float = 800.0, **environment: str) -> list[str]:
    """What each of `count` processes printed; those of one are started alone. Fails with their output if one fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, str(JOB), *map(str, words)],
            env=_environment(rank, count, port) | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        printed = [process.communicate(timeout=seconds)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(printed)
    return printed


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    launched = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(count)}
    return dict(os.environ) | {"OMP_NUM_THREADS": "1"} | (launched if count > 1 else {})
