"""A judge of replies, fitted in seconds on a few dozen pairs: Bradley-Terry over what a reply shows.

P(A better than B) = sigmoid(w . (f(A) - f(B))) (Bradley and Terry 1952), where f is what the frozen base model sees in
a reply, its shape, and the words that mark it. That is thousands of features for tens of pairs, so each is first
weighed by its own evidence: the t statistic of its difference between chosen and rejected replies, as naive Bayes
log-counts weigh words in Wang and Manning 2012. The ridge penalty is chosen by cross-validation, and where no penalty
predicts left-out pairs better than a coin, the judge has no opinion at all.

Thumbs are held against each other: a liked reply beside a disliked one is a pair too, if not to one prompt. There each
reply of the commoner kind is used once to fit, and each of the rarer kind once to see whether chance would do as well.

It is not the policy, so a policy that fooled itself has to fool something else as well. It sees training rows only; it
knows no adapter and no ledger.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from memory.schema import Message
from training.rated import Contrast, RatedRow, all_matched, matched, paired
from training.split import prompt_key
from training.traits import marks, shape
from training.views import PreferenceRow

Prompt = tuple[Message, ...]
Reply = tuple[Prompt, str]
Embed = Callable[[Sequence[Reply]], Tensor]
"""(prompt, reply) pairs to float features [pairs, features] of the frozen base."""

_PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Strongest first: where nothing tells them apart, the most cautious one wins."""
_HIDDEN_WEIGHT = 0.3
"""Scale of the base's features beside the others: there are hundreds, all correlated, and each is a little of
everything.
"""
_CHANCE_T = 1.0
"""A t statistic of this size says nothing: it is what chance gives."""
_NEWTON_STEPS = 25
_FOLDS = 5
_LEAST_PAIRS = 3
"""Fewest pairs that a word must tell apart to be looked at."""


class PreferenceJudge:
    """The fitted judge. Judging a pair both ways round gives probabilities that sum to one.

    `left_out` says of each training pair, and of each contrast of thumbs, whether a judge that was fitted without it,
    and without all else on its prompts, orders it as people did.
    """

    def __init__(self, weights: Tensor, features: _Features, left_out: Sequence[bool]) -> None:
        self._weights, self._features = weights, features
        self.left_out = tuple(left_out)

    def __call__(self, prompt: Prompt, reply_A: str, reply_B: str) -> float:
        score_A, score_B = self.scores([(prompt, reply_A), (prompt, reply_B)])
        return 1 / (1 + math.exp(min(score_B - score_A, 700.0)))

    def scores(self, replies: Sequence[Reply]) -> list[float]:
        """How good each reply is. The difference of two to one prompt is the log-odds that the first is better."""
        if not self.has_opinion or not replies:
            return [0.0] * len(replies)
        return [float(value) for value in self._features.of(replies) @ self._weights]

    def agreement(self, contrasts: Sequence[Contrast]) -> list[bool]:
        """For each contrast, whether the better reply is the better one here too; one without an opinion does not
        agree."""
        better = self.scores([_reply(contrast.better) for contrast in contrasts])
        worse = self.scores([_reply(contrast.worse) for contrast in contrasts])
        return [first > second for first, second in zip(better, worse, strict=True)]

    def seeing_through(self, embed: Embed) -> PreferenceJudge:
        """The same judge that gets the base's features from `embed` from now on."""
        return PreferenceJudge(self._weights, self._features.taken_from(embed), self.left_out)

    @property
    def has_opinion(self) -> bool:
        """Whether anything was found that tells liked from disliked replies."""
        return bool(self._weights.ne(0).any())


def fit_judge(
    rows: Sequence[PreferenceRow], embed: Embed, *, rated: Sequence[RatedRow] = ()
) -> PreferenceJudge:
    """Fit a judge on training pairs and thumbs. Where nothing is preferred to anything in them, it has no opinion."""
    folded = _folded(rows, rated)
    if not folded:
        return PreferenceJudge(torch.zeros(0), _Features(embed, {}), ())
    contrasts = [contrast for contrast, _, _ in folded]
    folds = torch.tensor([fold for _, fold, _ in folded])
    features = _Features(embed, _telling_marks(contrasts))
    better = features.of([_reply(contrast.better) for contrast in contrasts])
    worse = features.of([_reply(contrast.worse) for contrast in contrasts])
    differences = better - worse
    hidden = differences.shape[1] - features.seen
    margins = _left_out_margins(differences, folds, hidden)
    losses = {penalty: _loss(margins[penalty]) for penalty in _PENALTIES}
    penalty = min(_PENALTIES, key=lambda candidate: losses[candidate])
    weights = _Fit(differences, hidden).weights(penalty)
    # log 2 is the loss of a coin.
    weights = weights if losses[penalty] < math.log(2) else torch.zeros_like(weights)
    agreed = zip(_agreed(margins, folds), folded, strict=True)
    return PreferenceJudge(weights, features, [outcome for outcome, (_, _, counts) in agreed if counts])


class _Features:
    """Features of replies [replies, features]: the base's (computed once each), then the shape, then the marks."""

    def __init__(self, embed: Embed, vocabulary: Mapping[str, int]) -> None:
        self._embed, self._vocabulary = embed, vocabulary
        self._known: dict[Reply, Tensor] = {}
        self.seen = len(shape((), "")) + len(vocabulary)

    def taken_from(self, embed: Embed) -> _Features:
        other = _Features(embed, self._vocabulary)
        other._known = self._known
        return other

    def of(self, replies: Sequence[Reply]) -> Tensor:
        fresh = list(dict.fromkeys(reply for reply in replies if reply not in self._known))
        if fresh:
            surface = torch.tensor([self._surface(*reply) for reply in fresh], dtype=torch.float64)
            self._known.update(
                zip(fresh, torch.cat([self._embed(fresh).double(), surface], dim=1), strict=True)
            )
        return torch.stack([self._known[reply] for reply in replies])

    def _surface(self, prompt: Prompt, reply: str) -> list[float]:
        present = [0.0] * len(self._vocabulary)
        for mark in marks(reply):
            if mark in self._vocabulary:
                present[self._vocabulary[mark]] = 1.0
        return [*shape(prompt, reply), *present]


def _telling_marks(contrasts: Sequence[Contrast]) -> dict[str, int]:
    """The marks that only one of the two replies has in enough contrasts, numbered."""
    counts = Counter(
        mark
        for contrast in contrasts
        for mark in marks(contrast.better.completion) ^ marks(contrast.worse.completion)
    )
    return {
        mark: n for n, mark in enumerate(sorted(m for m, count in counts.items() if count >= _LEAST_PAIRS))
    }


def _folded(rows: Sequence[PreferenceRow], rated: Sequence[RatedRow]) -> list[tuple[Contrast, int, bool]]:
    """What is fitted on, with its fold, and whether it counts when the left-out ones are counted.

    All that answers one prompt shares a fold: thumbs are held against each other within their fold.
    """
    numbers: dict[Prompt, int] = {}
    pairs = [
        (contrast, numbers.setdefault(prompt_key(row.prompt), len(numbers)) % _FOLDS, True)
        for row, contrast in zip(rows, paired(rows), strict=True)
    ]
    inside: dict[int, list[RatedRow]] = defaultdict(list)
    for rating in rated:
        inside[numbers.setdefault(prompt_key(rating.prompt), len(numbers)) % _FOLDS].append(rating)
    for fold, replies in sorted(inside.items()):
        once = len(matched(replies))
        pairs += [(contrast, fold, place < once) for place, contrast in enumerate(all_matched(replies))]
    return pairs


def _reply(row: RatedRow) -> Reply:
    return row.prompt, row.completion


def _left_out_margins(differences: Tensor, folds: Tensor, hidden: int) -> dict[float, Tensor]:
    """By penalty, the log-odds [pairs] that a judge fitted on the other folds gives each pair's chosen reply.

    Minus infinity when there is only one fold.
    """
    margins = {penalty: torch.full((len(folds),), -math.inf, dtype=torch.float64) for penalty in _PENALTIES}
    for fold in torch.unique(folds) if len(torch.unique(folds)) > 1 else ():
        inside = folds == fold
        fit = _Fit(differences[~inside], hidden)
        for penalty in _PENALTIES:
            margins[penalty][inside] = differences[inside] @ fit.weights(penalty)
    return margins


def _agreed(margins: Mapping[float, Tensor], folds: Tensor) -> list[bool]:
    """Whether each pair is ordered as people did, at the penalty that the other folds prefer."""
    agreed = torch.zeros(len(folds), dtype=torch.bool)
    for fold in torch.unique(folds):
        inside = folds == fold
        best = min(_PENALTIES, key=lambda penalty: _loss(margins[penalty][~inside]))
        agreed[inside] = margins[best][inside] > 0
    return [bool(value) for value in agreed]


def _loss(margins: Tensor) -> float:
    """Mean negative log-likelihood a pair, in nats."""
    return float(-torch.nn.functional.logsigmoid(margins).mean())


class _Fit:
    """Ridge logistic regression without intercept on `differences` [pairs, features], scaled by their evidence.

    The best weights are a combination of the rows, so it is solved in as many dimensions as there are pairs.
    """

    def __init__(self, differences: Tensor, hidden: int) -> None:
        self._scale = _evidence(differences)
        self._scale[:hidden] *= _HIDDEN_WEIGHT
        basis, sizes, self._directions = torch.linalg.svd(differences * self._scale, full_matrices=False)
        self._coordinates = basis * sizes

    def weights(self, penalty: float) -> Tensor:
        """[features] that minimise mean -log sigmoid(d . w) + penalty/2 |w / scale|^2, by Newton's method.

        The loss is convex and its curvature at least `penalty`, so a few halved steps at most are needed.
        """
        z = self._coordinates
        eye = penalty * torch.eye(z.shape[1], dtype=z.dtype)
        solution = torch.zeros(z.shape[1], dtype=z.dtype)
        loss = _ridge_loss(z, solution, penalty)
        for _ in range(_NEWTON_STEPS):
            missed = torch.sigmoid(-(z @ solution))
            gradient = penalty * solution - z.T @ missed / len(z)
            curvature = z.T @ (z * (missed * (1 - missed)).unsqueeze(1)) / len(z) + eye
            step = torch.linalg.solve(curvature, gradient)
            while (lower := _ridge_loss(z, solution - step, penalty)) > loss and float(
                step.abs().max()
            ) > 1e-9:
                step = step / 2
            if lower >= loss:
                break
            solution, loss = solution - step, lower
        weights: Tensor = (solution @ self._directions) * self._scale
        return weights


def _ridge_loss(coordinates: Tensor, weights: Tensor, penalty: float) -> float:
    fit = torch.nn.functional.softplus(-(coordinates @ weights)).mean()
    return float(fit + penalty / 2 * weights.square().sum())


def _evidence(differences: Tensor) -> Tensor:
    """How far to trust each feature [features]: (t - chance)^2 for its t statistic, 1 for the best, over its size."""
    size = differences.square().mean(dim=0).sqrt().clamp(min=1e-9)
    # A little variance is added: a feature that differs by the same amount in the few pairs there are is not certain.
    variance = differences.var(dim=0, unbiased=False) + 1e-3 * size.square()
    t = differences.mean(dim=0).abs() / (variance / len(differences)).sqrt()
    trust = (t - _CHANCE_T).clamp(min=0).square()
    return trust / trust.max().clamp(min=1e-9) / size
