"""Runs and promotions: one live run whatever happens, and trainers that die."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from memory.database import Database, StorageError
from memory.runs import RunEnded, RunInProgress, Runs, UnknownRun, process_identity
from memory.schema import FINAL_STATES, Promotion
from tests.postgres import Clock

pytest_plugins = ("tests.postgres",)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def runs(database: Database) -> Runs:
    return Runs(database)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def ended_process() -> int:
    """The number of a process that has ended and been collected."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_queued_run_waits_in_its_own_folder(runs: Runs, folder: Path, clock: Clock) -> None:
    run = runs.queue("dpo", "v0003", folder, "operator")
    assert (run.state, run.method, run.parent_version, run.requested_by) == (
        "queued",
        "dpo",
        "v0003",
        "operator",
    )
    assert (run.version, run.pid, run.ended_at, run.cancel_requested, run.progress) == (
        None,
        None,
        None,
        False,
        0,
    )
    assert run.created_at == run.heartbeat_at == clock.now
    assert Path(run.folder) == folder / run.id
    assert Path(run.folder).is_dir()
    assert runs.get(run.id) == runs.active() == run


def test_a_run_is_followed_to_its_end(runs: Runs, folder: Path, clock: Clock) -> None:
    run_id = runs.queue("dpo", "base", folder, "operator").id
    clock.now += 2
    runs.update(run_id, state="training", progress=0.25, message="Step 10 of 40.", pid=os.getpid())
    seen = runs.get(run_id)
    assert (seen.state, seen.progress, seen.message, seen.pid) == (
        "training",
        0.25,
        "Step 10 of 40.",
        os.getpid(),
    )
    assert seen.heartbeat_at == clock.now
    clock.now += 2
    runs.update(run_id, progress=1.0)
    assert runs.get(run_id).message == "Step 10 of 40."
    runs.update(run_id, state="published", version="v0004")
    ended = runs.get(run_id)
    assert (ended.state, ended.version, ended.ended_at) == ("published", "v0004", clock.now)
    assert runs.active() is None


@pytest.mark.parametrize("state", FINAL_STATES)
def test_an_ended_run_makes_room_and_cannot_be_changed(
    runs: Runs, folder: Path, clock: Clock, state: Any
) -> None:
    first = runs.queue("dpo", "base", folder, "me").id
    runs.update(first, state=state, message="The end.")
    ended = runs.get(first)
    clock.now += 1
    with pytest.raises(RunEnded, match=f"ended as '{state}' \\(The end.\\)"):
        runs.update(first, state="training")
    with pytest.raises(RunEnded):
        runs.update(first, progress=0.5)
    runs.heartbeat(first)
    runs.request_cancel(first)
    assert runs.get(first) == ended
    second = runs.queue("dpo", "base", folder, "me").id
    assert [run.id for run in runs.list()] == [second, first]
    assert [run.id for run in runs.list(limit=1)] == [second]


def test_one_run_at_a_time(runs: Runs, folder: Path) -> None:
    first = runs.queue("dpo", "base", folder, "me")
    with pytest.raises(RunInProgress, match="already under way"):
        runs.queue("kto", "base", folder, "you")
    assert runs.list() == [first]
    assert [path.name for path in folder.iterdir()] == [first.id]


RACER = """
import sys
from pathlib import Path
from memory.database import open_database
from memory.runs import RunInProgress, Runs
runs = Runs(open_database(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    print(runs.queue("dpo", "base", Path(sys.argv[2]), "racer").id)
except RunInProgress:
    print("refused")
"""


def test_of_racing_processes_one_wins(runs: Runs, database_url: str, folder: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, database_url, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = sorted(child.communicate(timeout=60)[0].strip() for child in children)
    assert said.count("refused") == 3
    assert [run.id for run in runs.list()] == [word for word in said if word != "refused"]


def test_a_silent_trainer_whose_process_is_gone_has_died(runs: Runs, folder: Path, clock: Clock) -> None:
    run_id = runs.queue("dpo", "base", folder, "me").id
    runs.update(run_id, state="training", pid=ended_process())
    clock.now += 60
    assert runs.active() is not None
    clock.now += 0.5
    assert runs.active() is None
    dead = runs.get(run_id)
    assert (dead.state, dead.ended_at) == ("failed", clock.now)
    assert "The trainer died" in dead.message
    with pytest.raises(RunEnded):
        runs.update(run_id, state="published")
    assert runs.queue("dpo", "base", folder, "me").state == "queued"


def test_a_killed_trainer_is_noticed_at_once(runs: Runs, folder: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run_id = runs.queue("dpo", "base", folder, "me").id
    runs.update(run_id, state="training", pid=child.pid)
    assert runs.active() is not None
    child.kill()
    child.communicate()
    assert runs.active() is None
    assert "The trainer died" in runs.get(run_id).message


def test_a_dead_trainer_does_not_stand_in_the_way_of_the_next_run(
    runs: Runs, folder: Path, clock: Clock
) -> None:
    dead = runs.queue("dpo", "base", folder, "me").id
    clock.now += 61
    next_one = runs.queue("dpo", "base", folder, "me")
    assert runs.active() == next_one
    assert (runs.get(dead).state, runs.get(dead).message[:25]) == ("failed", "The trainer never started")


def test_a_slow_trainer_is_not_a_dead_one(runs: Runs, folder: Path, clock: Clock) -> None:
    run_id = runs.queue("dpo", "base", folder, "me").id
    runs.update(run_id, state="training", pid=os.getpid())
    clock.now += 10_000
    live = runs.active()
    assert live is not None
    assert live.state == "training"


def test_heartbeats_keep_a_trainer_elsewhere_alive(database: Database, folder: Path, clock: Clock) -> None:
    there, here = Runs(database, host="there"), Runs(database, host="here")
    run_id = there.queue("dpo", "base", folder, "me").id
    there.update(run_id, state="training", pid=os.getpid())  # a number that means nothing here
    for _ in range(5):
        clock.now += 50
        there.heartbeat(run_id)
        assert here.active() is not None
    clock.now += 61
    assert here.active() is None
    assert here.get(run_id).state == "failed"


def test_a_process_number_used_again_is_another_process(
    database: Database, runs: Runs, folder: Path, clock: Clock
) -> None:
    run_id = runs.queue("dpo", "base", folder, "me").id
    runs.update(run_id, state="training", pid=os.getpid())
    with database.write() as connection:
        connection.execute(text("UPDATE runs SET process = 'started at another time'"))
    clock.now += 61
    assert runs.active() is None


def test_a_killed_child_nobody_collected_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert process_identity(child.pid) is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_identity(child.pid) is None
    child.wait()
    assert process_identity(child.pid) is None


def test_cancelling_is_a_request(runs: Runs, folder: Path) -> None:
    run_id = runs.queue("dpo", "base", folder, "me").id
    assert not runs.cancel_requested(run_id)
    runs.request_cancel(run_id)
    assert runs.cancel_requested(run_id)
    assert runs.get(run_id).state == "queued"
    runs.update(run_id, state="cancelled", message="Stopped by request.")
    assert runs.active() is None


def test_values_that_cannot_be_are_refused(runs: Runs, folder: Path) -> None:
    run = runs.queue("dpo", "base", folder, "me")
    with pytest.raises(ValueError, match="'sleeping'; expected one of queued, training"):
        runs.update(run.id, state="sleeping")  # type: ignore[arg-type]
    for progress in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share from 0 to 1"):
            runs.update(run.id, progress=progress)
    assert runs.get(run.id) == run
    for ask in (
        lambda: runs.get("nope"),
        lambda: runs.update("nope", progress=0.5),
        lambda: runs.request_cancel("nope"),
        lambda: runs.cancel_requested("nope"),
    ):
        with pytest.raises(UnknownRun, match="no run 'nope'"):
            ask()


def test_a_run_without_a_folder_is_not_begun(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"run's folder .* cannot be made"):
        runs.queue("dpo", "base", tmp_path / "runs", "me")
    assert runs.active() is None
    assert runs.list() == []


def test_the_last_promotion_is_served_and_rolling_back_is_one(runs: Runs, clock: Clock) -> None:
    assert runs.served() is None
    first = runs.promote("v0001", actor="gate", reason="won 70 %")
    runs.promote("v0002", actor="gate", reason="won 60 %")
    clock.now += 1
    back = runs.promote("v0001", actor="operator", reason="v0002 is rude")
    assert back == Promotion(back.sequence, "v0001", "operator", "v0002 is rude", clock.now)
    assert runs.served() == back
    assert back.sequence > first.sequence
    assert [promotion.version for promotion in runs.promotions()] == ["v0001", "v0002", "v0001"]
    assert runs.promotions(limit=1) == [back]
