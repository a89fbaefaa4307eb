"""The main job, nothing replaced: ``python app.py`` with the model that ships, a person in Chromium, the real trainer.

The person prefers replies that end in a question, and says so thirty-six times with the keyboard. Minutes long, so it
stands among the slow tests. The gate's thresholds are lowered here (its judgement has tests and benchmarks of its own):
what is shown is that a vote in the browser reaches the adapter that answers in the browser.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from browsing import say, settled, vote

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]
pytest_plugins = ("browsing",)

ROOT = Path(__file__).resolve().parent.parent
VOTES = 36
TOPICS = (
    "tea",
    "rain",
    "cats",
    "bread",
    "the moon",
    "bicycles",
    "paper",
    "bees",
    "honey",
    "guitars",
    "trees",
)
LENIENT = [
    "--min-win-rate",
    "0.05",
    "--min-preference-accuracy",
    "0.05",
    "--max-fluency-drop",
    "9",
    "--max-degenerate",
    "0.9",
]


class App:
    """``python app.py`` on a folder of its own, which can be ended and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.process = folder, port, None

    def start(self) -> None:
        command = [sys.executable, "app.py", "--port", str(self.port), "--data-dir", str(self.folder)]
        command += [
            "--compare-every",
            "1",
            "--compare-with-previous",
            "0",
            "--chat-threads",
            "1",
            "--training-niceness",
            "0",
            *LENIENT,
        ]
        with (self.folder.parent / "app.log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while self.health() is None:
            assert time.monotonic() < deadline and self.process.poll() is None, (
                self.folder.parent / "app.log"
            ).read_text()
            time.sleep(0.2)

    def health(self) -> dict | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = App(tmp_path_factory.mktemp("real") / "data", port)
    app.start()
    yield app
    app.stop()


@pytest.fixture(scope="module")
def address(app):
    return f"http://127.0.0.1:{app.port}/"


def prefer_questions(tab) -> str:
    """The key of the side that ends in a question; a tie where both or neither do."""
    tab.wait_for_selector("#pair .skip:not([hidden])")
    left, right = (text.strip().endswith("?") for text in tab.locator("#pair .card .words").all_inner_texts())
    return "0" if left == right else "1" if left else "2"


def test_votes_in_the_browser_change_the_model_that_answers_in_the_browser(visit, app, address):
    tab = visit()
    tab.set_default_timeout(90_000)
    decided = number = 0
    while decided < VOTES and number < 4 * VOTES:
        tab.click(".side .new")
        say(tab, f"Tell me about {TOPICS[number % len(TOPICS)]}, please. This is question {number}.")
        tab.wait_for_function(
            "document.querySelector('#pair .skip:not([hidden])') || document.querySelector('.compared')"
            " || document.querySelectorAll('.entry.reply[data-node]').length"
        )
        number += 1
        if tab.locator("#pair").count() == 0:  # the two replies were the same: there was nothing to choose
            continue
        key = prefer_questions(tab)
        vote(tab, key)
        decided += key != "0"
    assert decided == VOTES

    tab.click("#training-button")
    tab.click('[data-event="retrain"]:not([disabled])')
    tab.wait_for_selector('.station[data-station="train"][data-state="running"]')
    tab.click("#chat-button")
    tab.click(".side .new")
    say(tab, "Are you still there while you learn?")
    vote(tab, "0")
    tab.wait_for_selector("#served-version >> text=v0001", timeout=600_000)
    health = app.health()
    assert health["version"] == "v0001"
    manifest = json.loads((app.folder / "adapters" / "v0001" / "manifest.json").read_text())
    assert health["fingerprint"] == manifest["fingerprint"]
    assert len(manifest["feedback_ids"]) >= VOTES // 2

    tab.click(".side .new")
    say(tab, "What is a lighthouse?")
    vote(tab, "1")
    assert "v0001" in tab.inner_text(".entry.reply:last-of-type .by")

    tab.goto("about:blank")  # an open page would ask for the studio while it is away
    app.stop()
    app.start()
    tab.goto(address)
    settled(tab, 1)
    tab.wait_for_selector("#served-version >> text=v0001")
    assert tab.locator(".compared").count() == 1
    assert len(tab.locator(".conversations .name").all()) >= VOTES

    tab.click("#versions-button")
    tab.click('.version[data-version="base"] [data-event="roll_back"]')
    tab.fill("dialog input", "To see the old one again")
    tab.click("dialog [type=submit]")
    tab.wait_for_selector("#served-version >> text=base model")
    assert app.health()["version"] == "base"
