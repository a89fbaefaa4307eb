"""The benchmarks of training: what they measure, and what their tables say of it. They are not run here."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from benchmarks import ppo, trainers
from benchmarks.measuring import Meter, Taken, tensor_mb
from benchmarks.ppo_job import Answer, Job
from benchmarks.trainers_ways import Answer as Trained

TAKEN = Taken(seconds=10.0, cpu=8.0, peak_mb=900.4, growth_mb=300.0, device_mb=None)
ANSWER = Answer(taken=TAKEN, model_mb=20.0, loaded_mb=500.0, episodes=40, scores=[0.1, 0.9], kl=[0.0, 1.5])


def job():
    parsed = ppo._parser().parse_args(["--rollout", "8", "--batch", "4", "--episodes", "24"])
    return ppo._job(parsed, [[1, 2], [3]], ppo.ROOT / "somewhere", 7)


def test_storage_that_is_shared_counts_once():
    layer, other = nn.Linear(250, 1000, bias=False), nn.Linear(250, 1000, bias=False)
    assert tensor_mb(layer) == tensor_mb(layer, layer) == 1.0
    assert tensor_mb(layer, other) == 2.0
    other.weight = layer.weight
    assert tensor_mb(layer, other) == 1.0


def test_the_meter_sees_memory_that_is_held_for_a_while():
    with Meter() as meter:
        held = torch.ones(20_000_000)
        del held
    assert 70 < meter.taken.growth_mb < 400
    assert meter.taken.seconds > 0
    assert meter.taken.cpu > 0


def test_a_job_goes_to_another_process_and_into_our_settings_unchanged(tmp_path):
    read = Job.read(job().write(tmp_path / "job.json"))
    assert read == job()
    settings = read.settings()
    assert (settings.ppo_iterations, settings.rollout_size, settings.batch_size) == (3, 8, 4)
    assert (settings.stop_kl, settings.ptx_weight, settings.seed) == (0.0, 0.0, 7)
    assert read.settings(stop_kl=0.05).stop_kl == 0.05
    ANSWER.write(tmp_path)
    assert Answer.read(tmp_path) == ANSWER


def test_the_table_of_ppo_has_medians_and_ranges():
    slow = replace(ANSWER, taken=replace(TAKEN, seconds=20.0, cpu=16.0))
    runs = [ppo.Run("ours", 1, ANSWER, 1.0, 2.0), ppo.Run("ours", 2, slow, 3.0, 2.0)]
    lines = ppo.table([*runs, ppo.Run("TRL", 1, ANSWER, 0.5, 2.5)]).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].startswith("| ours | 3.00 (2.00-4.00) | 3.75 (2.50-5.00) | 900 (900-900) |")
    assert lines[3] == "| TRL | 4.00 | 5.00 | 900 | 300 | 20.0 | 0.90 | 1.50 | 0.50 | 2.50 |"


def test_the_table_of_trainers_says_how_far_curves_are_apart():
    ours, same = Trained(TAKEN, [0.7, 0.5, 0.3]), Trained(TAKEN, [0.7, 0.52, 0.3])
    runs = [trainers.Run("dpo", "ours", 1, ours), trainers.Run("dpo", "same", 1, same)]
    lines = trainers.table(runs).splitlines()
    assert lines[2] == "| dpo | ours | 10.0 | 8.0 | 900 | 300 | 0.500 | |"
    assert lines[3] == "| dpo | same | 10.0 | 8.0 | 900 | 300 | 0.507 | 2.0e-02 |"
