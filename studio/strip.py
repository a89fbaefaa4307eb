"""The loop strip: Talk, Rate, Train, Check, Serve, each with its live figure, on top of every tab.

`read_loop` looks at the studio once; `stations` and `masthead` are pure functions of what it saw. What is
running glows, what failed is red and says why on click. Nothing here changes anything, and nothing here
belongs to one visitor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memory.schema import BASE_VERSION, FINAL_STATES, Run
from studio.marks import icon, mark
from studio.opening import Opening
from studio.wording import count, lasting, safe

State = Literal["idle", "running", "done", "failed"]


@dataclass(frozen=True)
class Loop:
    """What the strip shows. `run` is the latest retraining, `seconds_left` its estimate, None while unknown.

    `version` is empty while the studio is still opening; `problem` says why it will not open.
    """

    version: str = ""
    fingerprint: str = ""
    refused: str = ""
    problem: str = ""
    turns_today: int = 0
    have: int = 0
    need: int = 0
    ready: bool = False
    readiness: str = ""
    run: Run | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Station:
    """One stop of the loop: its figure of a word or two, the sentence behind it, and a detail for wide
    screens.
    """

    name: str
    tab: str
    state: State
    figure: str
    title: str
    sentence: str
    detail: str = ""


def read_loop(opening: Opening) -> Loop:
    """Look at the studio: a few counts, the latest run, what is served."""
    studio = opening.studio
    if studio is None:
        return Loop(problem=opening.problem)
    readiness = studio.retraining.readiness()
    run = studio.runs.active() or next(iter(studio.runs.list(limit=1)), None)
    left = None
    if run is not None and run.state not in FINAL_STATES:
        left = next((row.get("seconds_left") for row in reversed(studio.retraining.metrics(run.id))), None)
    return Loop(
        version=studio.serving.current.version,
        fingerprint=studio.serving.current.fingerprint,
        refused=studio.serving.refused or "",
        turns_today=studio.ledger.counts().turns_today,
        have=readiness.have,
        need=readiness.need,
        ready=readiness.ready,
        readiness=readiness.sentence,
        run=run,
        seconds_left=left,
    )


def stations(loop: Loop) -> tuple[Station, ...]:
    """The five stations, in the order of the loop."""
    return (_talk(loop), _rate(loop), _train(loop), _check(loop), _serve(loop))


def masthead(loop: Loop) -> str:
    """HTML of the page's head: the name, what is served, and the strip."""
    stops = stations(loop)
    items = []
    for index, stop in enumerate(stops):
        items.append(f"<li>{_button(stop)}</li>")
        if index < len(stops) - 1:
            live = "live" if stops[index + 1].state == "running" else ""
            items.append(f'<li aria-hidden="true"><span class="track {live}"></span></li>')
    again = f'<li title="And around again">{icon("again", "again")}</li>'
    look = f"{icon('moon', 'moon')}{icon('sun', 'sun')}"
    return (
        '<div class="tp"><header class="masthead">'
        f'<span class="brand">{icon("thumbprint")}Thumbprint</span>{_served(loop)}'
        f'<button class="look" aria-label="Light or dark" title="Light or dark">{look}</button></header>'
        f'<nav aria-label="The loop"><ol class="loop">{"".join(items)}{again}</ol></nav></div>'
    )


def _talk(loop: Loop) -> Station:
    said = f"{count(loop.turns_today, 'reply', 'replies')} given today (UTC)."
    state: State = "done" if loop.turns_today else "idle"
    return Station(
        "talk",
        "chat",
        state,
        f"{loop.turns_today:,} today",
        "Talk",
        f"{said} Now and then you are asked to compare two.",
    )


def _rate(loop: Loop) -> Station:
    sentence = loop.readiness or "What people think of the replies is collected here."
    if loop.ready:
        return Station("rate", "feedback", "done", f"{loop.have:,} kept", "Rate", sentence)
    figure = f"{loop.need:,} to go" if loop.version else "–"
    return Station(
        "rate", "feedback", "idle", figure, "Rate", sentence, f"{loop.have:,} kept, " if loop.have else ""
    )


def _train(loop: Loop) -> Station:
    run = loop.run
    if run is not None and run.state in ("queued", "training"):
        left = f"{lasting(loop.seconds_left)} left" if loop.seconds_left else f"{100 * run.progress:.0f} %"
        return Station(
            "train", "training", "running", left, "Training now", run.message or "Waiting for its turn."
        )
    if run is not None and run.state == "failed":
        return Station("train", "training", "failed", "failed", "Training failed", run.message)
    if run is not None and run.state == "refused":
        return Station("train", "training", "failed", "refused", "Training did not begin", run.message)
    if run is not None and run.state == "evaluating":
        return Station(
            "train", "training", "done", "done", "Trained", "Training is over; its result is being checked."
        )
    if loop.ready:
        sentence = f"{loop.readiness} Start a retraining when you like; the chat goes on meanwhile."
        return Station("train", "training", "idle", "ready", "Ready to train", sentence)
    done = run is not None and run.state in ("published", "rejected")
    figure = "done" if done else "stopped" if run is not None else "waiting"
    sentence = loop.readiness or "Training waits for judgements."
    return Station("train", "training", "done" if done else "idle", figure, "Train", sentence)


def _check(loop: Loop) -> Station:
    run = loop.run
    if run is not None and run.state == "evaluating":
        left = f"{lasting(loop.seconds_left)} left" if loop.seconds_left else "checking"
        return Station("check", "training", "running", left, "Checking the candidate", run.message)
    if run is not None and run.state == "rejected":
        return Station("check", "training", "failed", "said no", "The check said no", run.message)
    if run is not None and run.state == "published":
        return Station("check", "training", "done", "passed", "The check said yes", run.message)
    sentence = "Before a candidate may answer you, it is compared with what is served, on conversations it never saw."
    return Station("check", "training", "idle", "no verdict", "Check", sentence)


def _serve(loop: Loop) -> Station:
    if loop.problem:
        return Station("serve", "versions", "failed", "closed", "The studio could not open", loop.problem)
    if not loop.version:
        sentence = "The model is being loaded. You can look around; in a few seconds you can talk."
        return Station("serve", "versions", "running", "loading", "Loading the model", sentence)
    name = "base" if loop.version == BASE_VERSION else loop.version
    if loop.refused:
        return Station("serve", "versions", "failed", name, "A version is not served", loop.refused)
    if loop.version == BASE_VERSION:
        sentence = "The base model answers, as it was shipped. Nothing has been learned from ratings yet."
    else:
        proof = f"Its fingerprint, {loop.fingerprint}, was checked after loading."
        sentence = f"{loop.version} answers every new message. {proof}"
    return Station("serve", "versions", "done", name, "Serve", sentence)


_MORE = {
    "chat": "Go to the chat",
    "feedback": "See the feedback",
    "training": "Open the training",
    "versions": "See the versions",
}


def _button(stop: Station) -> str:
    return (
        f'<button class="station" data-station="{stop.name}" data-state="{stop.state}" data-tab="{stop.tab}" '
        f'data-title="{safe(stop.title)}" data-sentence="{safe(stop.sentence)}" '
        f'data-more="{_MORE[stop.tab]}">'
        f'<span class="dot">{icon(stop.name)}</span><span><span class="name">{stop.name.capitalize()}</span>'
        f'<span class="figure"><span class="detail">{safe(stop.detail)}</span>{safe(stop.figure)}</span>'
        "</span></button>"
    )


def _served(loop: Loop) -> str:
    if not loop.version:
        return f'<span class="served" role="status">{"could not open" if loop.problem else "loading the model…"}</span>'
    name = 'base<span class="word"> model</span>' if loop.version == BASE_VERSION else safe(loop.version)
    title = "What answers your next message. The fingerprint was measured on the model after loading."
    return (
        f'<span class="served" role="status" id="served-version" title="{title}">{mark(loop.fingerprint)}'
        f'<b>{name}</b><span aria-hidden="true">·</span><span><span class="word">fingerprint </span>'
        f'<span class="mono">{safe(loop.fingerprint)}</span></span></span>'
    )
