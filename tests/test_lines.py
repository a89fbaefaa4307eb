"""Prompts and replies as lines: what comes out for a row is what the model says of that row alone."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from training.lines import action_logits, action_logprobs, hidden_states, lines_of, of_actions
from training.method import lora_config
from training.settings import TrainingSettings

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13]]
REPLIES = [[20, 21], [22, 23, 24, 25, 2]]


@pytest.fixture(scope="module")
def model():
    from peft import get_peft_model

    adapted = get_peft_model(tiny_model(tiny_tokenizer()), lora_config(TrainingSettings(lora_rank=2)))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return adapted.eval()


@pytest.fixture(scope="module")
def lines():
    return lines_of(PROMPTS, REPLIES, pad=0, device=torch.device("cpu"))


def test_places_and_masks(lines):
    """Action k of a reply is decided on k places behind the prompt's last token."""
    assert lines.ids.shape == (2, 9)
    assert lines.ids[1].tolist() == [12, 13, 22, 23, 24, 25, 2, 0, 0]
    assert lines.mask.tolist() == [[True, True, False, False, False], [True] * 5]
    assert lines.before.tolist() == [[6, 7, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert lines.last.tolist() == [8, 6]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logits_and_log_probabilities_are_those_of_each_row_alone(model, lines, temperature):
    with torch.no_grad():
        logits = action_logits(model, lines, temperature=temperature)
        found = action_logprobs(logits, lines)
        assert torch.equal(found, of_actions(logits.log_softmax(-1), lines))
        for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
            alone = model(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
            assert torch.allclose(logits[row, : len(reply)], alone / temperature, atol=1e-4)
            expected = (alone / temperature).log_softmax(-1).gather(-1, torch.tensor(reply)[:, None])[:, 0]
            assert torch.allclose(found[row, : len(reply)], expected, atol=1e-4)
            assert found[row, len(reply) :].eq(0).all()


def test_the_output_layer_sees_actions_alone_and_is_left_as_it_was(model, lines):
    seen = []
    layer = model.get_base_model().get_output_embeddings()
    with layer.register_forward_hook(lambda _, given, output: seen.append(output.shape[:2])), torch.no_grad():
        action_logits(model, lines)
        model(input_ids=lines.ids)
    assert [tuple(shape) for shape in seen] == [(2, 5), (2, 9)]
    assert not layer._forward_pre_hooks


def test_padding_changes_no_state(model, lines):
    with torch.no_grad():
        states = hidden_states(model, lines)
        for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
            alone = lines_of([prompt], [reply], pad=0, device=torch.device("cpu"))
            assert torch.allclose(
                states[row, : len(prompt) + len(reply)], hidden_states(model, alone)[0], atol=1e-4
            )
