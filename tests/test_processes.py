"""Several processes: how work is dealt out, what a meeting gives everybody, and that two train what one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from judged import fill_ledger, turn
from launching import JOB, run_together
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import save_tiny_base

from memory.database import open_database
from memory.ledger import Ledger
from memory.runs import Runs
from memory.schema import Rating
from training.execution import EXIT_CODES
from training.processes import ALONE, Processes, joined, launched_together

CONFIGS = sorted((JOB.parent.parent / "training" / "accelerate").glob("*.yaml"))
ROUNDING = 2e-3
"""How far a matrix may end from the one that a single process learns, as a part of its length.

A gradient is a sum over rows in another order, off by about 1e-6 of its size (tens of terms, 2^-24 each). Adam divides
by the gradient's own size, so only weights whose gradient is that near to 0 move otherwise, by two steps at most: about
one weight in 1e6, which is 2 * sqrt(1e-6) of the length. Most methods stay a hundred times closer."""


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def test_one_process_needs_nobody():
    assert not launched_together()
    with joined() as processes:
        assert processes is ALONE
    assert ALONE.leads
    assert ALONE.mine([1, 2, 3]) == ALONE.gathered([1, 2, 3]) == [1, 2, 3]
    tensor = torch.ones(2)
    ALONE.add_up([tensor])
    assert tensor.tolist() == [1.0, 1.0]
    assert ALONE.led(lambda: 5) == 5
    with pytest.raises(KeyError):
        ALONE.deferred({}.popitem)()


def test_passes_are_dealt_out_so_that_all_make_the_same_number():
    """Five passes among three: two each, and the one that has only one repeats the first, which counts nothing."""
    dealt = [Processes(rank, 3).dealt(["a", "b", "c", "d", "e"]) for rank in range(3)]
    assert dealt == [[("a", 1), ("d", 1)], [("b", 1), ("e", 1)], [("c", 1), ("a", 0)]]
    assert ALONE.dealt([7, 8]) == [(7, 1), (8, 1)]


@pytest.mark.parametrize(
    ("rows", "passes", "count", "each", "share"),
    [
        (8, 1, 2, 4, (4, 1)),
        (8, 2, 2, 8, (8, 1)),
        (8, 4, 2, 8, (8, 2)),
        (2, 8, 4, 2, (2, 2)),
        (1, 2, 2, 1, (1, 1)),
    ],
)
def test_a_step_has_the_same_rows_on_any_number_of_processes(rows, passes, count, each, share):
    processes = Processes(0, count)
    assert processes.rows_each(rows, passes) == each
    assert processes.share_of_step(rows, passes) == share
    assert share[0] * share[1] * count == rows * passes


def test_a_step_that_cannot_be_divided_says_which_settings_to_change():
    with pytest.raises(ValueError, match=r"3 x 1 rows .* among 2 processes. Set gradient_accumulation"):
        Processes(0, 2).share_of_step(3, 1)


def test_what_a_meeting_gives_is_the_same_for_all(tmp_path):
    run_together("meetings", tmp_path / "seen")
    first, second = (json.loads((tmp_path / f"seen.{rank}").read_text()) for rank in (0, 1))
    assert (first.pop("rank"), second.pop("rank")) == (0, 1)
    assert first.pop("pooled") == [1, 1]
    assert second.pop("pooled") == [2, 2]
    assert first == second
    assert first == {
        "count": 2,
        "gathered": [0, 10, 20, 30, 40],
        "sums": [[3.0, 3.0], [[3.0]]],
        "totals": {"a": 3.0, "b": 3.0},
        "any": [True, False],
        "led": "said by 0",
        "raised": "no, says 0",
        "deferred": "no, says 0",
    }


@pytest.fixture(scope="module")
def by_one(base_folder, tmp_path_factory):
    """What one process makes of the trainers' job."""
    out = tmp_path_factory.mktemp("one") / "adapters.safetensors"
    run_together("trainers", base_folder, out, count=1)
    return out


def compare(one: Path, two: Path) -> None:
    """Adapters by the length of the difference, scores of the replies by their numbers."""
    kept = []
    for path in (one, two):
        with safe_open(path, "pt") as file:
            kept.append(json.loads(file.metadata()["scores"]))
    assert kept[0].keys() == kept[1].keys()
    for mode, scores in kept[0].items():
        assert kept[1][mode] == pytest.approx(scores, abs=1e-4), f"{mode}: other replies were sampled"
    assert_alike(load_file(one), load_file(two))


def assert_alike(one, two) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert (two[name] - value).norm() <= ROUNDING * value.norm(), name


@pytest.mark.parametrize("sharded", ["false", "true"], ids=["ddp", "fsdp"])
@pytest.mark.slow
def test_two_processes_make_the_reward_model_and_the_policies_that_one_makes(
    base_folder, by_one, tmp_path, sharded
):
    """PPO, REINFORCE and TRPO by our own loops, the base whole in each process or divided between them."""
    out = tmp_path / "adapters.safetensors"
    run_together("trainers", base_folder, out, ACCELERATE_USE_FSDP=sharded)
    compare(by_one, out)


METHODS = (
    "reward_model",
    "dpo",
    "kto",
    "sft+--epochs=0.7+--min-steps=3",
    "ppo",
    "rloo+--gradient-accumulation=4",
    "grpo+--gradient-accumulation=4",
)
"""With steps that come out the same: SFT ends before the rows that fill no step, which several processes leave out; a
generation of RLOO and GRPO is one step, since TRL shuffles the replies of each process among themselves."""


@pytest.fixture(scope="module")
def commands_by_one(base_folder, tmp_path_factory):
    """A data folder for each method, with the run that one process made."""
    data = tmp_path_factory.mktemp("data")
    for method in METHODS:
        database = open_database(f"sqlite:///{data / method / 'thumbprint.db'}")
        fill_ledger(database, comparisons=60)
        rate(Ledger(database))
        database.close()
    before = data.with_name("before")
    shutil.copytree(data, before)
    run_together("commands", data, base_folder, ",".join(METHODS), count=1)
    return before, data


def rate(ledger: Ledger) -> None:
    """Thumbs of both kinds, for the methods that learn from them."""
    for number in range(40):
        said = "Tea and trains. Is that all?" if number % 2 else "I do not know."
        rated = turn(f"rated-{number}", f"rated-{number}", f"How is thing {number} today?", said)
        ledger.record_turn(rated)
        ledger.record(Rating(rated.id, 1 if number % 2 else -1, "rater", created_at=5.0 + number))


@pytest.mark.parametrize("config", ["ddp", "fsdp"])
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_under_accelerate_makes_what_it_makes_alone(
    commands_by_one, base_folder, tmp_path, config
):
    """The shipped configs, on two processes of this machine. Replies, losses and the adapter are those of one."""
    before, alone = commands_by_one
    data = tmp_path / "data"
    shutil.copytree(before, data)
    config_file = JOB.parent.parent / "training" / "accelerate" / f"{config}.yaml"
    accelerate = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    launch = ["--config_file", str(config_file), "--num_processes", "2", "--main_process_port", "0"]
    launch += ["--mixed_precision", "no"]
    job = [str(JOB), "commands", str(data), str(base_folder), ",".join(METHODS)]
    done = subprocess.run(
        [*accelerate, *launch, *job],
        env=dict(os.environ) | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for method in METHODS:
        one, two = (candidate_of(folder / method) for folder in (alone, data))
        losses = [losses_of(found.parent.parent / "metrics.jsonl") for found in (one, two)]
        if method == "kto":
            # Its loss holds a divergence estimated from all rows that are passed together, which is 0 at first.
            losses = [values[:2] for values in losses]
        else:
            assert_alike(load_file(one), load_file(two))
        assert losses[0] == pytest.approx(losses[1], abs=1e-3), method


@pytest.mark.slow
def test_a_run_of_two_processes_that_is_cancelled_ends_both_and_says_so(base_folder, tmp_path):
    method = "dpo+--min-steps=100000"
    database = open_database(f"sqlite:///{tmp_path / method / 'thumbprint.db'}")
    fill_ledger(database, comparisons=60)
    runs, printed = Runs(database), []
    launch = threading.Thread(
        target=lambda: printed.extend(run_together("commands", tmp_path, base_folder, method))
    )
    launch.start()
    while launch.is_alive() and not any("of 100000" in run.message for run in runs.list()):
        time.sleep(0.2)
    (run,) = runs.list()
    runs.request_cancel(run.id)
    launch.join()
    assert [f"{method} {EXIT_CODES['cancelled']}" in lines for lines in printed] == [True, True]
    ended = runs.get(run.id)
    assert (ended.state, ended.message) == (
        "cancelled",
        "Cancelled on request. What is served has not changed.",
    )
    database.close()


def candidate_of(data: Path) -> Path:
    """What was learned: a run's candidate, or the reward model, beside whose folder the metrics are too."""
    (found,) = [
        *data.glob("runs/*/candidate/adapter_model.safetensors"),
        *data.glob("reward_model/reward/adapter_model.safetensors"),
    ]
    return found


def losses_of(metrics: Path) -> list[float]:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    found = [row.get("loss", row.get("reward_model/loss")) for row in rows]
    return [loss for loss in found if loss is not None]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_one_that_accelerate_takes(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    kinds = {"ddp": "MULTI_GPU", "fsdp": "FSDP", "two_machines": "MULTI_GPU"}
    assert str(config.distributed_type).split(".")[-1] == kinds.get(path.stem, "DEEPSPEED")
    assert config.num_processes >= 2
    if "zero" in path.stem:
        assert config.deepspeed_config["zero_stage"] == int(path.stem[-1])
