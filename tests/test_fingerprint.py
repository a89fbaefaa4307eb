"""The fingerprint: the same weights give the same numbers anywhere, other weights give others, and both are noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from tests.tiny import save_tiny_adapter, tiny_model, tiny_tokenizer
from training.fingerprint import (
    CANARIES,
    FingerprintMismatch,
    canary_logprobs,
    check,
    digest,
    distance,
    tolerance_for,
)
from training.prompt import encode_text

BASE = [-10.0, -20.0, -30.0, -40.0]
ADAPTED = [-11.0, -20.5, -30.0, -39.0]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture
def adapted(tokenizer: Any, tmp_path: Path) -> PeftModel:
    """A tiny model with two adapters, x (active) and y."""
    model = tiny_model(tokenizer)
    for name, seed in (("x", 1), ("y", 2)):
        save_tiny_adapter(tmp_path / name, model, seed=seed)
    adapted = PeftModel.from_pretrained(model, tmp_path / "x", adapter_name="x")
    adapted.load_adapter(tmp_path / "y", adapter_name="y")
    return adapted


def test_number_is_the_summed_log_probability_of_the_continuation(tokenizer: Any) -> None:
    model = tiny_model(tokenizer)
    prompt, continuation = (encode_text(tokenizer, text) for text in CANARIES[2])
    with torch.inference_mode():
        total = 0.0
        for count, token in enumerate(continuation):
            logits = model(input_ids=torch.tensor([prompt + continuation[:count]])).logits[0, -1]
            total += logits.log_softmax(-1)[token].item()
    assert canary_logprobs(model, tokenizer, adapter=None)[2] == pytest.approx(total, abs=1e-3)


def test_each_adapter_and_the_base_have_numbers_of_their_own(tokenizer: Any, adapted: PeftModel) -> None:
    plain = canary_logprobs(tiny_model(tokenizer), tokenizer, adapter=None)
    x, y = (canary_logprobs(adapted, tokenizer, adapter=name) for name in "xy")
    assert canary_logprobs(adapted, tokenizer, adapter=None) == plain
    assert min(distance(x, plain), distance(y, plain), distance(x, y)) > 1
    assert len({digest(x), digest(y), digest(plain)}) == 3


def test_looking_changes_nothing(tokenizer: Any, adapted: PeftModel) -> None:
    adapted.train()
    adapted.set_adapter("y")
    state = torch.get_rng_state()
    frozen = {name for name, parameter in adapted.named_parameters() if not parameter.requires_grad}
    before = (
        canary_logprobs(adapted, tokenizer, adapter="x"),
        canary_logprobs(adapted, tokenizer, adapter=None),
    )
    after = (
        canary_logprobs(adapted, tokenizer, adapter="x"),
        canary_logprobs(adapted, tokenizer, adapter=None),
    )
    assert before == after
    assert adapted.training and adapted.active_adapter == "y"
    assert {name for name, parameter in adapted.named_parameters() if not parameter.requires_grad} == frozen
    assert torch.equal(torch.get_rng_state(), state)


def test_adapter_that_is_not_there_is_an_error_and_never_the_base(tokenizer: Any, adapted: PeftModel) -> None:
    with pytest.raises(ValueError, match="it has: x, y"):
        canary_logprobs(adapted, tokenizer, adapter="z")
    with pytest.raises(ValueError, match="has no adapters"):
        canary_logprobs(tiny_model(tokenizer), tokenizer, adapter="x")
    with adapted.disable_adapter(), pytest.raises(ValueError, match="switched off"):
        canary_logprobs(adapted, tokenizer, adapter="x")


def test_threads_move_the_numbers_far_less_than_the_tolerance(tokenizer: Any) -> None:
    model, threads = tiny_model(tokenizer, width=64), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = canary_logprobs(model, tokenizer, adapter=None)
        torch.set_num_threads(2)
        two = canary_logprobs(model, tokenizer, adapter=None)
    finally:
        torch.set_num_threads(threads)
    assert distance(one, two) < tolerance_for(model) / 10


@pytest.mark.slow
def test_another_process_computes_the_same_numbers(tokenizer: Any) -> None:
    code = (
        "from tests.tiny import *; from training.fingerprint import canary_logprobs\n"
        "t = tiny_tokenizer(); print(canary_logprobs(tiny_model(t), t, adapter=None))"
    )
    root = str(Path(__file__).resolve().parent.parent)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    numbers = [float(each) for each in found.stdout.strip().strip("[]").split(",")]
    mine = canary_logprobs(tiny_model(tokenizer), tokenizer, adapter=None)
    assert distance(numbers, mine) < 1e-4


def test_digest_is_of_the_very_numbers_and_survives_json() -> None:
    import json

    assert digest(ADAPTED) == digest(json.loads(json.dumps(ADAPTED)))
    assert digest(ADAPTED) != digest(BASE)
    assert len(digest(BASE)) == 8 and int(digest(BASE), 16) >= 0


def test_the_tolerance_is_the_line_between_a_match_and_a_mismatch() -> None:
    near = [value + 0.0005 for value in ADAPTED]
    assert check(ADAPTED, near, base=BASE, tolerance=1e-3) is None
    with pytest.raises(FingerprintMismatch):
        check(ADAPTED, near, base=BASE, tolerance=1e-4)


def test_mismatch_is_refused() -> None:
    with pytest.raises(FingerprintMismatch, match=r"off by 0\.5 nats"):
        check(ADAPTED, [-11.5, -20.5, -30.0, -39.0], base=BASE, tolerance=1e-3)


def test_adapter_without_effect_is_refused_even_if_it_was_published_so() -> None:
    with pytest.raises(FingerprintMismatch, match="no effect"):
        check(BASE, BASE, base=BASE, tolerance=1e-3)
    with pytest.raises(FingerprintMismatch, match="no effect"):
        check(ADAPTED, [value + 0.0009 for value in BASE], base=BASE, tolerance=1e-3)


@pytest.mark.parametrize("broken", [[float("nan")] * 4, [float("-inf")] * 4])
def test_numbers_that_are_none_are_refused(broken: list[float]) -> None:
    with pytest.raises(FingerprintMismatch, match="not numbers"):
        check(ADAPTED, broken, base=BASE, tolerance=1e-3)


def test_other_count_of_canaries_is_refused() -> None:
    with pytest.raises(FingerprintMismatch, match="another release"):
        check(ADAPTED[:3], ADAPTED, base=BASE, tolerance=1e-3)
