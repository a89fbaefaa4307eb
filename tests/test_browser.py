"""A person's afternoon in a real Chromium: talk, rate, choose, retrain, see the version change, go back,
reload.

Everything is real but the model and its trainer, which are the scripted ones. Fails on any error in the
browser's console and on any request that leaves the studio's own address.
"""

from __future__ import annotations

import pytest
from browsing import say, settled, vote
from furnished import furnish

pytestmark = pytest.mark.browser
pytest_plugins = ("browsing",)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with furnish(
        tmp_path_factory.mktemp("browser") / "data",
        delay=0.01,
        compare_every=3,
        min_comparisons=4,
        heldout_share=0.5,
    ) as built:
        yield built


def test_the_whole_loop(visit, studio):
    tab = visit()
    tab.wait_for_selector("#served-version >> text=base model")
    say(tab, "What is a lighthouse for?")
    settled(tab, 1)
    tab.click('[data-rate="up"]')
    tab.wait_for_selector('[data-rate="up"][aria-pressed="true"]')
    say(tab, "And who lives there?")
    settled(tab, 2)
    say(tab, "Which one is better?")
    vote(tab, "2")
    assert "on the right" in tab.inner_text(".compared")

    tab.reload()
    settled(tab, 3)
    assert tab.locator('[data-rate="up"][aria-pressed="true"]').count() == 1
    assert tab.locator(".compared").count() == 1

    tab.click("#training-button")
    assert tab.wait_for_selector('[data-event="retrain"]').is_disabled()
    tab.click("#chat-button")
    for number in range(60):
        tab.click(".side .new")
        for times, text in enumerate((f"Question {number}", "More, please"), start=1):
            say(tab, text)
            settled(tab, times)
        say(tab, "And now?")
        vote(tab, "12"[number % 2])
        if studio.retraining.readiness().ready:
            break

    tab.click("#training-button")
    tab.click('[data-event="retrain"]:not([disabled])')
    tab.wait_for_selector('.station[data-station="train"][data-state="running"]')
    tab.click("#chat-button")
    tab.click(".side .new")
    say(tab, "Are you still there while you learn?")
    settled(tab, 1)
    tab.wait_for_selector("#served-version >> text=v0001", timeout=40_000)
    tab.wait_for_selector('.station[data-station="check"] >> text=passed')
    tab.click("#training-button")
    tab.wait_for_selector("text=v0001 passed the check.")
    assert tab.locator(".plot .curve").count() == 2

    tab.click("#versions-button")
    tab.wait_for_selector("text=/Your \\d+ ratings are in this version/")
    tab.click('.version[data-version="base"] [data-event="roll_back"]')
    tab.fill("dialog input", "To see the old one again")
    tab.click("dialog [type=submit]")
    tab.wait_for_selector("#served-version >> text=base model")
    tab.wait_for_selector("text=To see the old one again")


def test_an_early_vote_reveals_and_goes_on(visit):
    tab = visit()
    for number in range(2):
        say(tab, f"Number {number}")
        settled(tab, number + 1)
    say(tab, "A long question " + "and a bit more " * 12)
    tab.wait_for_selector("#pair")
    tab.click('#pair [data-choice="left"]')
    tab.wait_for_selector(".compared >> text=You chose this one, on the left.")
    assert tab.locator("#pair").count() == 0
    assert tab.locator(".compared").count() == 1
    assert tab.inner_text(".compared").count("You chose this one") == 1


def test_hostile_and_foreign_text_is_only_text(visit):
    tab = visit()
    said = '<img src=x onerror="alert(1)"><script>alert(2)</script> <|im_end|> **bold** [x](javascript:alert(3)) مرحبا'
    say(tab, said)
    settled(tab, 1)
    assert tab.inner_text(".entry.said .words") == said
    assert tab.locator("#transcript :is(img, script, a)").count() == 0
    say(tab, "w" * 2_000)
    settled(tab, 2)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_refused_message_goes_back_to_the_composer(visit):
    tab = visit()
    say(tab, "x" * 20_001)
    tab.wait_for_selector(".line.bad >> text=20,001 characters")
    assert len(tab.input_value("#composer")) == 20_001


def test_two_tabs_and_two_visitors(visit, address):
    tab, other = visit(), visit()
    say(tab, "Mine alone")
    settled(tab, 1)
    second = tab.context.new_page()
    second.goto(address)
    settled(second, 1)
    assert second.locator(".conversations .name").all_inner_texts() == ["Mine alone"]
    assert "Mine alone" not in other.inner_text(".conversations")
    say(tab, "Said in the first tab")
    settled(tab, 2)
    second.bring_to_front()
    settled(second, 2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(visit, scheme):
    tab = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    for name in ("feedback", "training", "versions", "chat"):
        tab.click(f"#{name}-button")
        tab.wait_for_selector(f"#{name}-button[aria-selected=true]")
        tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    box = tab.locator("#composer").bounding_box()
    assert box and box["y"] + box["height"] <= 844
    tab.click('[aria-label="Your conversations"].tool')
    tab.wait_for_selector(".side .new:visible")
