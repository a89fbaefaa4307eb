"""The metrics file can be read while it is being written, and never holds what is not a number."""

from __future__ import annotations

import json

import pytest

from training.metrics import MetricsWriter, read_metrics


def test_lines_carry_on_step_and_progress(tmp_path):
    file = tmp_path / "metrics.jsonl"
    with MetricsWriter(file, clock=lambda: 5.0) as metrics:
        metrics.write("load", progress=0.1, message="Loading")
        metrics.write("train", step=1, total_steps=4, progress=0.2, seconds_left=9.0, loss=0.7)
        metrics.write("evaluate", message="Looking")
        assert len(read_metrics(file)) == 3, "a line can be read as soon as it is written"
    first, second, third = read_metrics(file)
    assert first == {
        "time": 5.0,
        "phase": "load",
        "step": 0,
        "total_steps": 0,
        "progress": 0.1,
        "seconds_left": None,
        "message": "Loading",
    }
    assert (second["loss"], second["seconds_left"]) == (0.7, 9.0)
    assert (third["phase"], third["step"], third["total_steps"], third["progress"]) == ("evaluate", 1, 4, 0.2)


def test_what_is_not_a_number_becomes_null(tmp_path):
    file = tmp_path / "metrics.jsonl"
    with MetricsWriter(file, clock=lambda: 0.0) as metrics:
        metrics.write("train", loss=float("nan"), **{"rewards/margins": float("inf")})
    assert "NaN" not in file.read_text()
    assert json.loads(file.read_text())["loss"] is None
    assert read_metrics(file)[0]["rewards/margins"] is None


def test_a_line_under_way_is_left_out_and_a_broken_one_is_not_hidden(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    file.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(file) == [{"step": 1}]
    file.write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_metrics(file)
    file.write_text("[1]\n")
    with pytest.raises(ValueError, match="expected a JSON object"):
        read_metrics(file)
