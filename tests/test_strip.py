"""The loop strip: every state of the loop has a figure, a sentence and a colour, and hostile text stays text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from furnished import furnished  # noqa: F401

from memory.schema import Run
from studio.marks import mark
from studio.opening import Opening, opened
from studio.strip import Loop, masthead, read_loop, stations

OPEN = Loop(
    version="v0003",
    fingerprint="ab12cd34",
    turns_today=1234,
    have=7,
    need=13,
    readiness="13 more decided comparisons needed: 7 of 20 so far.",
)


def run(state: str, **more) -> Run:
    values = {
        "id": "r1",
        "state": state,
        "method": "dpo",
        "parent_version": "base",
        "version": None,
        "progress": 0.41,
        "message": "What was said.",
        "folder": "",
        "requested_by": "me",
        "cancel_requested": False,
        "pid": None,
        "created_at": 0.0,
        "heartbeat_at": 0.0,
        "ended_at": None,
    }
    return Run(**values | more)


def at(loop: Loop, name: str):
    return next(stop for stop in stations(loop) if stop.name == name)


def test_the_stations_stand_in_the_order_of_the_loop():
    assert [stop.name for stop in stations(OPEN)] == ["talk", "rate", "train", "check", "serve"]
    assert [stop.figure for stop in stations(OPEN)] == [
        "1,234 today",
        "13 to go",
        "waiting",
        "no verdict",
        "v0003",
    ]


def test_enough_judgements_make_training_ready():
    ready = replace(
        OPEN, ready=True, have=25, need=0, readiness="Ready: 25 decided comparisons to learn from."
    )
    assert (at(ready, "rate").figure, at(ready, "rate").state) == ("25 kept", "done")
    assert (at(ready, "train").figure, at(ready, "train").state) == ("ready", "idle")


def test_what_runs_glows_with_the_time_left():
    training = replace(OPEN, run=run("training"), seconds_left=20.4)
    assert (at(training, "train").state, at(training, "train").figure) == ("running", "20 s left")
    assert at(replace(training, seconds_left=None), "train").figure == "41 %"
    checking = replace(OPEN, run=run("evaluating"), seconds_left=130)
    assert (at(checking, "check").state, at(checking, "check").figure) == ("running", "2 min left")
    assert at(checking, "train").state == "done"


@pytest.mark.parametrize(
    ("state", "station", "figure"),
    [("failed", "train", "failed"), ("refused", "train", "refused"), ("rejected", "check", "said no")],
)
def test_what_failed_is_red_and_says_why(state, station, figure):
    stop = at(replace(OPEN, run=run(state, message="The disk was full.")), station)
    assert (stop.state, stop.figure, stop.sentence) == ("failed", figure, "The disk was full.")


def test_a_refused_adapter_turns_serve_red():
    stop = at(replace(OPEN, refused="v0004 is not served: it is damaged."), "serve")
    assert (stop.state, stop.figure, stop.sentence) == (
        "failed",
        "v0003",
        "v0004 is not served: it is damaged.",
    )


def test_the_head_names_version_and_fingerprint():
    drawn = masthead(OPEN)
    assert "<b>v0003</b>" in drawn and 'class="mono">ab12cd34</span>' in drawn
    assert '<b>base<span class="word"> model</span></b>' in masthead(replace(OPEN, version="base"))


def test_text_from_outside_stays_text():
    drawn = masthead(replace(OPEN, run=run("failed", message='"><script>alert(1)</script>')))
    assert "<script" not in drawn and "&quot;&gt;&lt;script&gt;" in drawn


def test_while_opening_the_strip_says_so_and_a_failure_says_why():
    assert "loading the model" in masthead(Loop()) and at(Loop(), "serve").state == "running"

    def broken():
        raise RuntimeError("There is no model in models/mini.")

    opening = Opening(broken).begin()
    assert opening.wait(10) and opening.studio is None
    loop = read_loop(opening)
    assert at(loop, "serve").sentence == "There is no model in models/mini."
    assert at(loop, "serve").state == "failed" and "could not open" in masthead(loop)


def test_the_strip_reads_a_real_studio(furnished):  # noqa: F811
    loop = read_loop(opened(furnished))
    assert (loop.version, loop.turns_today, loop.run) == ("base", 0, None)
    assert loop.fingerprint == furnished.policy.base().fingerprint and loop.need > 0


def test_a_mark_is_a_function_of_the_fingerprint():
    assert mark("ab12cd34") == mark("ab12cd34") != mark("ab12cd35") or mark("ab12cd34") != mark("1b12cd34")
    assert mark("not hexadecimal").startswith("<svg")
