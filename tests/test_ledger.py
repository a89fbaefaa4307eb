"""The ledger: what stands after changed minds and retractions. Every test runs on SQLite and on
PostgreSQL."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory.database import Database
from memory.events import criterion_of, kind_of, ranking_target, target_of
from memory.ledger import AlreadyRecorded, Ledger, UnknownComparison, UnknownTurn
from memory.schema import (
    LABELS,
    Comparison,
    Correction,
    Critique,
    FeedbackCounts,
    Judgement,
    Label,
    LabeledComparison,
    Message,
    Occurrence,
    Ranking,
    Rating,
    Score,
    Turn,
)
from tests.postgres import Clock

pytest_plugins = ("tests.postgres",)

PROMPT = (Message("system", "Be brief."), Message("user", "How long?"))
NOTHING = FeedbackCounts(
    turns=0,
    turns_today=0,
    ratings_up=0,
    ratings_down=0,
    comparisons_decided=0,
    ties=0,
    both_bad=0,
    rankings=0,
    scores=0,
    critiques=0,
    corrections=0,
)


def turn(turn_id: str, conversation_id: str = "k", **changes: Any) -> Turn:
    made = Turn(
        id=turn_id,
        conversation_id=conversation_id,
        prompt=PROMPT,
        completion=f"Reply {turn_id}",
        policy_version="v0001",
        fingerprint="ab12cd34",
        sampling={"temperature": 0.7, "top_p": 0.95, "max_new_tokens": 64, "seed": None},
        prompt_tokens=12,
        completion_tokens=4,
        finish="stop",
        created_at=1000.0,
    )
    return replace(made, **changes)


def comparison(comparison_id: str, **changes: Any) -> Comparison:
    made = Comparison(
        id=comparison_id,
        conversation_id="k",
        prompt=PROMPT,
        turn_A="t1",
        turn_B="t2",
        completion_A="Reply t1",
        completion_B="Reply t2",
        version_A="base",
        version_B="v0001",
        shown_first="B",
        created_at=1001.0,
    )
    return replace(made, **changes)


@pytest.fixture
def ledger(database: Database) -> Ledger:
    made = Ledger(database)
    for turn_id in ("t1", "t2", "t3"):
        made.record_turn(turn(turn_id))
    made.record_turn(turn("other", "another conversation"))
    return made


def test_an_empty_ledger_says_so(database: Database) -> None:
    ledger = Ledger(database)
    assert ledger.counts() == NOTHING
    assert ledger.last_sequence() == 0
    assert ledger.judgements_since(0) == 0
    assert ledger.judgements_by_day(7) == []
    assert ledger.ratings() == ledger.comparisons() == ledger.occurrences() == []


def test_a_turn_comes_back_as_it_was(ledger: Ledger) -> None:
    hostile = turn(
        "odd",
        prompt=(Message("user", "NUL \x00 \ud83d \ufdd0 עברית <|im_end|>"),),
        completion="\x00\udfff👩‍👩‍👧",
        sampling={"temperature": 0.1 + 0.2, "seed": 2**63 - 1, "note\x00": "\ud800", "stop": ["\x00"]},
        finish="cancelled",
        created_at=1767268800.123456,
    )
    ledger.record_turn(hostile)
    assert ledger.turn("odd") == hostile


def test_a_comparison_comes_back_as_it_was(ledger: Ledger) -> None:
    ledger.record_comparison(comparison("c1"))
    assert ledger.comparison("c1") == comparison("c1")
    assert ledger.comparison_of_turn("t1") == ledger.comparison_of_turn("t2") == comparison("c1")
    assert ledger.comparison_of_turn("t3") is None


def test_recording_the_same_again_changes_nothing_and_a_forgery_is_refused(ledger: Ledger) -> None:
    ledger.record_turn(turn("t1"))
    ledger.record_comparison(comparison("c1"))
    ledger.record_comparison(comparison("c1"))
    with pytest.raises(AlreadyRecorded, match="'t1' is already recorded and differs"):
        ledger.record_turn(turn("t1", completion="something else"))
    with pytest.raises(AlreadyRecorded, match="'c1' is already recorded and differs"):
        ledger.record_comparison(comparison("c1", version_A="v0009"))
    assert ledger.turn("t1").completion == "Reply t1"
    assert ledger.counts().turns == 4


def test_a_changed_mind_replaces_and_other_raters_stay(ledger: Ledger) -> None:
    ledger.record(Rating("t1", 1, "me", 10.0))
    ledger.record(Rating("t1", 1, "you", 11.0))
    ledger.record(Rating("t1", -1, "me", 12.0, reasons=("wrong", "rude"), comment="Too \x00 hot"))
    assert ledger.ratings() == [
        Rating("t1", 1, "you", 11.0),
        Rating("t1", -1, "me", 12.0, reasons=("wrong", "rude"), comment="Too \x00 hot"),
    ]
    assert ledger.rating_of("t1", "me") == Rating("t1", -1, "me", 12.0, ("wrong", "rude"), "Too \x00 hot")
    assert ledger.rating_of("t2", "me") is None
    assert (ledger.counts().ratings_up, ledger.counts().ratings_down) == (1, 1)


def test_within_one_tick_and_against_the_clock_the_later_event_counts(ledger: Ledger) -> None:
    ledger.record(Rating("t1", 1, "me", 10.0))
    ledger.record(Rating("t1", -1, "me", 10.0))
    assert ledger.ratings() == [Rating("t1", -1, "me", 10.0)]
    ledger.record(Rating("t1", 1, "me", 9.0))  # a clock that was set back
    assert ledger.ratings() == [Rating("t1", 1, "me", 9.0)]


def test_a_retraction_hides_and_a_later_judgement_counts_again(ledger: Ledger) -> None:
    ledger.record(Rating("t1", 1, "me", 10.0))
    ledger.retract("rating", "t1", "me")
    assert ledger.ratings() == []
    assert ledger.rating_of("t1", "me") is None
    assert ledger.counts() == replace(NOTHING, turns=4)
    assert ledger.judgements_since(0) == 0
    assert ledger.judgements_of("k", "me") == []
    ledger.retract("rating", "t1", "me")
    assert ledger.last_sequence() == 2  # there was nothing left to take back
    ledger.record(Rating("t1", -1, "me", 30.0))
    assert ledger.ratings() == [Rating("t1", -1, "me", 30.0)]
    assert ledger.last_sequence() == 3


def test_a_retraction_reaches_only_its_own_key(ledger: Ledger) -> None:
    ledger.record(Rating("t1", 1, "me", 10.0))
    ledger.record(Rating("t1", 1, "you", 11.0))
    ledger.record(Rating("t2", 1, "me", 12.0))
    ledger.record(Critique("t1", "Too hot.", "me", 13.0))
    before = ledger.last_sequence()
    ledger.retract("rating", "t1", "nobody")
    assert ledger.last_sequence() == before
    ledger.retract("rating", "t1", "me")
    assert ledger.ratings() == [Rating("t1", 1, "you", 11.0), Rating("t2", 1, "me", 12.0)]
    assert ledger.critiques() == [Critique("t1", "Too hot.", "me", 13.0)]
    with pytest.raises(ValueError, match="'retry'; expected one of rating, comparison"):
        ledger.retract("retry", "t1", "me")


def test_scores_stand_per_criterion_and_are_retracted_together(ledger: Ledger) -> None:
    ledger.record(Score("t1", "helpful", 4, "me", 10.0))
    ledger.record(Score("t1", "honest", 5, "me", 11.0))
    ledger.record(Score("t1", "helpful", 2, "me", 12.0))
    assert ledger.scores() == [Score("t1", "honest", 5, "me", 11.0), Score("t1", "helpful", 2, "me", 12.0)]
    assert ledger.counts().scores == 2
    ledger.retract("score", "t1", "me")
    assert ledger.scores() == []


def test_every_label_is_kept_and_counted_apart(ledger: Ledger) -> None:
    labels: list[Label] = ["A", "B", "B", "tie", "both_bad"]
    for number, label in enumerate(labels):
        ledger.record_comparison(comparison(f"c{number}"))
        ledger.record(
            LabeledComparison(comparison(f"c{number}"), label, "me", 2.5, 10.0 + number, early=True)
        )
    counts = ledger.counts()
    assert (counts.comparisons_decided, counts.ties, counts.both_bad) == (3, 1, 1)
    assert ledger.comparisons() == [
        LabeledComparison(comparison(f"c{number}"), label, "me", 2.5, 10.0 + number, early=True)
        for number, label in enumerate(labels)
    ]
    assert ledger.label_of("c3", "me") == ledger.comparisons()[3]
    assert ledger.label_of("c3", "you") is None


def test_an_answer_brings_its_question_along(ledger: Ledger) -> None:
    answer = LabeledComparison(comparison("c1"), "A", "me", 1.0, 10.0)
    ledger.record(answer)
    assert ledger.comparison("c1") == comparison("c1")
    assert ledger.comparisons() == [answer]


def test_an_answer_with_swapped_letters_prefers_the_same_reply(ledger: Ledger) -> None:
    ledger.record_comparison(comparison("c1"))
    ledger.record(LabeledComparison(comparison("c1"), "A", "me", 1.0, 10.0).swap())
    assert ledger.comparisons() == [LabeledComparison(comparison("c1"), "A", "me", 1.0, 10.0)]
    assert ledger.comparisons()[0].chosen == "Reply t1"
    with pytest.raises(AlreadyRecorded, match="differs from the recorded one"):
        ledger.record(LabeledComparison(comparison("c1", completion_A="forged"), "A", "me", 1.0, 11.0))


def test_rankings_of_the_same_replies_replace_each_other(ledger: Ledger) -> None:
    ledger.record(Ranking(("t1", "t2", "t3"), "me", 10.0))
    ledger.record(Ranking(("t3", "t1", "t2"), "me", 11.0))
    ledger.record(Ranking(("t1", "t2"), "me", 12.0))
    assert ledger.rankings() == [
        Ranking(("t3", "t1", "t2"), "me", 11.0),
        Ranking(("t1", "t2"), "me", 12.0),
    ]
    ledger.retract("ranking", ranking_target(("t2", "t3", "t1")), "me")
    assert ledger.rankings() == [Ranking(("t1", "t2"), "me", 12.0)]


def test_replies_to_different_prompts_cannot_be_ranked(ledger: Ledger) -> None:
    ledger.record_turn(turn("elsewhere", prompt=(Message("user", "How hot?"),)))
    with pytest.raises(ValueError, match="only replies to the same prompt"):
        ledger.record(Ranking(("t1", "elsewhere"), "me", 10.0))
    assert ledger.rankings() == []


def test_what_was_never_recorded_cannot_be_judged_or_found(ledger: Ledger) -> None:
    judgements: list[Judgement] = [
        Rating("nope", 1, "me", 1.0),
        Score("nope", "clear", 3, "me", 1.0),
        Critique("nope", "x", "me", 1.0),
        Correction("nope", "x", "me", 1.0),
        Ranking(("t1", "nope"), "me", 1.0),
    ]
    for judgement in judgements:
        with pytest.raises(UnknownTurn, match="no turn 'nope'"):
            ledger.record(judgement)
    assert ledger.last_sequence() == 0
    with pytest.raises(UnknownTurn):
        ledger.turn("nope")
    with pytest.raises(UnknownComparison, match="no comparison 'nope'"):
        ledger.comparison("nope")


def test_the_judgements_of_a_conversation_are_one_raters_own(ledger: Ledger) -> None:
    mine: list[Judgement] = [
        Rating("t1", 1, "me", 10.0),
        LabeledComparison(comparison("c1"), "tie", "me", 1.0, 11.0),
        Ranking(("t1", "t2"), "me", 12.0),
        Score("t1", "clear", 5, "me", 13.0),
        Critique("t1", "Too hot.", "me", 14.0),
        Correction("t1", "A better \x00 reply", "me", 15.0),
    ]
    for judgement in reversed(mine):
        ledger.record(judgement)
    ledger.record(Rating("other", 1, "me", 16.0))
    ledger.record(Rating("t1", -1, "you", 17.0))
    assert ledger.judgements_of("k", "me") == mine
    assert ledger.judgements_of("another conversation", "me") == [Rating("other", 1, "me", 16.0)]
    assert ledger.corrections() == [Correction("t1", "A better \x00 reply", "me", 15.0)]


def test_what_a_person_did_is_never_a_judgement(ledger: Ledger) -> None:
    for number, kind in enumerate(("retry", "stop", "error", "disconnect", "retry", "rating")):
        ledger.note(Occurrence(kind, "t1", "me", float(number), {"why": "\x00"}))
    assert ledger.counts() == replace(NOTHING, turns=4)
    assert ledger.judgements_since(0) == 0
    assert ledger.ratings() == ledger.judgements_of("k", "me") == []
    assert [occurrence.created_at for occurrence in ledger.occurrences("retry")] == [4.0, 0.0]
    assert ledger.occurrences(limit=1) == [Occurrence("rating", "t1", "me", 5.0, {"why": "\x00"})]


def test_new_since_counts_standing_judgements_once(ledger: Ledger) -> None:
    ledger.record(Rating("t1", 1, "me", 10.0))
    seen = ledger.last_sequence()
    assert ledger.judgements_since(seen) == 0
    ledger.note(Occurrence("stop", "t1", "me", 11.0))
    assert ledger.judgements_since(seen) == 0
    ledger.record(Rating("t2", 1, "me", 12.0))
    ledger.record(Rating("t2", -1, "me", 13.0))
    ledger.record(Rating("t3", -1, "me", 14.0))
    assert ledger.judgements_since(seen) == 2
    ledger.retract("rating", "t3", "me")
    assert ledger.judgements_since(seen) == 1
    ledger.record(Rating("t1", -1, "me", 15.0))
    assert ledger.judgements_since(seen) == 2
    assert ledger.last_sequence() == seen + 6


def test_days_are_utc_days(ledger: Ledger, clock: Clock) -> None:
    day = 86_400.0
    midnight = clock.now - clock.now % day
    for target, at in (("t1", midnight), ("t2", midnight - 0.001), ("t3", midnight - 2 * day)):
        ledger.record(Rating(target, 1, "me", at))
    ledger.record(Score("t1", "clear", 3, "me", midnight + day - 0.001))
    assert ledger.judgements_by_day(1) == [("2026-01-01", "rating", 1), ("2026-01-01", "score", 1)]
    assert ledger.judgements_by_day(2) == [("2025-12-31", "rating", 1), *ledger.judgements_by_day(1)]
    assert ledger.judgements_by_day(30) == [("2025-12-30", "rating", 1), *ledger.judgements_by_day(2)]


def test_turns_of_today_begin_at_midnight_utc(ledger: Ledger, clock: Clock) -> None:
    midnight = clock.now - clock.now % 86_400
    ledger.record_turn(turn("today", created_at=midnight))
    ledger.record_turn(turn("yesterday", created_at=midnight - 0.001))
    assert (ledger.counts().turns, ledger.counts().turns_today) == (6, 1)


raters = st.sampled_from(["me", "you"])
targets = st.sampled_from(["t1", "t2", "t3"])
ticks = st.sampled_from([1.0, 2.0])
steps = st.lists(
    st.one_of(
        st.builds(Rating, turn_id=targets, value=st.sampled_from([1, -1]), rater=raters, created_at=ticks),
        st.builds(
            Score,
            turn_id=targets,
            criterion=st.sampled_from(["clear", "honest"]),
            value=st.integers(1, 5),
            rater=raters,
            created_at=ticks,
        ),
        st.builds(Ranking, turn_ids=st.permutations(["t1", "t2"]).map(tuple), rater=raters, created_at=ticks),
        st.builds(
            LabeledComparison,
            comparison=st.sampled_from([comparison("c1"), comparison("c2"), comparison("c2").swap()]),
            label=st.sampled_from(LABELS),
            rater=raters,
            seconds=st.just(1.0),
            created_at=ticks,
        ),
        st.builds(Critique, turn_id=targets, text=st.text(max_size=5), rater=raters, created_at=ticks),
        st.builds(Correction, turn_id=targets, text=st.text(max_size=5), rater=raters, created_at=ticks),
        st.tuples(
            st.sampled_from(["rating", "score", "comparison", "critique", "correction"]),
            st.one_of(targets, st.sampled_from(["c1", "c2"])),
            raters,
        ),
    ),
    max_size=25,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(history=steps)
def test_any_history_reads_like_a_slow_replay(ledger: Ledger, history: list[Any]) -> None:
    """The standing judgements are those of a dictionary that is filled and emptied event by event."""
    run = f"run{next(RUNS)}"
    for question in ("c1", "c2"):
        ledger.record_comparison(comparison(question))
    standing: dict[tuple[str, str, str, str], tuple[int, Judgement]] = {}
    for number, step in enumerate(history):
        if isinstance(step, tuple):
            kind, target, rater = step
            ledger.retract(kind, target, f"{rater} {run}")
            gone = [key for key in standing if (key[0], key[1], key[3]) == (kind, target, f"{rater} {run}")]
            for key in gone:
                del standing[key]
        else:
            said = replace(step, rater=f"{step.rater} {run}")
            ledger.record(said)
            key = (kind_of(said), target_of(said), criterion_of(said), said.rater)
            if isinstance(said, LabeledComparison) and said.comparison.turn_A == "t2":
                said = said.swap()  # kept in the letters of the question as it was first recorded
            standing[key] = (number, said)
    expected = [
        said for _, said in sorted(standing.values(), key=lambda entry: (entry[1].created_at, entry[0]))
    ]
    for kind, found in (
        ("rating", ledger.ratings()),
        ("score", ledger.scores()),
        ("ranking", ledger.rankings()),
        ("comparison", ledger.comparisons()),
        ("critique", ledger.critiques()),
        ("correction", ledger.corrections()),
    ):
        assert [said for said in found if said.rater.endswith(f" {run}")] == [
            said for said in expected if kind_of(said) == kind
        ]


RUNS = itertools.count()
