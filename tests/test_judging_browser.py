"""Judging in a real Chromium: one click or one key each, found again after a reload, and looked through in Feedback."""

from __future__ import annotations

import pytest
from browsing import say, settled, vote
from furnished import furnish

pytestmark = pytest.mark.browser
pytest_plugins = ("browsing",)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judging") / "data"
    with furnish(folder, compare_every=3, ask_consent="always") as built:
        yield built


def said(tab, words):
    tab.wait_for_selector(f'.composer .line:has-text("{words}")')


def test_every_kind_of_judgement_by_click_and_key(visit, studio):
    tab = visit()
    say(tab, "What is a lighthouse for?")
    settled(tab, 1)

    tab.keyboard.press("Tab")
    tab.locator("#transcript").click(position={"x": 5, "y": 5})
    tab.keyboard.press("-")
    tab.click("dialog >> text=Not now")
    assert studio.ledger.counts().ratings_down == 0
    tab.click('[data-rate="down"]')
    tab.click("dialog .agree")
    tab.click('.reason:has-text("too long")')
    tab.wait_for_selector('.reason[aria-pressed="true"]')
    tab.fill(".judging .comment", "It rambles.")
    tab.press(".judging .comment", "Enter")
    said(tab, "Kept.")

    tab.click("[data-judge-more]")
    tab.click('[data-judge$="/helpful/4"]')
    tab.wait_for_selector('[data-judge$="/helpful/4"][aria-pressed="true"]')
    tab.keyboard.press("5")
    tab.wait_for_selector('[data-judge$="/helpful/5"][aria-pressed="true"]')
    tab.fill("section.judging textarea", "Not a word of rocks.")
    tab.press("section.judging textarea", "Control+Enter")
    said(tab, "Your words are kept")
    tab.click("section.judging >> text=Guidelines")
    assert "Helpful" in tab.inner_text("dialog .guidelines")
    tab.keyboard.press("Escape")
    tab.click("section.judging >> text=Close")
    summary = tab.inner_text(".judging .summary")
    for words in ("too long", "It rambles.", "helpful 5", "Not a word of rocks."):
        assert words in summary

    tab.click(".line .undo")
    said(tab, "Undone: the critique")
    tab.wait_for_function("() => !document.querySelector('.judging .summary').textContent.includes('rocks')")

    tab.click('[title="Another reply"]')
    tab.wait_for_selector("text=2 of 2")
    settled(tab, 1)
    tab.click("[data-judge-order]")
    first = tab.locator("dialog .order li").first
    moved = first.get_attribute("data-turn")
    tab.keyboard.press("2")
    assert tab.locator("dialog .order li").nth(1).get_attribute("data-turn") == moved
    tab.keyboard.press("Shift+ArrowUp")
    tab.locator("dialog .order li").nth(1).drag_to(
        tab.locator("dialog .order li").first, target_position={"x": 40, "y": 3}
    )
    assert tab.locator("dialog .order li").nth(1).get_attribute("data-turn") == moved
    tab.click("text=Keep this order")
    said(tab, "The order of 2 replies is kept")
    assert studio.ledger.rankings()[0].turn_ids[1] == moved

    say(tab, "And who lives there?")
    settled(tab, 2)
    say(tab, "Which is better?")
    vote(tab, "1")
    tab.click(".compared summary")
    tab.click(".again >> text=Right")
    said(tab, "Your choice is changed")
    tab.reload()
    settled(tab, 3)
    tab.wait_for_selector('.compared:has-text("on the right")')
    tab.wait_for_selector('.judging .summary:has-text("of 2")')

    tab.click("#feedback-button")
    tab.wait_for_selector('#feedback-browse tbody tr:has-text("better of two")')
    tab.select_option('#feedback-browse select[aria-label="Kind"]', "down")
    tab.wait_for_function("() => document.querySelectorAll('#feedback-browse tbody tr').length === 1")
    assert "It rambles." in tab.inner_text("#feedback-browse tbody")
    tab.fill("#feedback-browse input[type=search]", "xylophone")
    tab.wait_for_selector('#feedback-browse [role="status"]:has-text("0 judgements")')
    counts = studio.ledger.counts()
    assert (counts.ratings_down, counts.scores, counts.critiques, counts.rankings) == (1, 1, 0, 1)
