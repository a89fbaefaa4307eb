"""The trainer is killed while training and while publishing: what survives is whole, and the next run works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judged import fill_ledger
from test_run import LENIENT, QUICK, ROOT
from tiny import save_tiny_base

from memory.database import open_database
from memory.runs import Runs
from training.base import identity_of
from training.execution import EXIT_CODES
from training.metrics import read_metrics
from training.registry import AdapterRefused, Registry
from training.run import main

ENDLESS = ["--min-steps", "100000"]
KILLED_WHILE_PUBLISHING = """
import os, signal, sys
import training.execution as execution
from training.registry import Registry
from training.run import main

def kill(stage):
    if stage == {stage!r}:
        os.kill(os.getpid(), signal.SIGKILL)

execution.Registry = lambda root: Registry(root, at_stage=kill)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def data(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'data' / 'thumbprint.db'}")
    fill_ledger(database, comparisons=30)
    database.close()
    return tmp_path / "data"


def flags(data, base_folder, *others):
    return ["--data-dir", str(data), "--model", str(base_folder), *QUICK, *LENIENT, *others]


def start_training(data, base_folder):
    """A trainer of its own process that has taken its first steps, and will not end by itself."""
    trainer = subprocess.Popen(
        [sys.executable, "-m", "training.run", *flags(data, base_folder, *ENDLESS)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(
        line["step"] > 2 for file in data.glob("runs/*/metrics.jsonl") for line in read_metrics(file)
    ):
        assert trainer.poll() is None, "the trainer ended before it was killed"
        time.sleep(0.05)
    return trainer


def runs_of(data, *, later=0.0):
    """The runs as seen by somebody who looks `later` seconds from now."""
    database = open_database(f"sqlite:///{data / 'thumbprint.db'}", clock=lambda: time.time() + later)
    return Runs(database)


def assert_the_next_run_works(data, base_folder, *, version):
    assert runs_of(data, later=120).active() is None, "the dead trainer is noticed"
    assert main(flags(data, base_folder)) == EXIT_CODES["published"]
    runs = runs_of(data)
    assert [run.state for run in runs.list()] == ["published", "failed"]
    assert "died" in runs.list()[1].message
    assert runs.served().version == version
    Registry(data / "adapters").verify(version, base_identity=identity_of(base_folder))


def test_killed_in_the_middle_of_training(data, base_folder):
    trainer = start_training(data, base_folder)
    trainer.kill()
    assert trainer.wait() == -signal.SIGKILL
    assert runs_of(data).served() is None
    assert Registry(data / "adapters").versions() == []
    assert_the_next_run_works(data, base_folder, version="v0001")


@pytest.mark.parametrize("stage", ["rename", "stable"])
def test_killed_in_the_middle_of_publishing(data, base_folder, stage):
    """Before the rename the version is not there, before STABLE it is refused; its number is not used again."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_PUBLISHING.format(stage=stage), *flags(data, base_folder)],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert runs_of(data).served() is None
    registry = Registry(data / "adapters")
    if stage == "rename":
        assert registry.versions() == []
    else:
        (half,) = registry.versions()
        assert not half.ok
        with pytest.raises(AdapterRefused, match="publication never finished"):
            registry.verify("v0001", base_identity=identity_of(base_folder))
    assert_the_next_run_works(data, base_folder, version="v0002")


def test_asked_to_end_it_ends_in_order(data, base_folder):
    trainer = start_training(data, base_folder)
    os.kill(trainer.pid, signal.SIGTERM)
    assert trainer.wait(timeout=60) == EXIT_CODES["cancelled"]
    (run,) = runs_of(data).list()
    assert run.state == "cancelled"
    assert "What is served has not changed." in run.message
    assert Path(run.folder, "log.txt").read_text().rstrip().endswith(run.message)
    assert Registry(data / "adapters").versions() == []
