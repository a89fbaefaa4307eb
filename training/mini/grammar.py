"""Turns what is to be said (a `Body`) and how (a `Style`) into the text of one reply.

Every axis of style is realised here, in one place, so that it works the same in every intent: answers, greetings,
stories, refusals. Knows the shape of sentences; knows nothing of topics, questions or dialogues.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from training.mini import phrases
from training.mini.contractions import contract, expand
from training.mini.style import LONG, MEDIUM, SHORT, Style

STATEMENT, DEFINITION, ADVICE, REMARK, FIXED = "statement", "definition", "advice", "remark", "fixed"

_FRAMES = {
    STATEMENT: phrases.STATEMENT_FRAMES,
    DEFINITION: phrases.DEFINITION_FRAMES,
    ADVICE: phrases.ADVICE_FRAMES,
    REMARK: phrases.REMARK_FRAMES,
}
_NEGATIVE = re.compile(r"^(do not|don't|never|always|if|when|once|before|after|keep in mind)\b")
_SENTENCES = {SHORT: (1, 1), MEDIUM: (2, 2), LONG: (3, 4)}


@dataclass(frozen=True)
class Clause:
    """One thing to say: lower-case start, no final stop; {it} stands for the subject (its name or a pronoun)."""

    text: str
    kind: str = STATEMENT
    """STATEMENT, DEFINITION, ADVICE (an imperative), REMARK (small talk) or FIXED (takes no frame)."""
    because: str | None = None
    first: str | None = None
    """The same in the first person, said instead where the style asks for it."""


@dataclass(frozen=True)
class Subject:
    """What a body is about, and how to refer to it."""

    noun: str
    plural: bool = False

    @property
    def pronoun(self) -> str:
        return "they" if self.plural else "it"

    @property
    def object_pronoun(self) -> str:
        return "them" if self.plural else "it"

    @property
    def be(self) -> str:
        return "are" if self.plural else "is"


@dataclass(frozen=True)
class Body:
    """What a reply says, before any style."""

    core: tuple[Clause, ...]
    """Always said, in this order."""
    more: tuple[Clause, ...] = ()
    """Said after the core, in this order, as far as the length asks for it."""
    subject: Subject | None = None
    openings: tuple[str, ...] = ()
    """One of them opens the reply before anything else ("hello")."""
    courtesies: tuple[str, ...] = ()
    """Courteous openings that suit this body better than the general ones."""
    intros: tuple[str, ...] = phrases.LIST_INTROS
    """One of them stands before a list, ending in a colon."""
    example: str | None = None
    tip: str | None = None
    questions: tuple[str, ...] = ("open",)
    """Kinds of closing question (keys of phrases.QUESTIONS) or, where no such kind exists, the question itself."""
    serious: bool = False
    """Neither enthusiasm nor merry emoji: a refusal, a bad mood."""
    trailers: phrases.Table = field(default_factory=lambda: phrases.TRAILERS)
    """Short sentences that carry the marks of style for which the clauses have no room."""
    exact: bool = False
    """Say exactly the core, whatever the length asks for."""


@dataclass(frozen=True)
class Reply:
    """The text, and the kind of closing question it ends in (None where it ends in none)."""

    text: str
    question: str | None


def render(body: Body, style: Style, rng: random.Random) -> Reply:
    """Say `body` in `style`. All choices of words come from `rng`."""
    clauses = _choose_clauses(body, style, rng)
    marks = [m for m in ("hedge", "first_person", "enthusiasm", "address") if getattr(style, m)]
    if body.serious and "enthusiasm" in marks:
        marks.remove("enthusiasm")
    openings, marks = _open(body, style, marks, rng)
    sentences, trailers = _say(clauses, marks, body, style, rng)
    extras = _extras(body, style, rng)
    closing: list[str] = []
    if style.offer:
        closing.append(_offer(style, rng))
    kind = rng.choice(body.questions) if style.question else None
    question = _question(kind, body, style, rng) if kind else None
    if style.listing and len(sentences) > 1:
        intro = _fill(rng.choice(body.intros), body, True)
        parts = [*openings, intro], sentences, [*extras, *trailers, *closing]
        text = _lay_out_list(parts, question, body, style, rng)
    else:
        parts = openings, [*sentences, *extras], [*trailers, *closing]
        text = _lay_out_prose(parts, question, body, style, rng)
    return Reply(contract(text) if style.casual else expand(text), kind)


def _choose_clauses(body: Body, style: Style, rng: random.Random) -> list[Clause]:
    if body.exact:
        return list(body.core)
    wanted = rng.randint(*_SENTENCES[style.length])
    if style.listing:
        wanted = max(wanted, 2)
    more = list(body.more)
    if style.reason and not any(clause.because for clause in body.core):
        more.sort(key=lambda clause: clause.because is None)
        wanted = max(wanted, len(body.core) + 1) if more and more[0].because else wanted
    return [*body.core, *more[: max(0, wanted - len(body.core))]]


def _open(body: Body, style: Style, marks: list[str], rng: random.Random) -> tuple[list[str], list[str]]:
    openings = [rng.choice(body.openings)] if body.openings else []
    if style.courtesy:
        manner = "serious" if body.serious else "casual" if style.casual else "formal"
        openings.append(rng.choice(body.courtesies or phrases.COURTESY[manner]))
        if style.address and rng.random() < 0.3 and "thank" not in openings[-1]:
            openings[-1] += ", my friend" if style.casual else ", dear friend"
            marks = [mark for mark in marks if mark != "address"]
    if "enthusiasm" in marks and rng.random() < 0.4 and not body.openings:
        openings.append(rng.choice(phrases.ENTHUSIASM_OPENINGS))
        marks = [mark for mark in marks if mark != "enthusiasm"]
    return openings, marks


def _say(
    clauses: list[Clause], marks: list[str], body: Body, style: Style, rng: random.Random
) -> tuple[list[str], list[str]]:
    """The clauses as sentences with the marks spread over them, and trailing sentences for the marks left over."""
    if "first_person" in marks and clauses[0].first:
        clauses = [replace(clauses[0], text=clauses[0].first), *clauses[1:]]
        marks = [mark for mark in marks if mark != "first_person"]
    if "hedge" in marks and "first_person" in marks and rng.random() < 0.5:
        marks = [*(mark for mark in marks if mark not in ("hedge", "first_person")), "hedge+first_person"]
    rng.shuffle(marks)
    places = [place for place, clause in enumerate(clauses) if clause.kind != FIXED]
    rng.shuffle(places)
    assigned = dict(zip(places, marks, strict=False))
    left = marks[len(assigned) :]
    reasons = [place for place, clause in enumerate(clauses) if clause.because] if style.reason else []
    explained = reasons[:1] if style.length != LONG else reasons[:2]
    connectors = list(phrases.CONNECTORS["casual" if style.casual else "formal"])
    rng.shuffle(connectors)
    sentences = []
    for place, clause in enumerate(clauses):
        text = _frame(clause, assigned.get(place), rng)
        if place and place not in assigned and clause.kind in (STATEMENT, REMARK) and not style.listing:
            text = connectors.pop().replace("{s}", text) if connectors else text
        text = _refer(text, body, named=style.naming and place == 0)
        if place in explained and clause.because:
            reason = rng.choice(phrases.REASON_FRAMES)
            text = reason.replace("{s}", text).replace("{b}", clause.because)
        sentences.append(text)
    trailers = [rng.choice(body.trailers[mark]) for group in left for mark in group.split("+")]
    return sentences, trailers


def _frame(clause: Clause, mark: str | None, rng: random.Random) -> str:
    if clause.kind == FIXED:
        return clause.text
    frames = _FRAMES[clause.kind]
    if clause.kind == ADVICE:
        frames = phrases.NEGATIVE_ADVICE_FRAMES if _NEGATIVE.match(clause.text) else frames
        return rng.choice(frames[mark or "plain"]).replace("{s}", clause.text)
    return rng.choice(frames[mark]).replace("{s}", clause.text) if mark else clause.text


def _refer(text: str, body: Body, *, named: bool) -> str:
    """Put the subject into the first {it}, named or as a pronoun, and pronouns into the rest."""
    if body.subject is None:
        return text
    if named and "{it}" not in text and "{of}" not in text:
        text = f"when it comes to {body.subject.noun}, {text}"
    text = text.replace("{of}", f" of {body.subject.noun}" if named else "")
    if named:
        text = text.replace("{it}", body.subject.noun, 1)
    return _fill(text, body, False)


def _fill(text: str, body: Body, named: bool) -> str:
    if body.subject is None:
        return text
    subject = body.subject
    text = text.replace("{noun}", subject.noun).replace("{be}", subject.be)
    text = text.replace("{obj}", subject.noun if named else subject.object_pronoun)
    return text.replace("{it}", subject.noun if named else subject.pronoun)


def _extras(body: Body, style: Style, rng: random.Random) -> list[str]:
    extras = []
    if style.example and body.example:
        frames = phrases.EXAMPLE_FRAMES if body.subject else phrases.TALK_EXAMPLE_FRAMES
        extras.append(rng.choice(frames).replace("{e}", body.example))
    if style.tip and body.tip:
        extras.append(rng.choice(phrases.TIP_FRAMES).replace("{t}", body.tip))
    return extras


def _offer(style: Style, rng: random.Random) -> str:
    if style.first_person:
        return rng.choice(phrases.OFFERS["first_person"])
    return rng.choice(phrases.OFFERS["casual" if style.casual else "formal"])


def _question(kind: str, body: Body, style: Style, rng: random.Random) -> str:
    if kind not in phrases.QUESTIONS:
        return kind
    return _fill(rng.choice(phrases.QUESTIONS[kind]["casual" if style.casual else "formal"]), body, False)


Parts = tuple[Sequence[str], Sequence[str], Sequence[str]]


def _lay_out_prose(parts: Parts, question: str | None, body: Body, style: Style, rng: random.Random) -> str:
    before, middle, after = parts
    sentences = _punctuate([*before, *middle, *after], style, rng)
    if style.emoji:
        _place_emoji(sentences, len(before) + len(middle), body, rng)
    if question:
        sentences.append(_capital(question) + "?")
    text = sentences[0]
    for before, sentence in pairwise(sentences):
        text += ("\n" if "\n" in before + sentence else " ") + sentence
    return text


def _lay_out_list(parts: Parts, question: str | None, body: Body, style: Style, rng: random.Random) -> str:
    before, items, after = parts
    sentences = _punctuate([*before, *items, *after], style, rng)
    if style.emoji:
        _place_emoji(sentences, rng.choice((1, len(sentences))), body, rng)
    head, tail = sentences[: len(before)], sentences[len(before) + len(items) :]
    items = sentences[len(before) : len(before) + len(items)]
    numbered = rng.random() < 0.35
    lines = [f"{place}. {item}" if numbered else f"- {item}" for place, item in enumerate(items, start=1)]
    if question:
        tail.append(_capital(question) + "?")
    return "\n".join([" ".join(head), *lines, *([" ".join(tail)] if tail else [])])


def _place_emoji(sentences: list[str], limit: int, body: Body, rng: random.Random) -> None:
    """Set one emoji after a sentence among the first `limit`, never after a colon."""
    places = [place for place in range(min(limit, len(sentences))) if not sentences[place].endswith(":")]
    place = rng.choice(places[-1:] + places) if places else len(sentences) - 1
    sentences[place] += " " + rng.choice(phrases.SERIOUS_EMOJI if body.serious else phrases.EMOJI)


def _punctuate(sentences: list[str], style: Style, rng: random.Random) -> list[str]:
    """Capitals and final stops; with the exclamation axis on, at least one stop is an exclamation mark."""
    open_places = [place for place, sentence in enumerate(sentences) if sentence[-1] not in ":?!"]
    loud: set[int] = set()
    if style.exclamation and open_places:
        loud = {place for place in open_places if rng.random() < 0.35} or {rng.choice(open_places)}
    return [
        _capital(sentence) + ("!" if place in loud else "." if place in open_places else "")
        for place, sentence in enumerate(sentences)
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
