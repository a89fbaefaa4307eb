"""The trainer as a process of its own: started with the studio's settings, stepping back for the chat,
logged to a file.

The process is detached: it outlives the studio that started it, and a crash in it cannot take the chat
down. This module knows nothing of runs, judgements or adapters.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.settings import REPOSITORY, TrainingSettings

logger = logging.getLogger(__name__)

TRAINER: tuple[str, ...] = (sys.executable, "-P", "-m", "training.run")
"""The command that trains. ``-P`` keeps a stray ``training`` folder in the working directory out of its
way.
"""
_BELOW_NORMAL = 0x00004000
"""Windows' BELOW_NORMAL_PRIORITY_CLASS, its nearest thing to a nice value."""


def start_trainer(
    arguments: Sequence[str],
    *,
    settings: TrainingSettings,
    log: Path,
    niceness: int,
    command: Sequence[str] = TRAINER,
) -> subprocess.Popen[bytes]:
    """Start the trainer with `arguments`; what it prints goes to `log`. Raises `OSError` when it cannot be
    started.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment_of(settings, os.environ),
            start_new_session=True,
            creationflags=_BELOW_NORMAL if os.name == "nt" and niceness else 0,
        )
    step_back(process.pid, niceness=niceness)
    return process


def environment_of(settings: TrainingSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """`inherited` with every training setting spelled out, so that no file or default can make the trainer
    differ.
    """
    environment = dict(inherited)
    prefix = str(settings.model_config["env_prefix"])
    for name in TrainingSettings.model_fields:
        value = getattr(settings, name)
        environment[f"{prefix}{name.upper()}"] = str(value).lower() if isinstance(value, bool) else str(value)
    environment["PYTHONPATH"] = os.pathsep.join(
        path for path in (str(REPOSITORY), inherited.get("PYTHONPATH", "")) if path
    )
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def step_back(pid: int, *, niceness: int) -> None:
    """Make the process `pid`, which leads a session, yield the CPU to the chat. Does what the system
    offers.

    Linux groups processes by session for scheduling where autogroups are on (sched(7)): between sessions
    only the group's own nice value counts, so it is set as well.
    """
    if niceness == 0 or not hasattr(os, "setpriority"):
        return
    try:
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
        autogroup = Path(f"/proc/{pid}/autogroup")
        if autogroup.exists():
            autogroup.write_text(str(niceness))
    except OSError as error:
        logger.warning("The trainer runs at the chat's own priority: %s", error)
