"""A run that is killed at any point and resumed ends as one that was left alone: the same adapter, bit for bit."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from judged import comparison_of, fill_ledger, turn
from safetensors.torch import load_file
from test_run import LENIENT, QUICK
from tiny import save_tiny_base

from memory.database import open_database
from memory.ledger import Ledger
from memory.runs import Runs
from memory.schema import LabeledComparison, Rating
from training.checkpoints import Checkpoint, UnreadableCheckpoint, latest_checkpoint
from training.command import main
from training.execution import EXIT_CODES
from training.metrics import MetricsWriter
from training.resuming import CannotResume, beginning_of, interrupted_run
from training.reward_command import main as fit
from training.run_report import metrics_of

STEPS = ["--min-steps", "9", "--batch-size", "4", "--save-steps", "2"]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def make_studio(folder):
    database = open_database(f"sqlite:///{folder / 'thumbprint.db'}")
    fill_ledger(database, comparisons=30)
    database.close()
    return folder


@pytest.fixture
def data(tmp_path):
    return make_studio(tmp_path / "data")


def flags(data, base_folder, *others):
    return ["--data-dir", str(data), "--model", str(base_folder), *QUICK, *LENIENT, *STEPS, *others]


def runs_of(data):
    return Runs(open_database(f"sqlite:///{data / 'thumbprint.db'}"))


def run_and_kill(method, words, *, when):
    """Run the command in a process of its own that dies of SIGKILL as soon as `when` says so of a metrics line."""
    child = os.fork()
    if child == 0:
        write = MetricsWriter.write

        def write_and_die(self, phase, **values):
            write(self, phase, **values)
            if when(phase, values):
                os.kill(os.getpid(), signal.SIGKILL)

        MetricsWriter.write = write_and_die
        try:
            fit(words) if method == "reward_model" else main(method, words)
        finally:
            os._exit(9)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "it ended before it was killed"


def at_step(number):
    return lambda phase, values: phase == "train" and values.get("step") == number


def at_the_last_step(phase, values):
    return phase == "train" and 0 < values.get("step", 0) == values["total_steps"]


def candidate_of(data):
    (newest, *_) = runs_of(data).list()
    return load_file(Path(newest.folder) / "candidate" / "adapter_model.safetensors")


def assert_same_tensors(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


@pytest.fixture(scope="module")
def uninterrupted(base_folder, tmp_path_factory):
    """The adapter of a DPO run that nobody disturbed, and the loss at each of its steps."""
    data = make_studio(tmp_path_factory.mktemp("undisturbed") / "data")
    assert main("dpo", flags(data, base_folder)) == EXIT_CODES["published"]
    (run,) = runs_of(data).list()
    assert not (Path(run.folder) / "checkpoints").exists(), (
        "a run that ended well needs its checkpoints no more"
    )
    return candidate_of(data), losses(run)


def losses(run):
    return [(line["step"], line["loss"]) for line in metrics_of(Path(run.folder)) if "loss" in line]


@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow), 5, pytest.param(9, marks=pytest.mark.slow)]
)
def test_killed_while_training_and_resumed(data, base_folder, uninterrupted, step):
    """Before the first checkpoint, at the end of the first pass over the pairs (5 steps), and after the last step."""
    adapter, steps = uninterrupted
    run_and_kill("dpo", flags(data, base_folder), when=at_step(step))
    (dead,) = runs_of(data).list()
    reached = latest_checkpoint(Path(dead.folder))
    assert (reached and reached.name) == {1: None, 5: "checkpoint-4", 9: "checkpoint-8"}[step]

    assert main("dpo", ["--data-dir", str(data), "--resume"]) == EXIT_CODES["published"]
    resumed, killed = runs_of(data).list()
    assert (resumed.state, killed.state) == ("published", "failed")
    assert_same_tensors(candidate_of(data), adapter)
    assert losses(resumed) == steps, "the report's curve is that of one run"
    assert f"Resumed from run {killed.id}" in (Path(resumed.folder) / "report.md").read_text()


@pytest.mark.slow
def test_killed_while_examining_and_killed_again(data, base_folder, uninterrupted):
    run_and_kill("dpo", flags(data, base_folder), when=at_step(5))
    again = ["--data-dir", str(data), "--resume"]
    run_and_kill("dpo", again, when=lambda phase, values: phase == "evaluate")
    assert runs_of(data).served() is None
    assert main("dpo", again) == EXIT_CODES["published"]
    assert_same_tensors(candidate_of(data), uninterrupted[0])
    assert losses(runs_of(data).list()[0]) == uninterrupted[1], "no step was taken twice or too many"


@pytest.mark.slow
def test_a_checkpoint_that_was_being_written_is_not_gone_on_with(data, base_folder, uninterrupted):
    run_and_kill("dpo", flags(data, base_folder), when=at_step(5))
    (dead,) = runs_of(data).list()
    half = Path(dead.folder) / "checkpoints" / "checkpoint-6"
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    assert main("dpo", ["--data-dir", str(data), "--resume"]) == EXIT_CODES["published"]
    assert_same_tensors(candidate_of(data), uninterrupted[0])


def test_what_was_judged_meanwhile_waits_and_what_was_changed_is_not_resumed(
    data, base_folder, uninterrupted, capsys
):
    run_and_kill("dpo", flags(data, base_folder), when=at_step(5))
    database = open_database(f"sqlite:///{data / 'thumbprint.db'}")
    ledger = Ledger(database)
    judge_now(ledger, database.clock(), number=0, label="A")
    ledger.record(Rating("liked-3", 1, "rater", created_at=database.clock()))
    assert main("dpo", ["--data-dir", str(data), "--resume"]) == EXIT_CODES["published"]
    assert_same_tensors(candidate_of(data), uninterrupted[0])
    assert main("dpo", ["--data-dir", str(data), "--resume"]) == EXIT_CODES["failed"]
    assert "there is nothing to resume" in capsys.readouterr().err

    run_and_kill("dpo", flags(data, base_folder), when=at_step(1))
    ledger.record(replace(ledger.comparisons()[3], label="tie", created_at=database.clock()))
    database.close()
    assert main("dpo", ["--data-dir", str(data), "--resume"]) == EXIT_CODES["failed"]
    assert "has changed since" in capsys.readouterr().err


def judge_now(ledger, now, *, number, label):
    """One more comparison, in a conversation of its own."""
    first, second = (
        turn(f"new-{number}-{side}", f"new-{number}", "What else?", side * 5, created_at=now) for side in "xy"
    )
    for made in (first, second):
        ledger.record_turn(made)
    asked = comparison_of(f"new-{number}", first, second)
    ledger.record_comparison(asked)
    ledger.record(LabeledComparison(asked, label, "rater", seconds=1.0, created_at=now))


def test_a_flag_that_would_make_it_another_run_is_refused(data, base_folder, capsys):
    run_and_kill("dpo", flags(data, base_folder), when=at_step(1))
    (dead,) = runs_of(data).list()
    kept = (Path(dead.folder) / "began.json").read_text()
    assert "weather" not in kept, "no words of people"
    assert str(data) not in kept
    assert beginning_of(Path(dead.folder)).settings["min_steps"] == 9

    words = ["--data-dir", str(data), "--resume"]
    assert main("dpo", [*words, "--beta", "0.3"]) == EXIT_CODES["failed"]
    assert "began with beta 0.1, not 0.3" in capsys.readouterr().err
    assert main("kto", words) == EXIT_CODES["failed"]
    assert "no run of kto to resume" in capsys.readouterr().err


def test_without_a_run_there_is_nothing_to_resume(data):
    with pytest.raises(CannotResume, match="no run of dpo"):
        interrupted_run(runs_of(data), "dpo")


def test_a_state_is_replaced_whole_and_a_broken_one_is_refused(tmp_path):
    import torch

    checkpoint = Checkpoint(tmp_path / "a" / "ppo.pt", every=3)
    assert [step for step in range(1, 8) if checkpoint.is_due(step)] == [3, 6]
    assert checkpoint.load() is None
    checkpoint.save({"step": 3, "tensors": [torch.arange(4.0)]})
    checkpoint.save({"step": 6, "tensors": [torch.arange(5.0)]})
    assert checkpoint.load()["tensors"][0].tolist() == [0, 1, 2, 3, 4]
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["ppo.pt"]
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:100])
    with pytest.raises(UnreadableCheckpoint, match="Delete it to train from the beginning"):
        checkpoint.load()
    assert not any(Checkpoint(tmp_path / "never", every=0).is_due(step) for step in range(9))


PPO = [*STEPS, "--ppo-iterations", "3", "--rollout-size", "8", "--ppo-epochs", "1", "--kl-target", "2"]
PPO += ["--reward-learning-rate", "0.01", "--reward-epochs", "1", "--judged-pairs", "0", "--min-steps", "20"]


@pytest.fixture(scope="module")
def uninterrupted_ppo(base_folder, tmp_path_factory):
    data = make_studio(tmp_path_factory.mktemp("undisturbed_ppo") / "data")
    assert main("ppo", flags(data, base_folder, *PPO)) == EXIT_CODES["published"]
    return candidate_of(data)


@pytest.mark.parametrize("step", [pytest.param(7, marks=pytest.mark.slow), 22])
def test_ppo_killed_and_resumed(data, base_folder, uninterrupted_ppo, step):
    """While the reward model is fitted (20 steps), and after the second iteration of the policy."""
    run_and_kill("ppo", flags(data, base_folder, *PPO), when=at_step(step))
    (dead,) = runs_of(data).list()
    kept = {path.name for path in (Path(dead.folder) / "checkpoints").iterdir()}
    assert kept == ({"reward_model.pt"} if step == 7 else {"reward_model.pt", "ppo.pt"})
    assert main("ppo", ["--data-dir", str(data), "--resume"]) == EXIT_CODES["published"]
    assert_same_tensors(candidate_of(data), uninterrupted_ppo)


def test_a_reward_model_killed_and_resumed(tmp_path, base_folder):
    words = ["--model", str(base_folder), *QUICK, "--min-steps", "9", "--save-steps", "4"]
    whole, killed = (make_studio(tmp_path / name) for name in ("whole", "killed"))
    assert fit(["--data-dir", str(whole), *words]) in (0, 3)
    run_and_kill("reward_model", ["--data-dir", str(killed), *words], when=at_step(6))
    assert not (killed / "reward_model" / "reward_model.json").exists()
    assert fit(["--data-dir", str(killed), "--resume"]) in (0, 3)
    for name in ("reward/adapter_model.safetensors", "head.safetensors"):
        ours, theirs = (load_file(folder / "reward_model" / name) for folder in (killed, whole))
        assert_same_tensors(ours, theirs)
    assert "# A reward model" in (killed / "reward_model" / "report.md").read_text()
    assert (killed / "reward_model" / "loss.svg").is_file()
    assert not (killed / "reward_model" / "checkpoints").exists()
    assert fit(["--data-dir", str(killed), "--resume"]) == EXIT_CODES["failed"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kto", "sft", "rloo", "grpo"])
def test_every_other_method_killed_and_resumed(tmp_path, base_folder, method):
    words = [*STEPS, "--judged-pairs", "0", "--min-thumbs", "8", "--min-demonstrations", "4"]
    words += ["--group-iterations", "5", "--group-size", "4", "--rollout-size", "8", "--reward-epochs", "1"]
    # Not a multiple of a generation's two steps, at which alone sampling can be gone on with.
    words += ["--reward-learning-rate", "0.01", "--save-steps", "2" if method in ("kto", "sft") else "3"]
    whole, killed = (make_studio(tmp_path / name) for name in ("whole", "killed"))
    for data in (whole, killed):
        rate_some(data)
    assert main(method, flags(whole, base_folder, *words)) in (0, EXIT_CODES["rejected"])
    run_and_kill(method, flags(killed, base_folder, *words), when=at_the_last_step)
    (dead,) = runs_of(killed).list()
    last = latest_checkpoint(Path(dead.folder))
    assert last is not None and int(last.name.removeprefix("checkpoint-")) >= 8
    assert main(method, ["--data-dir", str(killed), "--resume"]) in (0, EXIT_CODES["rejected"])
    assert_same_tensors(candidate_of(killed), candidate_of(whole))


def rate_some(data):
    """Thumbs beside the comparisons: up for the liked, down for the other replies of every second conversation."""
    database = open_database(f"sqlite:///{data / 'thumbprint.db'}")
    ledger = Ledger(database)
    for number in range(0, 30, 2):
        for side, value in (("liked", 1), ("other", -1)):
            ledger.record(Rating(f"{side}-{number}", value, "rater", created_at=5.0))
    database.close()
