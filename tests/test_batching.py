"""Batches of like length: every row once a pass, little padding, another mix every time."""

from __future__ import annotations

import random

import torch

from training.batching import LikeLengths, passes_of

LENGTHS = random.Random(1).choices(range(20, 400), k=83)


def padding(order, lengths, *, size):
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return sum(max(lengths[row] for row in batch) * len(batch) for batch in batches) / sum(lengths)


def test_every_row_comes_once_a_pass_and_passes_differ():
    sampler = LikeLengths(LENGTHS, batch_size=8, seed=3)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(83))
    assert first != second
    assert {frozenset(first[:8])} != {frozenset(second[:8])}
    assert list(LikeLengths(LENGTHS, batch_size=8, seed=3)) == first
    assert len(sampler) == 83


def test_batches_hold_little_padding():
    plain = list(range(83))
    sorted_by_length = list(LikeLengths(LENGTHS, batch_size=8, seed=3))
    assert padding(plain, LENGTHS, size=8) > 1.6
    assert padding(sorted_by_length, LENGTHS, size=8) < 1.25


def test_the_rows_that_fill_no_batch_are_others_every_time():
    sampler = LikeLengths(LENGTHS, batch_size=8, seed=3)
    left_over = {tuple(list(sampler)[80:]) for _ in range(10)}
    assert len(left_over) == 10


def test_the_long_rows_do_not_come_first_or_last():
    sampler = LikeLengths(list(range(1, 81)), batch_size=8, seed=0)
    firsts = [next(iter(sampler)) for _ in range(20)]
    assert 10 < sum(firsts) / 20 < 70


def test_fewer_rows_than_a_batch():
    assert sorted(LikeLengths([5, 9, 7], batch_size=8, seed=0)) == [0, 1, 2]


def test_passes_of_like_length_cost_least():
    """Lengths 10, 100, 10, 100 and `fixed` for a pass. One pass: 4 * 100 + fixed; two: 2 * 10 + 2 * 100 + 2 * fixed.

    With 5 that is 405 or 230, with 1,000 it is 1,400 or 2,220. No more than 3 rows: 2,220, or 10 + 3 * 100 + 2,000.
    """
    lengths = [10, 100, 10, 100]
    assert sorted(map(sorted, passes_of(lengths, most=4, fixed=5))) == [[0, 2], [1, 3]]
    assert sorted(map(sorted, passes_of(lengths, most=4, fixed=1000))) == [[0, 1, 2, 3]]
    assert sorted(map(sorted, passes_of(lengths, most=3, fixed=1000))) == [[0, 2], [1, 3]]
    assert passes_of([], most=4, fixed=5) == []


def test_passes_hold_every_row_once_and_no_more_than_allowed():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 200, (37,), generator=generator).tolist()
    passes = passes_of(lengths, most=8, fixed=64)
    assert sorted(row for some in passes for row in some) == list(range(37))
    assert max(map(len, passes)) <= 8


def test_a_pass_is_in_the_same_order_whenever_it_is_come_to():
    """As a training that is resumed in its third pass asks for it, and accelerate before each pass."""
    lengths = list(range(23))
    straight = LikeLengths(lengths, batch_size=4, seed=5)
    passes = [list(straight) for _ in range(3)]
    resumed = LikeLengths(lengths, batch_size=4, seed=5)
    resumed.set_epoch(2)
    assert list(resumed) == passes[2]
    resumed.set_epoch(0)
    assert list(resumed) == passes[0]
    resumed.set_epoch(1)
    assert list(resumed) == passes[1]
    assert passes[0] != passes[1] != passes[2]
