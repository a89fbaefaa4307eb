"""The Retrain button: when it may be pressed, the process behind it, and what is read of its files."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from judged import fill_ledger, quick_settings
from tiny import save_tiny_base

from memory.database import open_database
from memory.ledger import Ledger
from memory.runs import RunInProgress, Runs
from memory.settings import load_settings
from studio.retraining import Retraining, RetrainingRefused
from studio.settings import StudioSettings
from studio.trainer_process import environment_of
from training.settings import REPOSITORY, TrainingSettings

QUICK = quick_settings().model_dump(
    exclude={"data_dir", "database_url", "model", "preset"}, exclude_defaults=True
)


def settings_at(folder: Path, **changes) -> StudioSettings:
    return StudioSettings(data_dir=folder / "data", **QUICK | changes)


class Bench:
    """A retraining service over a real database; `script` is what the trainer runs instead of training."""

    def __init__(self, folder: Path, script: str | None = None, *, comparisons: int = 60, **options) -> None:
        self.settings = settings_at(folder, **options.pop("settings", {}))
        self.database = open_database(self.settings.resolved_database_url)
        self.ledger, self.runs = Ledger(self.database), Runs(self.database)
        fill_ledger(self.database, comparisons=comparisons)
        command = {} if script is None else {"command": (sys.executable, "-c", script)}
        self.retraining = Retraining(self.settings, self.runs, self.ledger, **command, **options)

    def start_and_wait(self):
        run = self.retraining.start("ann")
        assert self.retraining.wait(run.id, timeout=240)
        return self.runs.get(run.id)


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(*arguments, **options) -> Bench:
        made.append(Bench(tmp_path, *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.database.close()


def test_too_little_data_is_refused_with_how_much_is_missing(bench):
    one = bench("raise SystemExit('must not run')", comparisons=5)
    ready = one.retraining.readiness()
    assert (ready.ready, ready.have) == (False, 5) and ready.need >= 7
    with pytest.raises(RetrainingRefused) as refused:
        one.retraining.start("ann")
    assert str(refused.value) == ready.sentence and str(ready.need) in ready.sentence
    assert one.runs.list() == [] and not one.settings.runs_dir.exists()
    fill_ledger(one.database, comparisons=55, start=5)
    assert one.retraining.readiness().ready


def test_the_trainer_is_detached_nice_logged_and_told_its_run(bench):
    script = (
        "import os, sys, json; from pathlib import Path\n"
        "group = Path('/proc/self/autogroup')\n"
        "print(json.dumps({'arguments': sys.argv[1:], 'session': os.getsid(0), 'pid': os.getpid(),\n"
        " 'seed': os.environ['THUMBPRINT_SEED'], 'path': os.environ['PYTHONPATH'].split(os.pathsep)}))\n"
        "import time; time.sleep(0.3); print('nice', os.nice(0))\n"
        "if group.exists(): print('group', group.read_text().split()[-1])\n"
    )
    one = bench(script, settings={"seed": 41, "training_niceness": 7})
    run = one.start_and_wait()
    first, *rest = (Path(run.folder) / "log.txt").read_text().splitlines()
    told = json.loads(first)
    assert told["arguments"] == ["--run-id", run.id] and told["seed"] == "41"
    assert told["session"] == told["pid"] == run.pid != os.getpid()
    assert told["path"][0] == str(REPOSITORY)
    assert rest[0] == "nice 7" and rest[1:] in ([], ["group 7"])


def test_the_trainer_reads_exactly_the_settings_that_the_studio_has(tmp_path, monkeypatch):
    settings = settings_at(
        tmp_path,
        preset="gpu",
        database_url="sqlite:////somewhere/else.db",
        revision="",
        learning_rate=1.25e-7,
        start_from="previous",
        seed=5,
    )
    for name, value in environment_of(settings, {"PATH": "/bin", "THUMBPRINT_SEED": "9"}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "thumbprint.toml").write_text("seed = 77\nlora_rank = 99\n")
    monkeypatch.chdir(tmp_path)
    read = load_settings(TrainingSettings, [])
    assert read == TrainingSettings(
        **{name: getattr(settings, name) for name in TrainingSettings.model_fields}
    )


def test_a_second_retraining_is_refused_while_one_is_under_way(bench):
    one = bench("import time; time.sleep(60)", cancel_grace=0.0)
    run = one.retraining.start("ann")
    assert one.retraining.active().id == run.id
    with pytest.raises(RunInProgress):
        one.retraining.start("bob")
    one.retraining.cancel(run.id)
    assert one.retraining.wait(run.id, timeout=30)
    assert one.runs.get(run.id).state == "cancelled" and one.retraining.active() is None


def test_a_trainer_that_dies_without_a_word_is_reported_with_its_last_one(bench):
    run = bench("print('step 1'); print('ModuleNotFoundError: trl'); raise SystemExit(7)").start_and_wait()
    assert (
        run.state == "failed" and "exit code 7" in run.message and "ModuleNotFoundError: trl" in run.message
    )


def test_a_trainer_that_is_killed_is_reported_and_the_next_run_can_start(bench):
    one = bench("import time; time.sleep(60)")
    run = one.retraining.start("ann")
    os.kill(one.runs.get(run.id).pid, signal.SIGKILL)
    assert one.retraining.wait(run.id, timeout=30)
    assert one.runs.get(run.id).state == "failed" and "killed by signal 9" in one.runs.get(run.id).message
    again = one.retraining.start("ann")
    assert again.id != run.id
    os.kill(one.runs.get(again.id).pid, signal.SIGKILL)
    assert one.retraining.wait(again.id, timeout=30)


def test_a_trainer_that_cannot_be_started_fails_the_run(bench):
    one = bench()
    one.retraining = Retraining(one.settings, one.runs, one.ledger, command=("/no/such/python",))
    run = one.retraining.start("ann")
    assert run.state == "failed" and "/no/such/python" in run.message and one.retraining.active() is None


def test_half_written_and_damaged_lines_are_left_out_of_metrics(bench):
    one = bench()
    folder = Path(one.runs.queue("dpo", "base", one.settings.runs_dir, "ann").folder)
    run_id = folder.name
    assert one.retraining.metrics(run_id) == [] and one.retraining.log_tail(run_id) == ""
    lines = [b'{"step": 1}', b'{"st\xff', b"[1]", b'{"step": 2}', b'{"step": 3}']
    (folder / "metrics.jsonl").write_bytes(b"\n".join([*lines, b'{"step": 4, "lo']))
    assert one.retraining.metrics(run_id) == [{"step": 1}, {"step": 2}, {"step": 3}]
    assert one.retraining.metrics(run_id, limit=1) == [{"step": 3}]
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'ss": 0.5}\n')
    assert one.retraining.metrics(run_id, limit=1) == [{"step": 4, "loss": 0.5}]


def test_the_end_of_a_long_log_is_read_with_progress_bars_as_last_painted(bench):
    one = bench()
    folder = Path(one.runs.queue("dpo", "base", one.settings.runs_dir, "ann").folder)
    (folder / "log.txt").write_bytes(
        b"x" * (1 << 20) + b"\nfirst\n 1%\r 50%\r100%\n\x1b[32mgreen\x1b[0m\r\n" + "grü".encode()[:-1]
    )
    assert one.retraining.log_tail(folder.name) == "first\n100%\ngreen\ngr\ufffd"
    assert one.retraining.log_tail(folder.name, lines=2) == "green\ngr\ufffd"


def test_the_report_is_read_once_it_is_there(bench):
    one = bench()
    folder = Path(one.runs.queue("dpo", "base", one.settings.runs_dir, "ann").folder)
    assert one.retraining.report(folder.name) is None
    (folder / "report.json").write_text('{"verdict": {"promote": false}}')
    assert one.retraining.report(folder.name) == {"verdict": {"promote": False}}


@pytest.mark.slow
def test_the_real_trainer_does_a_whole_iteration(bench, tmp_path):
    one = bench(settings={"model": str(save_tiny_base(tmp_path / "base")), "training_niceness": 0})
    run = one.start_and_wait()
    assert run.state in ("published", "rejected"), one.retraining.log_tail(run.id)
    assert one.retraining.report(run.id) is not None
    rows = one.retraining.metrics(run.id)
    assert {"load", "train", "evaluate", "gate"} <= {row["phase"] for row in rows}
    assert max(row["step"] for row in rows) == rows[-1]["total_steps"] > 0


@pytest.mark.slow
def test_the_real_trainer_can_be_cancelled(bench, tmp_path):
    base = save_tiny_base(tmp_path / "base")
    one = bench(settings={"model": str(base), "min_steps": 100_000, "training_niceness": 0})
    run = one.retraining.start("ann")
    one.retraining.cancel(run.id)
    assert one.retraining.wait(run.id, timeout=120)
    assert one.runs.get(run.id).state == "cancelled" and one.runs.promotions() == []
