"""Batches of like length: every row once a pass, little padding, another mix every time."""

from __future__ import annotations

import random

from training.batching import LikeLengths

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
