"""The evaluation on a tiny real model: every figure is there and means what it says."""

from __future__ import annotations

import pytest
from judged import DISLIKED, LIKED, quick_settings
from tiny import save_tiny_adapter, save_tiny_base

from memory.schema import Message
from training.base import load_base
from training.bradley_terry import fit_judge
from training.evaluation import Version, base_features, choose_prompts, evaluate
from training.views import PreferenceRow, PreferenceView

SETTINGS = quick_settings(eval_prompts=8)
BASE = Version("base", None)


def rows(start, count):
    return tuple(
        PreferenceRow(
            (Message("user", f"What about {n}?"),), LIKED[n % 3], DISLIKED[n % 3], str(n), f"comparison:{n}"
        )
        for n in range(start, start + count)
    )


TRAIN, HELDOUT = rows(0, 12), rows(12, 4)
VIEW = PreferenceView(TRAIN, HELDOUT, heldout_prompts=tuple(row.prompt for row in HELDOUT))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A base, and a model over it that holds an adapter near to the base and one far away."""
    from peft import PeftModel

    folder = save_tiny_base(tmp_path_factory.mktemp("base"))
    base = load_base(SETTINGS.model_copy(update={"model": str(folder)}))
    near = save_tiny_adapter(tmp_path_factory.mktemp("near"), base.model, seed=1, scale=0.01)
    far = save_tiny_adapter(tmp_path_factory.mktemp("far"), base.model, seed=2, scale=2.0)
    model = PeftModel.from_pretrained(base.model, str(near), adapter_name="near")
    model.load_adapter(str(far), adapter_name="far")
    return base, model


def examine(loaded, candidate, *, served=BASE, view=VIEW, judged=True, **others):
    base, model = loaded
    return evaluate(
        base,
        model,
        view,
        candidate=candidate,
        served=served,
        reference=BASE,
        judge=fit_judge(TRAIN, base_features(base, model)) if judged else None,
        settings=SETTINGS,
        **others,
    )


def test_the_base_examined_against_itself_is_a_draw(loaded):
    report = examine(loaded, BASE)
    assert report.win_rate_served == report.win_rate_base == 0.5
    assert report.win_rate_served_error == 0.0
    assert report.kl_base == pytest.approx(0.0, abs=1e-5)
    assert report.fluency_drop == 0.0
    assert report.preference_accuracy == 0.0, "a reward of zero orders nothing"
    assert report.candidate == report.served == report.base


def test_every_figure_is_measured_and_counts_are_true(loaded):
    report = examine(loaded, Version("candidate", "far"))
    assert (report.training_pairs, report.heldout_pairs, report.heldout_prompts) == (12, 4, 4)
    assert report.candidate.replies == 8, "four prompts, each answered twice"
    assert None not in report.to_dict().values()
    assert report.judge_accuracy == 1.0, "the liked replies all end in a question mark"
    low, high = report.preference_accuracy_low, report.preference_accuracy_high
    assert low <= report.preference_accuracy <= high
    assert [sample.prompt for sample in report.samples] == [
        prompt[-1].content
        for prompt in dict.fromkeys(choose_prompts(VIEW.heldout_prompts, most=8, seed=SETTINGS.seed))
    ]
    assert all(0.0 <= sample.preferred <= 1.0 for sample in report.samples)


def test_a_far_adapter_is_farther_and_less_fluent_than_a_near_one(loaded):
    near, far = (examine(loaded, Version("candidate", name)) for name in ("near", "far"))
    assert 0 < near.kl_base < 0.5 < far.kl_base
    assert far.fluency_drop > near.fluency_drop


def test_the_served_version_is_what_it_is_compared_with(loaded):
    report = examine(loaded, Version("candidate", "far"), served=Version("v0002", "far"))
    assert report.served_version == "v0002"
    assert report.win_rate_served == 0.5
    assert report.kl_served == pytest.approx(0.0, abs=1e-5)
    assert report.kl_base > 0.5
    assert report.served == report.candidate != report.base


def test_the_same_seed_gives_the_same_report(loaded):
    assert examine(loaded, Version("candidate", "far")) == examine(loaded, Version("candidate", "far"))


def test_without_anything_held_out_nothing_is_claimed(loaded):
    report = examine(loaded, BASE, view=PreferenceView(TRAIN, ()))
    assert (report.heldout_pairs, report.heldout_prompts) == (0, 0)
    for figure in ("preference_accuracy", "judge_accuracy", "win_rate_served", "kl_base", "fluency_drop"):
        assert getattr(report, figure) is None
    assert report.samples == ()


def test_without_a_judge_there_are_no_win_rates(loaded):
    report = examine(loaded, Version("candidate", "far"), judged=False)
    assert (report.judge_accuracy, report.win_rate_served, report.win_rate_served_error) == (None, None, None)
    assert report.preference_accuracy is not None
    assert all(sample.preferred is None for sample in report.samples)


def test_the_judge_sees_the_base_whatever_adapter_is_active(loaded):
    base, model = loaded
    pairs = [(row.prompt, row.chosen) for row in TRAIN[:3]]
    before = base_features(base, model)(pairs)
    model.set_adapter("far")
    assert base_features(base, model)(pairs).equal(before)


def test_progress_rises_and_stopping_stops(loaded):
    shares = []
    examine(loaded, BASE, on_progress=lambda share, message: shares.append(share))
    assert shares == sorted(shares)
    with pytest.raises(KeyboardInterrupt):
        examine(loaded, BASE, each_step=lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_prompts_are_chosen_by_the_seed_and_few_are_asked_several_times():
    prompts = [(Message("user", str(n)),) for n in range(20)]
    chosen = choose_prompts(prompts, most=8, seed=1)
    assert len(chosen) == len(set(chosen)) == 8
    assert chosen == choose_prompts(prompts[::-1], most=8, seed=1)
    assert chosen != choose_prompts(prompts, most=8, seed=2)
    assert len(choose_prompts(prompts[:3], most=8, seed=1)) == 6
    assert len(choose_prompts(prompts[:1], most=48, seed=1)) == 4
    assert choose_prompts([], most=8, seed=1) == ()
