"""Looking through the judgements: what each filter finds, pages that stay, sums; on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from memory.database import Database
from memory.feedback_search import FeedbackSearch, Filter, RaterRow, day_number
from memory.ledger import Ledger
from memory.schema import (
    Comparison,
    Correction,
    Critique,
    LabeledComparison,
    Message,
    Ranking,
    Rating,
    Score,
    Turn,
)

pytest_plugins = ("tests.postgres",)

PROMPT = (Message("user", "Why?"),)
DAY = 86_400.0


def turn(name: str, completion: str, version: str) -> Turn:
    return Turn(name, "k", PROMPT, completion, version, "ab12cd34", {}, 1, 1, "stop", 1.0)


@pytest.fixture
def search(database: Database) -> FeedbackSearch:
    """Eight judgements, numbered 1 to 9 (8 is taken back by 9)."""
    ledger = Ledger(database)
    ledger.record_turn(turn("t1", "A Lighthouse warns ships.", "v0001"))
    ledger.record_turn(turn("t2", "100% of eggs_are boiled.", "base"))
    asked = Comparison(
        "c", "k", PROMPT, "t1", "t2", "A Lighthouse warns ships.", "100% of eggs_are boiled.", "v0001", "base", "A", 1.0
    )  # fmt: skip
    said: list[Any] = [
        Rating("t1", 1, "me", 1.0),
        Rating("t2", -1, "me", 2.0, comment="Äußerst knapp."),
        Score("t1", "clear", 4, "me", DAY),
        LabeledComparison(asked, "B", "you", 1.0, DAY + 1),
        Ranking(("t2", "t1"), "you", DAY + 2),
        Critique("t2", "It never names the sea.", "you", DAY + 3),
        Correction("t2", "Ten minutes.", "me", 2 * DAY),
        Rating("t1", -1, "you", 2 * DAY),
    ]
    for judgement in said:
        ledger.record(judgement, guidelines="g-1")
    ledger.retract("rating", "t1", "you")
    return FeedbackSearch(database)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), [7, 6, 5, 4, 3, 2, 1]),
        (Filter(kind="rating"), [2, 1]),
        (Filter(kind="rating", value="-1"), [2]),
        (Filter(version="v0001"), [5, 4, 3, 1]),
        (Filter(version="v000"), []),
        (Filter(rater="you"), [6, 5, 4]),
        (Filter(day=1), [6, 5, 4, 3]),
        (Filter(rater="me", day=0, kind="rating"), [2, 1]),
        (Filter(text="lighthouse"), [4, 3, 1]),
        (Filter(text="LIGHTHOUSE", rater="me"), [3, 1]),
        (Filter(text="never names"), [6]),
        (Filter(text="knapp"), [2]),
        (Filter(text="100%"), [7, 6, 4, 2]),
        (Filter(text="eggs_are"), [7, 6, 4, 2]),
        (Filter(text="s%a"), []),
        (Filter(text="xylophone"), []),
        (Filter(text="'; DROP TABLE events; --"), []),
    ],
)
def test_what_a_filter_finds(search: FeedbackSearch, wanted: Filter, found: list[int]) -> None:
    page = search.page(wanted)
    assert [said.sequence for said in page.rows] == found
    assert (page.total, page.more) == (len(found), False)


def test_pages_go_on_where_the_one_before_ended(search: FeedbackSearch, database: Database) -> None:
    first = search.page(Filter(), size=3)
    assert ([said.sequence for said in first.rows], first.more, first.total) == ([7, 6, 5], True, 7)
    Ledger(database).record(Rating("t2", 1, "new", 3 * DAY))
    second = search.page(Filter(before=5), size=3)
    assert ([said.sequence for said in second.rows], second.more, second.total) == ([4, 3, 2], True, None)
    assert [said.sequence for said in search.page(Filter(before=2), size=3).rows] == [1]


def test_a_row_tells_what_was_said_of_what(search: FeedbackSearch) -> None:
    rows = {said.sequence: said for said in search.page(Filter()).rows}
    assert (rows[4].reply, rows[4].other) == ("100% of eggs_are boiled.", "A Lighthouse warns ships.")
    assert rows[4].versions == ("base", "v0001")
    assert rows[5].reply == "100% of eggs_are boiled."
    assert (rows[3].criterion, rows[3].value, rows[3].guidelines) == ("clear", "4", "g-1")
    assert rows[2].payload["comment"] == "Äußerst knapp."


def test_sums_by_version_and_by_rater(search: FeedbackSearch) -> None:
    summary = search.summary()
    assert summary.raters == 2
    assert summary.by_version["v0001"] == {
        ("rating", "1"): 1,
        ("score", "4"): 1,
        ("comparison", "B"): 1,
        ("ranking", ""): 1,
    }
    assert search.raters() == [RaterRow("me", 4, 0, 0, 1, 1), RaterRow("you", 3, 1, 0, 0, 0)]
    assert [row.rater for row in search.raters(limit=1)] == ["me"]
    assert (search.count_by("me"), search.count_by("nobody")) == (4, 0)


def test_what_is_no_day_is_none() -> None:
    assert (day_number("1970-01-03"), day_number("yesterday"), day_number("")) == (2, None, None)
