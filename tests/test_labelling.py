"""Further pairs: only of replies to training prompts, only where the judge is sure, and never as anybody's feedback."""

from __future__ import annotations

import torch
from judged import quick_settings
from test_bradley_terry import TASTES, no_features, prompt, rows
from tiny import save_tiny_base

from memory.schema import Message
from training.base import load_base
from training.bradley_terry import fit_judge
from training.labelling import Pool, judged_rows, sample_pools

SETTINGS = quick_settings(judged_pairs=6)
QUESTION = fit_judge(rows(TASTES["question"], count=40, seed=1), no_features)


def test_the_best_is_paired_with_the_worst_where_the_judge_is_sure():
    pool = Pool(prompt(), ("tea and rock?", "the cold moon.", "tea and egg?", "wait and read."))
    found = judged_rows(QUESTION, [pool], settings=SETTINGS)
    assert len(found) == 2
    assert {row.chosen for row in found} == {"tea and rock?", "tea and egg?"}
    assert {row.rejected for row in found} == {"the cold moon.", "wait and read."}
    assert {(row.prompt, row.feedback_id, row.conversation_id) for row in found} == {(prompt(), "", "")}


def test_replies_that_are_alike_make_no_pair():
    pools = [
        Pool(prompt(), ("tea and rock.", "tea and moon.")),
        Pool(prompt("2"), ("tea?",)),
        Pool(prompt("3"), ()),
    ]
    assert judged_rows(QUESTION, pools, settings=SETTINGS) == []


def test_the_surest_pairs_are_kept():
    pools = [Pool(prompt(str(n)), (f"tea {n}?", f"tea {n}.")) for n in range(20)]
    found = judged_rows(QUESTION, pools, settings=SETTINGS)
    assert len(found) == 6
    odds = [
        good - bad
        for good, bad in (QUESTION.scores([(r.prompt, r.chosen), (r.prompt, r.rejected)]) for r in found)
    ]
    assert odds == sorted(odds, reverse=True)


def test_a_judge_without_an_opinion_orders_nothing():
    blank = fit_judge(rows(TASTES["question"], count=1, seed=1), no_features)
    assert judged_rows(blank, [Pool(prompt(), ("tea?", "tea."))], settings=SETTINGS) == []


def test_replies_are_sampled_whole_and_different(tmp_path):
    """Some common token is made to end turns, so that replies of a random model end at all."""
    settings = SETTINGS.model_copy(update={"model": str(save_tiny_base(tmp_path)), "max_new_tokens": 40})
    base = load_base(settings)
    with torch.no_grad():
        base.model.lm_head.weight[base.tokenizer.eos_token_id] = base.model.lm_head.weight.mean(0) + 0.5
    prompts = [(Message("user", f"Question {n}?"),) for n in range(3)]
    pools = sample_pools(base, base.model, [*prompts, prompts[0]], adapter=None, settings=settings)
    assert {pool.prompt for pool in pools} == set(prompts)
    for pool in pools:
        assert len(pool.replies) == len(set(pool.replies)) <= 5
        assert all(reply.strip() and "<|im_end|>" not in reply for reply in pool.replies)
    assert any(pool.replies for pool in pools)
    assert pools == sample_pools(base, base.model, prompts, adapter=None, settings=settings)


def test_none_are_sampled_where_none_are_wanted(tmp_path):
    settings = SETTINGS.model_copy(update={"model": str(save_tiny_base(tmp_path)), "judged_pairs": 0})
    base = load_base(settings)
    assert sample_pools(base, base.model, [prompt()], adapter=None, settings=settings) == []
    assert sample_pools(base, base.model, [], adapter=None, settings=SETTINGS) == []
