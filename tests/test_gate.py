"""The gate: one test per way of being not good enough, and that it never opens on what was not measured."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from studio.training_words import AT_MOST, CHECKS
from training.gate import Verdict, decide
from training.report import EvaluationReport, ReplyFigures, SampleReply, meanings
from training.settings import TrainingSettings

SETTINGS = TrainingSettings()
REPLIES = ReplyFigures(
    replies=48,
    mean_tokens=40.0,
    fluency=-1.2,
    implausible=0.0,
    repetition=0.01,
    identical=0.0,
    distinct_2=0.8,
    empty=0.0,
    punctuation=0.0,
    truncated=0.0,
    garbled=0.0,
    degenerate=0.0,
)
GOOD = EvaluationReport(
    served_version="v0003",
    training_pairs=80,
    heldout_pairs=20,
    heldout_prompts=24,
    preference_accuracy=0.9,
    preference_accuracy_low=0.7,
    preference_accuracy_high=0.97,
    judge_accuracy=0.85,
    judge_accuracy_low=0.64,
    judge_accuracy_high=0.95,
    taste_accuracy=0.9,
    taste_accuracy_low=0.82,
    taste_accuracy_high=0.95,
    win_rate_served=0.8,
    win_rate_served_error=0.04,
    win_rate_base=0.82,
    win_rate_base_error=0.04,
    kl_base=8.0,
    kl_served=6.0,
    fluency_drop=0.1,
    forgotten=0.005,
    on_topic=0.9,
    on_topic_high=0.96,
    on_topic_served=0.95,
    candidate=REPLIES,
    served=REPLIES,
    base=REPLIES,
    samples=(SampleReply("Why?", "Because. And you?", "Because.", "Because!", 0.9),),
)


def replace_settings(**changes):
    return SETTINGS.model_copy(update=changes)


def failed(report, settings=SETTINGS):
    return [check.name for check in decide(report, settings).checks if not check.passed]


def test_a_good_candidate_is_promoted_and_says_why():
    verdict = decide(GOOD, SETTINGS)
    assert verdict.promote
    assert all(check.passed for check in verdict.checks)
    assert verdict.summary == (
        "Promoted: preferred to v0003 in 80 % of held-out replies, and it orders 90 % of 20 held-out choices "
        "as people did."
    )


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"heldout_pairs": 3}, "heldout_pairs", "Too little to examine it by: 3 pairs kept aside, 4 needed."),
        ({"heldout_prompts": 1}, "heldout_prompts", "Too little to examine it by: 1 prompts"),
        (
            {"taste_accuracy": 0.56, "taste_accuracy_low": 0.46, "taste_accuracy_high": 0.66},
            "taste",
            "No clear taste speaks from the ratings: choices left out in turn are foretold in 56 % (46 % to 66 %)",
        ),
        (
            {"preference_accuracy": 0.3, "preference_accuracy_high": 0.5},
            "preference_accuracy",
            "did not learn what people prefer: it orders 30 % of 20",
        ),
        (
            {"win_rate_served": 0.52},
            "win_rate",
            "not clearly better than v0003: its replies are preferred in 52 %",
        ),
        ({"win_rate_served_error": 0.4}, "win_rate", "(give or take 40 %)"),
        (
            {"fluency_drop": 3.0},
            "fluency_drop",
            "less fluent: the base finds them 3.00 nats a token less likely",
        ),
        (
            {"forgotten": 0.06},
            "forgotten",
            "It forgot 6.0 % of what v0003 is sure of, at most 3.0 % may be.",
        ),
        (
            {"on_topic": 0.6, "on_topic_high": 0.72, "on_topic_served": 0.95},
            "on_topic",
            "Only 60 % of its replies speak of what was asked, where 95 % of the served ones do",
        ),
        ({"kl_base": 500.0}, "kl_base", "drifted too far from the base: 500.00 nats a reply"),
    ],
)
def test_each_shortcoming_is_a_reason(change, name, words):
    report = replace(GOOD, **change)
    assert failed(report) == [name]
    verdict = decide(report, SETTINGS)
    assert not verdict.promote
    assert verdict.summary.startswith("Not promoted. ")
    assert words in verdict.summary


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        ("repetition", "90 % of its three-word phrases repeat"),
        ("degenerate", "90 % of its replies are empty, bare punctuation"),
        ("identical", "90 % of its replies are the same whatever was asked"),
        ("implausible", "90 % of its replies hold something that the base model would all but never say"),
    ],
)
def test_replies_that_are_no_language_are_refused_unless_the_served_ones_are_as_bad(figure, words):
    bad = replace(GOOD, candidate=replace(REPLIES, **{figure: 0.9}))
    assert failed(bad) == [figure]
    assert words in decide(bad, SETTINGS).summary
    assert failed(replace(bad, served=replace(REPLIES, **{figure: 0.95}))) == []


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("figure", "name"),
    [
        ("taste_accuracy_low", "taste"),
        ("preference_accuracy_high", "preference_accuracy"),
        ("win_rate_served", "win_rate"),
        ("win_rate_served_error", "win_rate"),
        ("fluency_drop", "fluency_drop"),
        ("forgotten", "forgotten"),
        ("on_topic_high", "on_topic"),
        ("kl_base", "kl_base"),
    ],
)
def test_what_was_not_measured_does_not_pass(figure, name, nothing):
    report = replace(GOOD, **{figure: nothing})
    assert failed(report) == [name]
    assert "could not be measured" in decide(report, SETTINGS).summary
    assert json.dumps(decide(report, SETTINGS).to_dict(), allow_nan=False)


def test_the_topic_is_asked_of_a_candidate_as_far_as_the_served_version_keeps_to_it():
    small_talk = replace(GOOD, on_topic=0.35, on_topic_high=0.45, on_topic_served=0.5)
    assert failed(small_talk) == []
    assert failed(replace(small_talk, on_topic_served=None)) == ["on_topic"]
    assert failed(small_talk, replace_settings(min_on_topic=0.95)) == ["on_topic"]


@pytest.mark.parametrize("figure", ["implausible", "repetition", "degenerate", "identical"])
def test_unmeasured_replies_do_not_pass_and_unmeasured_served_ones_lend_nothing(figure):
    assert failed(replace(GOOD, candidate=replace(REPLIES, **{figure: None}))) == [figure]
    bad = replace(
        GOOD, candidate=replace(REPLIES, **{figure: 0.9}), served=replace(REPLIES, **{figure: float("nan")})
    )
    assert failed(bad) == [figure]


def test_the_collapse_to_dots_is_stopped_whatever_the_judge_says():
    """Shorter is better, without a term for fluency: every reply is ``..``. The judge likes all of them."""
    dots = replace(
        REPLIES, mean_tokens=2.0, fluency=-7.0, identical=1.0, distinct_2=0.0, punctuation=1.0, degenerate=1.0
    )
    report = replace(
        GOOD, candidate=dots, win_rate_served=1.0, win_rate_served_error=0.0, fluency_drop=5.8, kl_base=20.0
    )
    assert failed(report) == ["fluency_drop", "degenerate", "identical"]


def test_thresholds_are_settings():
    assert failed(GOOD, TrainingSettings(min_win_rate=0.9)) == ["win_rate"]
    assert failed(GOOD, TrainingSettings(max_kl=1.0)) == ["kl_base"]
    assert failed(GOOD, TrainingSettings(min_heldout_pairs=21)) == ["heldout_pairs"]


def test_report_and_verdict_survive_json():
    assert EvaluationReport.from_dict(json.loads(json.dumps(GOOD.to_dict()))) == GOOD
    verdict = decide(GOOD, SETTINGS)
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_what_is_not_a_number_leaves_the_report_as_null():
    report = replace(GOOD, kl_base=float("nan"), candidate=replace(REPLIES, fluency=float("inf")))
    values = report.to_dict()
    assert values["kl_base"] is None
    assert values["candidate"]["fluency"] is None
    assert not decide(EvaluationReport.from_dict(values), SETTINGS).promote


def test_a_report_of_another_release_is_refused_by_name():
    values = GOOD.to_dict()
    del values["kl_base"]
    with pytest.raises(ValueError, match=r"missing are \['kl_base'\]"):
        EvaluationReport.from_dict(values)


def test_every_figure_has_a_meaning():
    for kind in (EvaluationReport, ReplyFigures):
        assert set(meanings(kind)) == {item.name for item in fields(kind)}
        assert all(meaning.endswith(".") for meaning in meanings(kind).values())


def test_the_page_names_every_check_and_the_side_of_its_limit():
    for check in decide(GOOD, SETTINGS).checks:
        assert check.name in CHECKS
        assert check.value != check.threshold
        assert (check.value < check.threshold) == (check.name in AT_MOST), check.name
