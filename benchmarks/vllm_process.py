"""A real vLLM server on this machine's CPU, as a process of its own, for benchmarks and tests.

vLLM lives in an environment of its own, which `make vllm-venv` makes; where there is none, `missing` says so. It knows
how to start a server, wait for it, measure its CPU time and end it; what is asked of it is others' business.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from training.settings import REPOSITORY

VENV = Path(os.environ.get("VLLM_VENV", REPOSITORY / ".venv-vllm"))
START_SECONDS = 420.0


def missing() -> str:
    """Why there is no vLLM to test against; empty when there is one."""
    if any(VENV.glob("lib/python*/site-packages/vllm")):
        return ""
    return f"NO VLLM in {VENV}: `make vllm-venv` installs it (3.4 GB); VLLM_VENV names another place."


class VllmProcess:
    """One server of `model` in `dtype`, with a small cache and `rows` replies at once. Starting does not wait; `wait`
    does.

    Each computes on one core, and `number` says on which.
    """

    def __init__(
        self, model: Path, log: Path, *, dtype: str = "float32", number: int = 0, rows: int = 8
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._model = model
        self._log = log
        self._dtype = dtype
        self._rows = rows
        cores = sorted(os.sched_getaffinity(0))
        self._core = cores[number % len(cores)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> VllmProcess:
        command = [str(VENV / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(self._model)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--dtype", self._dtype]
        command += ["--enable-lora", "--max-lora-rank", "16", "--max-loras", "4"]
        command += ["--max-model-len", "1024", "--max-num-seqs", str(self._rows)]
        environment = {
            **os.environ,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": str(self._core),
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        return self

    def wait(self) -> VllmProcess:
        """Block until it answers. Raises `RuntimeError` with the end of its log when it ends or never does."""
        until = time.monotonic() + START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.25)
        end = self._log.read_text(encoding="utf-8", errors="replace")[-3_000:]
        raise RuntimeError(
            f"vLLM did not come up within {START_SECONDS:.0f} seconds. Its log ends with:\n{end}"
        )

    def cpu_seconds(self) -> float:
        """What the server and the processes that it has started have computed so far. It must be running."""
        import psutil

        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        times = [one.cpu_times() for one in (parent, *parent.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def kill(self) -> None:
        """End it without any farewell, with the processes that it has started."""
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
