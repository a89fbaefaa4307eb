"""Memory in a real Chromium: the bar and the exact prompt, a tree of replies, search, pins, branches, facts, links,
export and import.
"""

from __future__ import annotations

import json
import re

import pytest
from browsing import say, settled
from furnished import furnish, reply

from memory.schema import Message
from studio.policy.scripted import ScriptedPolicy

pytestmark = pytest.mark.browser
pytest_plugins = ("browsing",)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "data"
    with furnish(
        folder,
        compare_every=0,
        remember="summary+recall",
        remember_facts=True,
        share_links=True,
        policy=ScriptedPolicy(delay=0.0, script=reply, context=240, max_tokens=40),
        max_new_tokens=40,
        system_prompt="Be kind.",
    ) as built:
        yield built


def open_details(tab):
    tab.click(".context .gauge")
    tab.wait_for_selector(".memory-dialog")
    return tab.locator(".memory-dialog")


def test_the_bar_shows_what_is_seen_and_the_panel_the_exact_prompt(visit, studio):
    tab = visit()
    tab.wait_for_selector(".context .gauge")
    say(tab, "My parrot is called Ludo.")
    settled(tab, 1)
    tab.wait_for_function("() => /\\d+ of 200 tokens/.test(document.querySelector('.figures').textContent)")
    panel = open_details(tab)
    shown = panel.locator(".prompt pre").all_inner_texts()
    assert shown[0].startswith("Be kind.") and "My parrot is called Ludo." in shown[1] and shown[-1] == "…"
    tab.select_option("#memory-way", "last_turns:4")
    tab.wait_for_function("() => document.querySelector('#memory-way')?.value === 'last_turns:4'")
    tab.keyboard.press("Escape")
    for number in range(8):
        say(tab, f"On day {number} the weather was mild and there was nothing else worth telling.")
        settled(tab, number + 2)
    tab.wait_for_selector(".context .leaving:not([hidden])")
    assert "no longer sees the first" in tab.inner_text(".leaving")
    where = tab.evaluate("localStorage.getItem('thumbprint.conversation')")
    assert studio.conversations.get(where).memory == "last_turns:4"
    panel = open_details(tab)
    tab.select_option("#memory-way", "summary+recall")
    tab.wait_for_function("() => document.querySelector('#memory-way')?.value === 'summary+recall'")
    tab.keyboard.press("Escape")
    say(tab, "What is my parrot called?")
    settled(tab, 10)
    turn = studio.ledger.turn(studio.conversations.path(where)[-1].turn_id)
    assert "Ludo" in turn.prompt[0].content


def test_a_tree_is_walked_reloaded_and_branched_off(visit, studio):
    tab = visit()
    say(tab, "First question of the tree")
    settled(tab, 1)
    tab.click('.entry.reply:last-of-type [aria-label="Another reply"]')
    tab.wait_for_function("() => document.querySelector('.reply .branches')?.textContent.includes('2 of 2')")
    second = tab.inner_text(".entry.reply .words")
    tab.click('.reply [aria-label="The one before"]')
    tab.wait_for_function("() => document.querySelector('.reply .branches')?.textContent.includes('1 of 2')")
    first = tab.inner_text(".entry.reply .words")
    assert first != second
    tab.reload()
    tab.wait_for_selector(".reply .branches")
    assert tab.inner_text(".entry.reply .words") == first
    say(tab, "Second question of the tree")
    settled(tab, 2)
    before = tab.evaluate("localStorage.getItem('thumbprint.conversation')")
    tab.hover(".entry.reply")
    tab.click(".entry.reply [data-branch]")
    tab.wait_for_function("was => localStorage.getItem('thumbprint.conversation') !== was", arg=before)
    settled(tab, 1)
    made = tab.evaluate("localStorage.getItem('thumbprint.conversation')")
    assert studio.conversations.path(made)[0].message.content == "First question of the tree"
    assert studio.conversations.path(made)[1].turn_id == studio.conversations.path(before)[1].turn_id


@pytest.mark.slow
def test_search_pin_export_import_and_link(visit, studio):
    tab = visit()
    say(tab, "The lighthouse has forty steps")
    settled(tab, 1)
    tab.click(".side .new")
    say(tab, "Something else entirely")
    settled(tab, 1)
    tab.fill(".search .query", "lighth")
    tab.wait_for_selector(".found .name")
    tab.click(".found li:last-child .name")
    tab.wait_for_function(
        "() => document.querySelector('.entry.said .words')?.textContent.includes('lighthouse')"
    )
    tab.press(".search .query", "Escape")
    tab.wait_for_selector(".found", state="hidden")
    tab.locator(".conversations li", has_text="lighthouse").hover()
    tab.locator(".conversations li", has_text="lighthouse").locator(".pin").click()
    tab.wait_for_function(
        "() => document.querySelector('.conversations li .name').textContent.includes('lighthouse')"
    )
    panel = open_details(tab)
    with tab.expect_download() as taken:
        panel.get_by_text("Export as JSON").click()
    text = taken.value.path().read_text(encoding="utf-8")
    assert json.loads(text)["messages"][0]["content"] == "The lighthouse has forty steps"
    panel.get_by_text("Share a read-only link").click()
    link = tab.inner_text("[data-link]")
    tab.keyboard.press("Escape")
    tab.set_input_files(
        ".importer input",
        {"name": "c.json", "mimeType": "application/json", "buffer": text.replace("forty", "fifty").encode()},
    )
    tab.wait_for_function("() => document.querySelectorAll('.conversations li').length === 3")
    stranger = visit()
    stranger.goto(link)
    stranger.wait_for_selector(".memory-dialog .prompt")
    assert "The lighthouse has forty steps" in stranger.inner_text(".memory-dialog .prompt")


@pytest.mark.slow
def test_a_fact_is_remembered_in_another_conversation_and_deleted(visit, studio):
    tab = visit()
    open_details(tab).get_by_text("What I told you").click()
    tab.fill(".memory-dialog .add .fact-field", "I am a vegetarian.")
    tab.press(".memory-dialog .add .fact-field", "Enter")
    tab.wait_for_selector(".memory-dialog .facts li")
    tab.keyboard.press("Escape")
    say(tab, "What shall I cook?")
    settled(tab, 1)
    where = tab.evaluate("localStorage.getItem('thumbprint.conversation')")
    turn = studio.ledger.turn(studio.conversations.path(where)[-1].turn_id)
    assert "I am a vegetarian." in turn.prompt[0].content
    open_details(tab).get_by_text("What I told you").click()
    tab.click('.memory-dialog [title="Forget this"]')
    tab.wait_for_function("() => !document.querySelector('.memory-dialog .facts li')")
    tab.keyboard.press("Escape")
    say(tab, "And tomorrow?")
    settled(tab, 2)
    turn = studio.ledger.turn(studio.conversations.path(where)[-1].turn_id)
    assert not re.search("vegetarian", turn.prompt[0].content)


@pytest.mark.slow
def test_a_long_conversation_opens_at_its_end_and_shows_its_beginning_when_asked(visit, studio):
    tab = visit()
    say(tab, "The first of very many")
    settled(tab, 1)
    where = tab.evaluate("localStorage.getItem('thumbprint.conversation')")
    head = studio.conversations.get(where).head
    for number in range(180):
        role = "user" if number % 2 == 0 else "assistant"
        head = studio.conversations.append(where, Message(role, f"Message {number}"), parent=head).id
    tab.reload()
    tab.wait_for_selector(".earlier")
    assert tab.locator(".entry").count() == 100 and "82 earlier messages" in tab.inner_text(".earlier")
    tab.click(".earlier button")
    tab.wait_for_function("() => document.querySelectorAll('.entry').length === 182")
    assert tab.locator(".earlier").count() == 0
    assert "The first of very many" in tab.inner_text(".entry.said >> nth=0")
    say(tab, "And one more")
    tab.wait_for_function("() => document.querySelectorAll('.entry:not(.live):not(.echo)').length === 184")
