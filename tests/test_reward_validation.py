"""What a reward model is worth: length, thumbs, strange prompts, damaged copies, and the drawing of its calibration."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import pytest
from judged import quick_settings

from training.preference_losses import CalibrationBin
from training.reliability_plot import reliability_svg
from training.reward_robustness import DAMAGES, damaged_copies, strangeness
from training.reward_validation import RewardReport, Scored, problem_with, validate


def test_length_alone_is_worth_a_half():
    """Preferred and longer in 3 of 4 pairs, so "longer is better" is right in 75 %: in all of the first three and
    none of the fourth, (1 + 0) / 2."""
    scored = [Scored((9.0, 5.0), (9, 5))] * 3 + [Scored((5.0, 9.0), (5, 9))]
    report = validate(scored)
    assert report.accuracy == report.length_accuracy == 0.75
    assert report.length_controlled_accuracy == 0.5


def test_length_control_needs_both_kinds_of_pairs():
    assert validate([Scored((1.0, 0.0), (9, 5))]).length_controlled_accuracy is None
    assert validate([Scored((1.0, 0.0), (5, 5))]).length_controlled_accuracy is None


def test_thumbs_are_told_apart_by_rank_and_are_no_pairs():
    """Up at 3 and 1, down at 2 and 0: up is higher in (3,2), (3,0), (1,0), not in (1,2): 3 of 4. Hanley and McNeil:
    q1 = 0.75 / 1.25 = 0.6, q2 = 2 * 0.5625 / 1.75 = 0.642857, variance = (0.1875 + 0.0375 + 0.080357) / 4 = 0.076339,
    half the interval 1.96 * 0.276295 = 0.541538."""
    ups = [Scored((reward,), (4,), liked=True) for reward in (3.0, 1.0)]
    downs = [Scored((reward,), (4,), liked=False) for reward in (2.0, 0.0)]
    report = validate([*ups, *downs])
    assert (report.thumbs, report.pairs, report.accuracy) == (4, 0, None)
    assert report.thumb_accuracy == 0.75
    assert report.thumb_accuracy_low == pytest.approx(0.75 - 0.541538, abs=1e-5)
    assert report.thumb_accuracy_high == 1.0
    assert validate(ups).thumb_accuracy is None


def test_where_nobody_compared_the_bar_is_for_thumbs():
    settings = quick_settings(min_reward_accuracy=0.7)
    good = [Scored((1.0 + n,), (4,), liked=True) for n in range(9)]
    good += [Scored((-1.0 - n,), (4,), liked=False) for n in range(9)]
    assert problem_with(validate(good), settings) == ""
    assert "could not be examined" in problem_with(validate(good[:9]), settings)
    coin = [Scored((float(n % 2),), (4,), liked=n < 4) for n in range(8)]
    assert "not surely better than a coin" in problem_with(validate(coin), settings)
    wrong = [Scored((0.0, 1.0), (4, 4))] * 9
    assert "held-out comparisons" in problem_with(validate([*good, *wrong]), settings)


def test_equal_rewards_of_thumbs_count_half():
    scored = [Scored((1.0,), (4,), liked=True), Scored((1.0,), (4,), liked=False)]
    assert validate(scored).thumb_accuracy == 0.5


def test_the_strangest_half_is_looked_at_alone():
    familiar = [Scored((1.0, 0.0), (4, 4), strangeness=0.1)] * 2
    strange = [Scored((0.0, 1.0), (4, 4), strangeness=0.9), Scored((1.0, 0.0), (4, 4), strangeness=0.8)]
    report = validate([*familiar, *strange])
    assert (report.accuracy, report.strange_accuracy) == (0.75, 0.5)
    assert validate(familiar).strange_accuracy is None


def test_a_report_comes_back_from_json_and_an_older_one_too():
    report = validate([Scored((2.0, 0.0), (9, 5)), Scored((0.0, 1.0), (5, 9))], edited={"cut": 0.5})
    values = report.to_dict()
    assert RewardReport.from_dict(values) == report
    for newer in ("reliability", "edited", "thumbs", "thumb_accuracy", "strange_accuracy"):
        del values[newer]
    assert RewardReport.from_dict(values).accuracy == report.accuracy


def test_damaged_copies_keep_the_end_of_the_turn():
    end = 9
    prompts, replies = [(1, 2), (3, 4)], [(5, 6, 7, 8, end), (8, 8, 6, 5, end)]
    found = damaged_copies(prompts, replies, ends={end}, rng=random.Random(0))
    first = {item.damage: item.copy for item in found if item.prompt == (1, 2)}
    assert set(first) == set(DAMAGES)
    assert sorted(first["shuffled"]) == sorted(replies[0])
    assert first["shuffled"] != replies[0]
    assert first["shuffled"][-1] == end
    assert first["cut"] == (5, 6, end)
    assert first["doubled"] == (5, 6, 7, 8, 5, 6, 7, 8, end)
    assert first["off_topic"] == replies[1]


def test_short_replies_are_not_damaged_and_nothing_is_elsewhere_with_one_prompt():
    assert damaged_copies([(1,)], [(5, 6, 9)], ends={9}, rng=random.Random(0)) == []
    found = damaged_copies([(1,), (1,)], [(5, 6, 7, 8), (8, 7, 6, 5)], ends={9}, rng=random.Random(0))
    assert "off_topic" not in {item.damage for item in found}


def test_strangeness_is_the_share_of_unseen_neighbours():
    """Of (1, 2), (2, 3), (3, 1) the first two occur in what is known."""
    assert strangeness([(1, 2, 3, 1), (1,)], [(0, 1, 2, 3)]) == pytest.approx([1 / 3, 0.0])


def test_the_reliability_diagram_is_drawn_to_scale():
    """Sure 0.75 is in the middle of an axis from 0.5 to 1; a right share of 1 is at the top, one below a half at the
    bottom."""
    drawing = reliability_svg([CalibrationBin(0.75, 1.0, 30), CalibrationBin(0.55, 0.4, 10)])
    circles = ElementTree.fromstring(drawing).findall("{*}circle")
    assert [(circle.get("cx"), circle.get("cy")) for circle in circles] == [
        ("186.0", "34.0"),
        ("82.0", "294.0"),
    ]
    assert float(circles[0].get("r") or 0) > float(circles[1].get("r") or 0)
    assert reliability_svg([]) == ""
