"""Batched sampling and scoring against the plain way of doing it: one row at a time, no cache, no padding."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from tiny import save_tiny_adapter, tiny_model, tiny_tokenizer

from training.generation import (
    Decoding,
    forgotten_share,
    kl_per_reply,
    reply_states,
    sample,
    speaking_as,
    token_logprobs,
)

TOKENIZER = tiny_tokenizer()
PAD, END = TOKENIZER.pad_token_id, TOKENIZER.eos_token_id
PROMPTS = [
    TOKENIZER.encode(text) for text in ("Tea", "What is a good way to boil an egg?", "cold water and wait")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_tiny_adapter(tmp_path_factory.mktemp("adapter"), tiny_model(TOKENIZER), seed=1)
    return PeftModel.from_pretrained(tiny_model(TOKENIZER), str(folder), adapter_name="one")


def decoding(**changes):
    values = {
        "temperature": 0.8,
        "top_p": 0.9,
        "max_new_tokens": 10,
        "ends": frozenset({END}),
        "pad": PAD,
        "seed": 3,
    }
    return Decoding(**{**values, **changes})


def greedy_alone(model, prompt, *, steps):
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == END:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("adapter", [None, "one"])
def test_greedy_in_a_batch_is_greedy_alone(model, adapter):
    with speaking_as(model, adapter):
        together = sample(model, PROMPTS, decoding=decoding(temperature=0.0))
        assert together == [greedy_alone(model, prompt, steps=10) for prompt in PROMPTS]


def test_rows_end_by_themselves_and_the_others_go_on(model):
    """Some token that the greedy replies contain is made the end of the turn: replies stop right there."""
    with speaking_as(model, None):
        free = sample(model, PROMPTS, decoding=decoding(temperature=0.0))
        end = free[1][4]
        ended = sample(model, PROMPTS, decoding=decoding(temperature=0.0, ends=frozenset({end})))
    for reply, whole in zip(ended, free, strict=True):
        stop = whole.index(end) + 1 if end in whole else len(whole)
        assert reply == whole[:stop]


def test_the_seed_decides_and_batches_keep_the_order(model):
    with speaking_as(model, "one"):
        first = sample(model, PROMPTS, decoding=decoding())
        assert sample(model, PROMPTS, decoding=decoding()) == first
        assert sample(model, PROMPTS, decoding=decoding(seed=4)) != first
        one_by_one = sample(model, PROMPTS, decoding=decoding(temperature=0.0), rows=1)
        assert one_by_one == sample(model, PROMPTS, decoding=decoding(temperature=0.0))


def test_the_nucleus_leaves_out_the_tail(model):
    with speaking_as(model, None):
        narrow = sample(model, PROMPTS, decoding=decoding(top_p=1e-6))
        assert narrow == sample(model, PROMPTS, decoding=decoding(temperature=0.0))


def test_each_step_can_stop_it(model):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with speaking_as(model, None), pytest.raises(KeyboardInterrupt):
        sample(model, PROMPTS, decoding=decoding(), each_step=stop)


def test_logprobs_are_those_of_an_unpadded_row(model):
    replies = [PROMPTS[1][:4], PROMPTS[0][:1], []]
    with speaking_as(model, "one"):
        scores = token_logprobs(model, PROMPTS, replies, pad=PAD)
        for prompt, reply, score in zip(PROMPTS[:2], replies[:2], scores[:2], strict=True):
            logits = model(torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
            alone = [float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(reply)]
            assert score.tolist() == pytest.approx(alone, abs=1e-4)
    assert scores[2].numel() == 0


def test_divergence_is_zero_to_itself_and_that_of_the_definition_otherwise(model):
    replies = [prompt[:3] for prompt in PROMPTS]
    assert kl_per_reply(model, PROMPTS, replies, of="one", to="one", pad=PAD) == pytest.approx(
        [0, 0, 0], abs=1e-5
    )
    measured = kl_per_reply(model, PROMPTS, replies, of="one", to=None, pad=PAD)
    for prompt, reply, value in zip(PROMPTS, replies, measured, strict=True):
        ids = torch.tensor([prompt + reply])
        with speaking_as(model, "one"):
            p = model(ids).logits[0, len(prompt) - 1 : -1].softmax(-1)
        with speaking_as(model, None):
            q = model(ids).logits[0, len(prompt) - 1 : -1].softmax(-1)
        assert value == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-3)
        assert value > 0


def test_reply_states_are_means_over_the_reply_alone(model):
    long = (PROMPTS[1] + PROMPTS[2])[:12]
    with speaking_as(model, None):
        states = reply_states(model, PROMPTS[:2], [long, PROMPTS[0][:1]], pad=PAD)
        layers = model(torch.tensor([PROMPTS[0] + long]), output_hidden_states=True).hidden_states
    lower, last = (layers[at][0, len(PROMPTS[0]) :] for at in (len(layers) // 4, -1))
    expected = torch.cat([lower.mean(0), last.mean(0), lower[:8].mean(0)])
    assert torch.allclose(states[0], expected, atol=1e-4)


def test_forgotten_is_what_one_version_is_sure_of_and_the_other_would_not_say(model):
    with speaking_as(model, None):
        replies = sample(model, PROMPTS, decoding=decoding(temperature=0.0))
    assert forgotten_share(model, PROMPTS, replies, of=None, to=None, pad=PAD) == 0.0
    sure = lost = 0
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        ids, place = torch.tensor([[*prompt, *reply]]), slice(len(prompt) - 1, -1)
        with speaking_as(model, None):
            before = model(ids).logits[0, place].softmax(-1).max(-1)
        with speaking_as(model, "one"):
            after = model(ids).logits[0, place].argmax(-1)
        sure += int((before.values > 0.9).sum())
        lost += int(((before.values > 0.9) & (before.indices != after)).sum())
    assert 0 < lost <= sure
    assert forgotten_share(model, PROMPTS, replies, of=None, to="one", pad=PAD) == lost / sure


def test_nothing_is_forgotten_or_kept_where_nothing_was_said(model):
    assert forgotten_share(model, PROMPTS, [[], [], []], of=None, to="one", pad=PAD) is None
