"""The baseline that a reward model has to beat: word n-grams and a linear model, fitted in seconds.

TF-IDF over one and two words of the replies, and logistic regression without an intercept on the difference of a pair's
two vectors, each pair both ways round. It reads no prompt. With thumbs, those are further rows of the same regression:
a reply against nothing, with an intercept of their own. Needs scikit-learn, which the studio does not:
``pip install -r benchmarks/requirements.txt``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from training.orderings import Ordering


def baseline_leads(
    train: Sequence[Ordering], test: Sequence[Ordering], *, penalty: float = 1.0
) -> list[float]:
    """The log-odds of the preferred reply in every pair of `test`, in the order of `pairs_of`.

    `penalty` is that of the squared weights.
    """
    import numpy
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(ngram_range=(1, 2)).fit(reply for item in train for reply in item.replies)
    pairs = pairs_of(train)
    thumbs = [item for item in train if item.liked is not None]
    leads = _differences(words, pairs)
    rows, labels = [leads, -leads], [1] * len(pairs) + [0] * len(pairs)
    if thumbs:
        rows.append(words.transform([item.replies[0] for item in thumbs]))
        labels += [int(item.liked is True) for item in thumbs]
    # The column of ones is the thumbs' intercept; pairs have none, or the order of their sides would count.
    ones = [0.0] * (2 * len(pairs)) + [1.0] * len(thumbs)
    seen = sparse.hstack([sparse.vstack(rows), sparse.csr_matrix(numpy.array(ones)[:, None])]).tocsr()
    model = LogisticRegression(C=1 / penalty, fit_intercept=False, max_iter=2000).fit(seen, labels)
    found = _differences(words, pairs_of(test)) @ model.coef_[0][:-1]
    return [float(lead) for lead in found]


def pairs_of(orderings: Sequence[Ordering]) -> list[tuple[str, str]]:
    """(preferred, other) of every decided ordering, a ranking with all its pairs."""
    return [pair for item in orderings if not item.tied for pair in combinations(item.replies, 2)]


def _differences(words: object, pairs: Sequence[tuple[str, str]]) -> object:
    """Preferred less other [pairs, n-grams]."""
    better = words.transform([preferred for preferred, _ in pairs])  # type: ignore[attr-defined]
    return better - words.transform([other for _, other in pairs])  # type: ignore[attr-defined]
