"""What is served, and why? Every version with its parents, its report and its fingerprint, and one click to go back.

`roll_back` is the only thing here that changes anything, and it asks `studio.serving`, which proves a version before it
serves it. This module trains nothing and judges nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory.schema import BASE_VERSION, Promotion
from studio.marks import mark
from studio.policy.interface import ReplicaState
from studio.wording import count, number, percent, safe, when
from training.registry import AdapterVersion

if TYPE_CHECKING:
    from studio.build import Studio

PROMOTIONS = 12


def roll_back(studio: Studio, version: str, *, owner: str, reason: str) -> str:
    """Serve an earlier version again. Returns a sentence; raises `training.registry.AdapterRefused` with the reason."""
    said = reason.strip()[:200] or "Chosen on the Versions page."
    studio.serving.roll_back(version, actor=owner, reason=said)
    return f"{_name(version)} answers every new message from now on. Replies under way finish on what they began with."


def render(studio: Studio, owner: str, now: float) -> str:
    """HTML of the tab for this visitor."""
    served = studio.serving.current
    promotions = studio.runs.promotions(limit=PROMOTIONS)
    mine = judgements_of(studio, owner)
    versions = list(reversed(studio.registry.versions()))
    refused = studio.serving.refused
    warning = f'<p class="warning" role="alert">{safe(refused)}</p>' if refused else ""
    items = "".join(_version(item, served=served.version, mine=mine, now=now) for item in versions)
    return (
        f'<div class="tp tab-room"><h1>{_headline(served.version)}</h1><p '
        f'class="lead">{_why(promotions, served.version, now)}</p>'
        f'{_watched(studio)}{warning}<ol class="versions">{items}'
        f"{_base(studio, served=served.version, alone=not versions)}</ol>"
        f"{_servers(studio.policy.replica_states())}{_history(promotions, owner=owner, now=now)}</div>"
    )


def judgements_of(studio: Studio, owner: str) -> set[str]:
    """The ids, as manifests name them, of what this visitor judged."""
    ledger = studio.ledger
    mine = {f"comparison:{item.comparison.id}" for item in ledger.comparisons() if item.rater == owner}
    return mine | {f"correction:{item.turn_id}" for item in ledger.corrections() if item.rater == owner}


def _name(version: str) -> str:
    return "The base model" if version == BASE_VERSION else version


def _headline(version: str) -> str:
    if version == BASE_VERSION:
        return "The base model answers, as it was shipped."
    return f'<span class="mono">{safe(version)}</span> answers.'


def _why(promotions: list[Promotion], version: str, now: float) -> str:
    latest = next((item for item in promotions if item.version == version), None)
    if latest is None:
        return (
            "No version has been promoted yet. Rate replies, retrain, and the first one appears here when it "
            "passes the check."
        )
    return f"Since {when(latest.created_at, now)}. {safe(latest.reason)}"


def _watched(studio: Studio) -> str:
    """How the served version stands against the one before it, and when it would go back by itself."""
    found = studio.watch.standing()
    if found is None:
        return ""
    before = _name(found.before) if found.before != BASE_VERSION else "the base model"
    said = (
        f"Side by side with {safe(before)}, people have preferred it {count(found.chosen, 'time')} and "
        f"{safe(before)} {count(found.passed_over, 'time')} since then."
    )
    if not studio.watch.odds:
        return f'<p class="soft">{said} It is not rolled back by itself.</p>'
    tip = (
        "An e-value: evidence that may be looked at after every vote. A version that people like as well as the one "
        f"before reaches {studio.watch.odds:g} to 1 in at most one of {studio.watch.odds:g} cases."
    )
    return (
        f'<p class="soft">{said} <abbr title="{safe(tip)}">The evidence against it</abbr> is '
        f"{number(min(found.evidence, 9_999), 1)} to 1; at {studio.watch.odds:g} to 1 it is rolled back by itself.</p>"
    )


def _version(item: AdapterVersion, *, served: str, mine: set[str], now: float) -> str:
    manifest = item.manifest
    if manifest is None or not item.ok:
        return (
            f'<li class="version refused"><span class="mark">{mark(item.version)}</span><div><h2><span '
            f'class="mono">{safe(item.version)}'
            f'</span> <span class="chip bad">never served</span></h2><p>{safe(item.problem)}</p></div></li>'
        )
    yours = len({name.split(">")[0] for name in manifest.feedback_ids} & mine)
    used = count(len(manifest.feedback_ids), "judgement")
    words = f"Your {count(yours, 'rating')} {'is' if yours == 1 else 'are'} in this version." if yours else ""
    parent = "the base model" if manifest.parent == BASE_VERSION else manifest.parent
    return (
        f'<li class="version {"served" if item.version == served else ""}" '
        f'data-version="{safe(item.version)}">'
        f'<span class="mark">{mark(manifest.fingerprint)}</span><div><h2><span '
        f'class="mono">{safe(item.version)}</span>'
        f"{_badge(item.version, served)}</h2>"
        f'<p class="soft">{safe(manifest.method.upper())} from {safe(parent)} on {used} · '
        f"{when(manifest.created_at, now)} · "
        '<abbr title="Measured on the loaded adapter: what it answers to a few fixed prompts. Two adapters '
        'never share one.">fingerprint'
        f'</abbr> <span class="mono">{safe(manifest.fingerprint)}</span></p>'
        f"{f'<p><b>{words}</b></p>' if words else ''}{_figures(manifest.report)}"
        f"</div>{_button(item.version, served)}</li>"
    )


def _base(studio: Studio, *, served: str, alone: bool) -> str:
    fingerprint = studio.policy.base().fingerprint
    hint = " Every version starts from it." if not alone else ""
    return (
        f'<li class="version {"served" if served == BASE_VERSION else ""}" data-version="{BASE_VERSION}">'
        f'<span class="mark">{mark(fingerprint)}</span><div><h2>Base model{_badge(BASE_VERSION, served)}</h2>'
        f'<p class="soft">Without an adapter, as it was shipped.{hint} · fingerprint <span '
        f'class="mono">{safe(fingerprint)}</span></p>'
        f"</div>{_button(BASE_VERSION, served)}</li>"
    )


def _badge(version: str, served: str) -> str:
    return ' <span class="chip on">served</span>' if version == served else ""


def _button(version: str, served: str) -> str:
    if version == served:
        return ""
    name = _name(version)
    return (
        f'<button class="tp-button small" data-event="roll_back" data-version="{safe(version)}" '
        f'data-ask="Serve {safe(name.lower() if version == BASE_VERSION else name)}?" '
        'data-body="It is loaded and proven first. New messages are answered by it; replies under way finish '
        'as they began." '
        f'data-action="Serve it" data-reason="Why? (shown in the history)">Serve this one</button>'
    )


def _figures(report: dict[str, Any]) -> str:
    """A few figures of the evaluation that let it through."""
    found = report.get("evaluation", report)
    if not isinstance(found, dict) or "win_rate_served" not in found:
        return ""
    candidate = found.get("candidate") or {}
    figures = (
        (
            "preferred to what it replaced",
            percent(found.get("win_rate_served")),
            "How often the judge preferred its reply.",
        ),
        (
            "orders pairs as people did",
            percent(found.get("preference_accuracy")),
            "On comparisons it was not trained on.",
        ),
        ("tokens a reply", number(candidate.get("mean_tokens"), 0), "Average length of its replies."),
        (
            "nats from the base",
            number(found.get("kl_base"), 1),
            "KL divergence a reply: how far it moved from the base model.",
        ),
    )
    items = "".join(
        f'<div title="{safe(tip)}"><dd>{value}</dd><dt>{name}</dt></div>' for name, value, tip in figures
    )
    return f'<dl class="figures">{items}</dl>'


def _servers(replicas: list[ReplicaState]) -> str:
    """The model servers, where there are any: an adapter counts as served once all that live hold it."""
    if not replicas:
        return ""
    rows = "".join(
        f'<tr><td class="mono">{safe(one.url)}</td><td>{_chip(one)}</td>'
        f'<td class="wide">{safe(one.problem) or count(one.replies, "reply", "replies") + " under way"}</td></tr>'
        for one in replicas
    )
    return (
        '<h2>Model servers</h2><div class="table"><table><thead><tr><th>Address</th><th>State</th><th>Doing</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _chip(replica: ReplicaState) -> str:
    return '<span class="chip good">answers</span>' if replica.serves else '<span class="chip bad">out</span>'


def _history(promotions: list[Promotion], *, owner: str, now: float) -> str:
    if not promotions:
        return ""
    actors = {"gate": "the check", "watch": "the votes", owner: "you"}
    rows = "".join(
        f'<tr><td class="mono">{safe(item.version)}</td><td class="wide" dir="auto">{safe(item.reason)}</td>'
        f"<td>{safe(actors.get(item.actor, 'someone'))}</td><td>{when(item.created_at, now)}</td></tr>"
        for item in promotions
    )
    return (
        '<h2>What was served when</h2><div class="table"><table><thead><tr><th>Version</th><th>Because</th>'
        "<th>By</th>"
        f"<th>When</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
