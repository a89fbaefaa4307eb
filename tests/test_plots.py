"""Plots and wording: pure functions of data, asserted on what they draw and say."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.plots import Curve, bars, curve_of, day_plot, line_plot, nice_ticks
from studio.wording import ago, count, lasting, number, percent, reason_of, safe, shorten


def points(drawn: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]+)"', drawn)
    assert found
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found[1].split())]


def test_a_curve_takes_the_rows_that_hold_its_number():
    rows = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": None}, {"phase": "gate"}, {"step": 3, "loss": 0.5}]
    assert curve_of(rows, "loss", "loss").points == ((1.0, 0.7), (3.0, 0.5))


def test_a_falling_curve_falls_from_left_to_right():
    drawn = points(line_plot([Curve("loss", ((1, 1.0), (2, 0.5), (3, 0.0)))], title="Loss", x_label="step"))
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert [y for _, y in drawn] == sorted(y for _, y in drawn)  # SVG's y grows downwards.


def test_a_curve_needs_two_points_and_names_itself_when_not_alone():
    assert line_plot([Curve("loss", ((1, 1.0),))], title="Loss", x_label="step") == ""
    two = [Curve("chosen", ((0, 0), (1, 1))), Curve("rejected", ((0, 0), (1, -1)))]
    drawn = line_plot(two, title="Rewards", x_label="step")
    assert drawn.count("<polyline") == 2 and drawn.count('class="key') == 2


def test_long_curves_are_thinned_and_keep_their_end():
    curve = Curve("loss", tuple((float(step), step % 7) for step in range(10_000)))
    drawn = points(line_plot([curve], title="Loss", x_label="step"))
    assert len(drawn) <= 260 and drawn[-1][0] == pytest.approx(408)


def test_days_without_judgements_are_drawn_as_gaps():
    counts = [("2026-11-18", "comparison", 3), ("2026-11-20", "rating", 2), ("2026-11-20", "comparison", 1)]
    drawn = day_plot(
        counts,
        today=date(2026, 11, 20),
        days=14,
        kinds={"comparison": "choices", "rating": "thumbs"},
        title="By day",
    )
    assert re.findall(r"<title>([^<]+)</title>", drawn) == [
        "18 Nov: 3 choices",
        "20 Nov: 1 choices",
        "20 Nov: 2 thumbs",
    ]
    assert (
        day_plot([], today=date(2026, 11, 20), days=14, kinds={"comparison": "choices"}, title="By day") == ""
    )


def test_the_longest_bar_is_whole_and_names_are_escaped():
    drawn = bars([("a <b>", 1, "1"), ("c", 4, "4")], title="By kind")
    assert re.findall(r"width:([\d.]+)%", drawn) == ["25.0", "100.0"] and "a &lt;b&gt;" in drawn
    assert bars([("a", 0, "0")], title="By kind") == ""


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_hold_the_data_between_them(low, span):
    ticks = nice_ticks(low, low + span)
    assert ticks == sorted(set(ticks)) and 2 <= len(ticks) <= 8
    slack = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack


def test_words_for_figures():
    assert (count(1, "reply", "replies"), count(1200, "reply", "replies")) == ("1 reply", "1,200 replies")
    assert (percent(0.567), percent(None), number(-1.5, 1)) == ("57 %", "–", "−1.5")
    assert [lasting(s) for s in (0.2, 20, 130, 7500)] == ["1 s", "20 s", "2 min", "2 h 5 min"]
    assert [ago(0, s) for s in (5, 300, 7200, 86_400)] == ["just now", "5 min ago", "2 h ago", "1 day ago"]
    assert shorten("one two three", 8) == "one two…" and safe("<'\">") == "&lt;&#x27;&quot;&gt;"


def test_an_error_of_the_operating_system_is_told_without_its_number():
    assert reason_of(OSError(28, "The disk is full.")) == "The disk is full."
    assert (reason_of(ValueError("Too long.")), reason_of(KeyError())) == ("Too long.", "KeyError")
