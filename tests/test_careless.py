"""The whole loop on the model that ships, trained as one should not: the gate refuses the result, for a reason."""

from __future__ import annotations

import pytest

from benchmarks.loop import ALWAYS, CARELESS, PAIRS, run_round
from benchmarks.raters import find_rater
from memory.schema import BASE_VERSION
from memory.settings import load_settings
from studio.settings import StudioSettings

TOO_FAST = ("--judged-pairs", "0", "--seed", "71")


@pytest.mark.slow
def test_a_candidate_that_won_by_losing_its_language_is_refused(tmp_path):
    flags = [*PAIRS, *ALWAYS, *CARELESS, *TOO_FAST, "--data-dir", str(tmp_path)]
    found = run_round(
        find_rater("short"),
        comparisons=60,
        seed=71,
        prompts=16,
        settings=load_settings(StudioSettings, flags),
    )
    assert found.win_rate > 0.6, "in the judge's eyes it is better"
    assert not found.promoted
    assert "less fluent" in found.verdict or "all but never say" in found.verdict
    assert found.served == BASE_VERSION
    assert found.after == found.before, "the same seeds ask the same base"
