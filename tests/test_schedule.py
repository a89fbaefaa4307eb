"""When a retraining begins by itself: by number, by time, never in the quiet hours, and never without anything new."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from furnished import furnish, judge
from pydantic import ValidationError

from memory.votes import judged_since
from studio import training_tab
from studio.scheduler import Scheduler
from studio.settings import StudioSettings
from training.schedule import Plan, due


def at(text: str) -> float:
    """Unix seconds of a time in UTC on a day of November 2026; the 22nd is a Sunday."""
    return datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=UTC).timestamp()


def ask(plan: Plan, *, judged: int, last: str = "20 12:00", now: str = "20 13:00"):
    found = due(plan, judged=judged, last=at(last), now=at(now), zone=UTC)
    return found.now, found.sentence


@pytest.mark.parametrize(
    ("plan", "judged", "now", "expected"),
    [
        (Plan(), 99, "20 13:00", (False, "Retraining begins when somebody asks for it.")),
        (Plan(after=40), 3, "20 13:00", (False, "Retrains by itself after 37 more judgements.")),
        (Plan(after=40), 39, "20 13:00", (False, "Retrains by itself after 1 more judgement.")),
        (Plan(after=40), 40, "20 13:00", (True, "A retraining is due and begins now.")),
        (Plan(hours=2), 1, "20 13:00", (False, "Retrains by itself on Friday, 20 November at 14:00.")),
        (Plan(hours=2), 1, "20 14:00", (True, "A retraining is due and begins now.")),
        (Plan(hours=2), 0, "20 15:00", (False, "Retrains by itself with the next judgement.")),
        (
            Plan(cron="0 3 * * 0"),
            1,
            "22 02:59",
            (False, "Retrains by itself on Sunday, 22 November at 03:00."),
        ),
        (Plan(cron="0 3 * * 0"), 1, "22 03:00", (True, "A retraining is due and begins now.")),
        (Plan(cron="0 3 * * 0"), 1, "25 03:00", (True, "A retraining is due and begins now.")),
        (
            Plan(after=40, cron="0 3 * * 0"),
            3,
            "20 13:00",
            (False, "Retrains by itself after 37 more judgements or on Sunday, 22 November at 03:00."),
        ),
        (
            Plan(after=1, quiet="22:00-07:00"),
            1,
            "20 23:30",
            (False, "A retraining is due and begins at 07:00, after the quiet hours."),
        ),
        (
            Plan(after=1, quiet="22:00-07:00"),
            1,
            "21 06:59",
            (False, "A retraining is due and begins at 07:00, after the quiet hours."),
        ),
        (Plan(after=1, quiet="22:00-07:00"), 1, "21 07:00", (True, "A retraining is due and begins now.")),
        (Plan(after=1, quiet="12:00-13:00"), 1, "20 13:00", (True, "A retraining is due and begins now.")),
    ],
)
def test_what_the_plan_says(plan, judged, now, expected):
    assert ask(plan, judged=judged, now=now) == expected


def test_plans_that_cannot_be_read_are_refused_with_an_example():
    with pytest.raises(ValidationError, match=r"cron expression is 'sundays'.*0 3 \* \* 0"):
        StudioSettings(retrain_cron="sundays")
    with pytest.raises(ValidationError, match=r"quiet hours are 'night'.*22:00-07:00"):
        StudioSettings(quiet_hours="night")


@pytest.fixture
def studio(tmp_path):
    with furnish(tmp_path / "data", compare_every=1, retrain_after=40, min_heldout_pairs=2) as opened:
        # The studio's own begins real trainings; this one stands still until it is told to look.
        opened.scheduler.stop()
        yield replace(opened, scheduler=scheduler(opened, opened.settings.retraining_plan))


def scheduler(studio, plan: Plan) -> Scheduler:
    return Scheduler(plan, studio.retraining, studio.runs, studio.database)


def test_a_retraining_begins_by_itself_once_and_again_only_for_new_judgements(studio):
    judge(studio, "ann", times=39)
    assert "after 1 more judgement" in training_tab.render(studio, "ann", 0.0)
    assert not studio.scheduler.look()
    judge(studio, "ben", times=1)
    assert studio.scheduler.look()
    run = studio.runs.list()[0]
    assert run.requested_by == "schedule" and not studio.scheduler.look()
    assert studio.retraining.wait(run.id, timeout=60)
    assert studio.runs.get(run.id).state == "published" and not studio.scheduler.look()
    assert studio.scheduler.standing().sentence == "Retrains by itself after 40 more judgements."


def test_ties_and_what_was_taken_back_are_not_counted_and_too_little_does_not_begin(studio):
    judge(studio, "ann", times=3)
    given = studio.ledger.comparisons()
    studio.ledger.retract("comparison", given[0].comparison.id, given[0].rater)
    assert judged_since(studio.database, 0.0) == 2
    assert judged_since(studio.database, studio.database.clock() + 1) == 0
    eager = scheduler(studio, Plan(after=1))
    assert eager.standing().now and not studio.retraining.readiness().ready
    assert not eager.look() and studio.runs.list() == []
