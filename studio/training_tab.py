"""What is it learning? What is still missing, the run under way, the evaluation of the last candidate, and
the runs before.

`retrain` and `cancel` are plain functions over `studio.retraining`; everything else reads. A candidate is
shown against what is served with the gate's own sentences, so the page never says more than was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memory.schema import FINAL_STATES, Run
from studio.plots import curve_of, line_plot
from studio.training_words import AT_MOST, CHECKS, METHODS, STATES
from studio.wording import count, lasting, number, safe, sentence, shorten, when

if TYPE_CHECKING:
    from studio.build import Studio

RUNS = 15
SAMPLES = 4


def retrain(studio: Studio, owner: str) -> str:
    """Start a retraining. Returns a sentence; raises what `Retraining.start` raises."""
    run = studio.retraining.start(owner)
    return run.message if run.state == "failed" else "The retraining has begun. The chat goes on meanwhile."


def cancel(studio: Studio) -> str:
    """Ask the run under way to stop. Returns a sentence."""
    run = studio.runs.active()
    if run is None:
        return "There is no retraining to cancel."
    studio.retraining.cancel(run.id)
    return "The retraining stops after its current step. What is served does not change."


def render(studio: Studio, owner: str, now: float) -> str:
    """HTML of the tab."""
    runs = studio.runs.list(limit=RUNS)
    active = studio.runs.active()
    shown = active or next((run for run in runs if studio.retraining.metrics(run.id, limit=1)), None)
    ended = next(
        (run for run in runs if run.state in FINAL_STATES and studio.retraining.report(run.id)), None
    )
    now_or_next = _running(studio, active) if active else _next(studio, runs)
    return (
        f'<div class="tp tab-room">{now_or_next}{_curves(studio, shown)}'
        f"{_evaluation(studio.retraining.report(ended.id), ended) if ended and not active else ''}"
        f"{_log(studio, shown)}{_history(runs, now=now)}</div>"
    )


def _next(studio: Studio, runs: Sequence[Run]) -> str:
    readiness = studio.retraining.readiness()
    last = runs[0] if runs else None
    headline = "There is enough to learn from." if readiness.ready else "Not enough to learn from yet."
    outcome = ""
    if last is not None and last.state in ("failed", "refused"):
        outcome = (
            f'<p class="warning" role="alert">The last run {STATES[last.state]}: {safe(last.message)}</p>'
        )
    wanted = readiness.have + readiness.need
    share = 1.0 if readiness.ready or not wanted else readiness.have / wanted
    disabled = "" if readiness.ready else f' disabled title="{safe(readiness.sentence)}"'
    return (
        f'<h1>{headline}</h1><p class="lead" id="readiness">{safe(readiness.sentence)}</p>'
        '<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}" '
        f'aria-label="Judgements collected"><span style="width:{100 * share:.1f}%"></span></div>'
        '<div class="actions"><button class="tp-button primary" data-event="retrain" '
        f'aria-describedby="readiness"{disabled}>Retrain now</button>'
        f"{_go_chat(readiness.ready)}</div>{_by_itself(studio)}{_learning(studio)}{outcome}"
    )


def _by_itself(studio: Studio) -> str:
    """When a retraining begins without anybody's asking; nothing where it never does."""
    if not studio.settings.retraining_plan.by_itself:
        return ""
    return f'<p class="aside">{safe(studio.scheduler.standing().sentence)}</p>'


def _learning(studio: Studio) -> str:
    method = studio.settings.method
    start = f"beginning at the {'base model' if studio.settings.start_from == 'base' else 'served version'}"
    if method not in METHODS:
        return (
            f'<p class="aside">What fits the judgements best is chosen when a retraining begins, {start}.</p>'
        )
    learned, how = METHODS[method]
    return (
        f'<p class="aside">{learned} are learned from, by <abbr title="{safe(how)}">{safe(method.upper())}</abbr>, '
        f"always {start}.</p>"
    )


def _go_chat(ready: bool) -> str:
    return "" if ready else '<button class="tp-button" data-go="chat">Go to the chat</button>'


def _running(studio: Studio, run: Run) -> str:
    rows = studio.retraining.metrics(run.id, limit=1)
    left = rows[-1].get("seconds_left") if rows else None
    time_left = f"About {lasting(left)} left." if isinstance(left, int | float) and left > 0 else ""
    asked = run.cancel_requested
    doing = "Checking what it learned…" if run.state == "evaluating" else "Learning…"
    return (
        f"<h1>{'Stopping…' if asked else doing}</h1>"
        f'<p class="lead" role="status">{safe(sentence(run.message or "Waiting for its turn"))} {time_left} '
        '<span class="soft">You can go on talking meanwhile.</span></p>'
        '<div class="progress live" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * run.progress:.0f}" '
        f'aria-label="Retraining"><span style="width:{max(2.0, 100 * run.progress):.1f}%"></span></div>'
        '<div class="actions"><button class="tp-button" data-event="cancel_run" data-ask="Cancel this '
        'retraining?" '
        'data-body="What is served does not change. The judgements are kept." data-action="Cancel '
        f'it"{" disabled" if asked else ""}>Cancel</button>'
        f'<span class="soft">{100 * run.progress:.0f} %</span></div>'
    )


def _curves(studio: Studio, run: Run | None) -> str:
    if run is None:
        return ""
    rows = studio.retraining.metrics(run.id)
    loss = line_plot([curve_of(rows, "loss", "loss")], title="Loss: lower is better", x_label="step")
    margins = line_plot(
        [curve_of(rows, "rewards/margins", "margin")],
        title="Margin between chosen and rejected: higher is surer",
        x_label="step",
    )
    scores = line_plot(
        [curve_of(rows, "objective/scores", "score")],
        title="Score of the sampled replies: higher is liked better",
        x_label="step",
    )
    drift = line_plot(
        [curve_of(rows, "objective/kl", "KL")],
        title="Distance from where it began, in nats a reply",
        x_label="step",
    )
    plots = f"{loss}{margins}{scores}{drift}"
    return f'<div class="plots">{plots}</div>' if plots else ""


def _evaluation(report: dict[str, Any] | None, run: Run) -> str:
    """The verdict, every check with its threshold, and a few replies side by side."""
    if not report or "verdict" not in report:
        return ""
    verdict, evaluation = report["verdict"], report.get("evaluation", {})
    good = bool(verdict.get("promote"))
    name = run.version or "The candidate"
    title = f"{name} passed the check." if good else "The last candidate did not pass the check."
    rows = "".join(_check(check) for check in verdict.get("checks", ()))
    return (
        f'<section class="verdict {"good" if good else "bad"}"><h2>{safe(title)}</h2>'
        f"<p>{safe(verdict.get('summary', ''))}</p></section>"
        '<div class="table"><table class="checks"><thead><tr><th>Check</th><th></th><th>Measured</th>'
        "<th>Asked for</th><th>In words</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{_samples(evaluation)}"
    )


def _check(check: Mapping[str, Any]) -> str:
    name, meaning, share = CHECKS.get(check["name"], (check["name"].replace("_", " "), "", False))
    sign = "at most" if check["name"] in AT_MOST else "at least"
    tone, said = ("good", "passed") if check["passed"] else ("bad", "not passed")
    return (
        f'<tr><td><abbr title="{safe(meaning)}">{safe(name)}</abbr></td><td><span class="chip {tone}">{said}'
        "</span></td>"
        f'<td class="number" data-label="Measured">{_value(check["value"], share)}</td>'
        f'<td class="number soft" data-label="Asked for">{sign} {_value(check["threshold"], share)}</td>'
        f'<td class="wide">{safe(check["sentence"])}</td></tr>'
    )


def _value(value: float | None, share: bool) -> str:
    if value is None:
        return "not measured"
    if share:
        return f"{100 * value:.0f} %"
    return f"{value:.0f}" if float(value).is_integer() else number(value)


def _samples(evaluation: Mapping[str, Any]) -> str:
    samples = list(evaluation.get("samples") or ())[:SAMPLES]
    if not samples:
        return ""
    served = evaluation.get("served_version", "served")
    items = "".join(
        f'<li><p class="asked" dir="auto">{safe(shorten(sample["prompt"], 200))}</p><div class="pairs">'
        f'<div><h3>Candidate</h3><p dir="auto">{safe(sample["candidate"]) or "<i>nothing</i>"}</p></div>'
        f"<div><h3>Served then: {safe(served)}</h3><p "
        f'dir="auto">{safe(sample["served"]) or "<i>nothing</i>"}</p></div></div></li>'
        for sample in samples
    )
    return f'<h2>The same questions, answered by both</h2><ul class="samples">{items}</ul>'


def _log(studio: Studio, run: Run | None) -> str:
    tail = studio.retraining.log_tail(run.id, lines=120).strip() if run else ""
    if not tail:
        return ""
    return (
        '<details class="log" id="run-log"><summary>Log of this run</summary>'
        f'<pre tabindex="0">{safe(tail)}</pre></details>'
    )


def _took(run: Run) -> str:
    return lasting(run.ended_at - run.created_at) if run.ended_at else "–"


def _history(runs: Sequence[Run], *, now: float) -> str:
    if not runs:
        return ""
    tones = {"published": "good", "rejected": "bad", "failed": "bad", "refused": "bad"}
    rows = "".join(
        f'<tr><td><span class="chip {tones.get(run.state, "")}">{STATES[run.state]}</span></td>'
        f'<td class="mono" data-label="Version">{safe(run.version or "–")}</td><td '
        f'class="wide">{safe(run.message)}</td>'
        f'<td class="nowrap" data-label="Took">{_took(run)}</td><td>{when(run.created_at, now)}</td></tr>'
        for run in runs
    )
    return (
        f"<h2>{count(len(runs), 'run')}{' (the latest)' if len(runs) == RUNS else ''}</h2><div "
        'class="table"><table><thead><tr><th>Outcome</th><th>Version</th>'
        f"<th>What was said</th><th>Took</th><th>When</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
