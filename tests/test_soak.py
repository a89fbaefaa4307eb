"""A minute of many people: nothing is lost, and the process ends as it began."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny import save_tiny_base

from benchmarks.soak import soak
from studio.settings import StudioSettings


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_minute_of_use_loses_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = StudioSettings(
        data_dir=tmp_path / "data",
        model=str(save_tiny_base(tmp_path / "base")),
        compare_every=2,
        compare_with_previous=0.5,
        context_tokens=256,
        max_new_tokens=64,
        max_rows=4,
        chat_threads=1,
    )
    result = soak(settings, 60.0, seed=7, every=2.0)
    assert result.lost == 0 and result.begun > 10
    assert set(result.finishes) <= {"stop", "length", "cancelled"}
    assert {"promote, new", "send"} <= set(result.acts)
    assert result.before is not None and result.after is not None
    assert result.after.threads <= result.before.threads
    assert result.after.handles <= result.before.handles
    steady = result.samples[len(result.samples) // 4 :]
    assert max(one.handles for one in steady) <= min(one.handles for one in steady) + 4
    assert max(one.threads for one in steady) <= min(one.threads for one in steady) + 2
    assert max(one.adapters for one in steady) <= settings.keep_adapters + 4
    assert result.growth() < 100, f"memory grew: {[one.resident for one in result.samples]}"
