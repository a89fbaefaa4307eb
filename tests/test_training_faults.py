"""Memory that runs out and losses that are no number: what is done again, in which pieces, and what is kept."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from judged import DISLIKED, LIKED, fill_ledger, quick_settings
from safetensors.torch import load_file
from test_ppo import PTX, QUICK, prompts_of
from test_run import LENIENT
from test_run import QUICK as QUICK_FLAGS
from tiny import save_tiny_base

from memory.database import open_database
from memory.runs import Runs
from memory.schema import Message
from training import dpo, kto, sft
from training.actor_critic import beside
from training.base import load_base
from training.divergence import LastGood
from training.execution import EXIT_CODES, explain
from training.generation import Decoding, sample
from training.method import CANDIDATE, TrainingDiverged, adapter_parameters
from training.out_of_memory import Accumulated, MicroBatch, is_out_of_memory, parts_of
from training.pairs import EncodedReply, encode_pairs
from training.ppo import optimize
from training.reward_fitting import EncodedOrdering, fit
from training.reward_model import REWARD
from training.run import main
from training.views import PreferenceRow

SETTINGS = quick_settings(batch_size=4, min_steps=2, learning_rate=1e-2)
NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """bfloat16 rounds by the width that rows are padded to, and halves are padded to other widths."""
    monkeypatch.setattr("training.trl_training.multiplies_bfloat16", lambda device: False)


def base_of(folder, settings=SETTINGS):
    return load_base(settings.model_copy(update={"model": str(folder)}))


def with_room_for(model, rows: int):
    """Let every pass of `model` over more than `rows` rows run out of memory; how many rows were tried."""
    tried: list[int] = []

    def guard(module, arguments, named):
        ids = named["input_ids"] if "input_ids" in named else arguments[0]
        tried.append(len(ids))
        if len(ids) > rows:
            raise NO_ROOM

    model.get_input_embeddings().register_forward_pre_hook(
        lambda module, arguments: guard(module, arguments, {}), prepend=True
    )
    return tried


def test_errors_that_say_so_are_known_by_their_type_or_words():
    assert is_out_of_memory(NO_ROOM)
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as refused:  # torch's own, on this very machine
        torch.empty(1 << 50)
    assert is_out_of_memory(refused.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    for error in (NO_ROOM, MemoryError(), refused.value):
        assert "even with the smallest batches" in explain(error)


def test_pieces_are_halved_once_a_level_and_every_item_is_done_once(caplog):
    caplog.set_level(logging.WARNING, logger="training")
    done: list[int] = []

    def work(piece):
        if len(piece) > 2:
            raise NO_ROOM
        done.extend(piece)

    micro = MicroBatch(8)
    micro.over(list(range(11)), work)
    micro.over([11, 12, 13], work)
    assert done == list(range(14))
    assert micro.rows == 2
    assert [record.getMessage() for record in caplog.records] == [
        "Memory ran out with 8 rows at a time. Going on with 4.",
        "Memory ran out with 4 rows at a time. Going on with 2.",
    ]


def test_a_single_row_that_does_not_fit_and_any_other_error_are_raised():
    def never(*_):
        raise NO_ROOM

    with pytest.raises(torch.OutOfMemoryError):
        MicroBatch(4).over([1, 2, 3], never)

    def wrong(*_):
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        MicroBatch(4).over([1], wrong)


def test_parts_of_a_batch_keep_chosen_with_rejected():
    """Two blocks of three rows in the ids, three rows of scores, a number and a list."""
    batch = {
        "input_ids": torch.tensor([[1], [2], [3], [-1], [-2], [-3]]),
        "scores": torch.tensor([10.0, 20.0, 30.0]),
        "count": torch.tensor(7),
        "names": ["a", "b", "c"],
    }
    first, second = parts_of(batch, 2)
    assert (first["input_ids"].flatten().tolist(), second["input_ids"].flatten().tolist()) == (
        [1, 2, -1, -2],
        [3, -3],
    )
    assert (first["scores"].tolist(), second["scores"].tolist()) == ([10.0, 20.0], [30.0])
    assert first["names"] == ["a", "b"]
    assert int(first["count"]) == int(second["count"]) == 7
    assert len(list(parts_of(batch, 9))) == 3


def test_gradients_of_a_failed_attempt_are_taken_back():
    first, second = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    first.grad = torch.tensor([1.0, 2.0])
    before = Accumulated([first, second])
    (first.sum() + second.sum()).backward()
    before.restore()
    assert first.grad.tolist() == [1.0, 2.0]
    assert second.grad is None


def pairs_of(base):
    rows = [
        PreferenceRow((Message("user", f"What about {n}?"),), LIKED[n % 3], DISLIKED[n % 3], str(n), str(n))
        for n in range(4)
    ]
    return encode_pairs(base.tokenizer, rows, context_tokens=256)[1]


def replies_of(base):
    pairs = pairs_of(base)
    return [
        EncodedReply(pair.prompt, pair.chosen if n % 2 else pair.rejected, bool(n % 2))
        for n, pair in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("method", "rows", "room"), [(dpo, pairs_of, 4), (kto, replies_of, 2), (sft, replies_of, 2)]
)
def test_a_trl_trainer_goes_on_in_halves_with_the_same_effective_batch(
    folder, tmp_path, caplog, method, rows, room
):
    """As `gradient_accumulation` doubled with half the batch: TRL computes pairs as two rows each, so four rows are
    two pairs. Every step is over all rows, in whatever halves, so the loss is the same up to rounding; KTO's is not,
    which estimates a divergence over the rows of a pass.
    """
    caplog.set_level(logging.WARNING, logger="training")
    plain = SETTINGS.model_copy(update={"sft_weight": 0.0})
    half = plain.model_copy(update={"batch_size": 2, "gradient_accumulation": 2})
    found = []
    for settings, limit in ((half, None), (plain, room)):
        base = base_of(folder)
        tried = with_room_for(base.model, limit) if limit else []
        steps: list = []
        model = method.train(
            base, rows(base), settings=settings, folder=tmp_path / str(limit), on_step=steps.append
        )
        found.append(([step.values["loss"] for step in steps], adapter_parameters(model, CANDIDATE)))
        if limit:
            assert max(tried) > limit
    warned = [record.getMessage() for record in caplog.records if "Memory ran out" in record.getMessage()]
    assert 1 <= len(warned) <= 3, "once a level where the reference is scored, and once a level in the steps"
    (losses, weights), (halved_losses, halved_weights) = found
    if method is not kto:
        assert halved_losses == pytest.approx(losses, rel=1e-4)
    for one, other in zip(weights, halved_weights, strict=True):
        assert torch.isfinite(other).all()
        if method is not kto:
            assert (one - other).norm() <= 1e-3 * one.norm()


def pieces(base, settings):
    prompt = tuple(prompts_of(base, 1)[0])
    pairs = [((40, 41, 2), (50, 2)), ((42, 2), (51, 52, 2)), ((43, 2), (53, 2)), ((44, 2), (54, 2))]
    return [EncodedOrdering(prompt, pair, False, 1.0 + number) for number, pair in enumerate(pairs)]


def by_own_loops(folder, room: int | None, mode: str):
    """(reward model's, policy's and critic's parameters) after a fit and two iterations of PPO."""
    settings = quick_settings(
        **{**QUICK, "min_steps": 2, "ppo_epochs": 1},
        policy_update=mode,
        reward_epochs=0.1,
        reward_learning_rate=1e-2,
    )
    base = base_of(folder, settings)
    if room:
        with_room_for(base.model, room)
    reward_model = fit(base, pieces(base, settings), settings=settings)
    fitted = [value.detach().clone() for value in adapter_parameters(reward_model.model, REWARD)]
    actors = beside(reward_model, settings=settings, previous=None)
    optimize(actors, reward_model, prompts_of(base), ptx=PTX, settings=settings)
    return [*fitted, *actors.policy_parameters(), *actors.critic_parameters()]


@pytest.mark.parametrize("mode", ["ppo", pytest.param("trpo", marks=pytest.mark.slow)])
def test_our_own_loops_take_the_same_steps_in_smaller_pieces(folder, caplog, mode):
    """Everywhere: the fit, sampling, scoring, policy, critic and PTX. Shares add up, so nothing else changes."""
    caplog.set_level(logging.WARNING, logger="training")
    whole, halved = by_own_loops(folder, None, mode), by_own_loops(folder, 2, mode)
    assert any("Going on with 2" in record.getMessage() for record in caplog.records)
    for one, other in zip(whole, halved, strict=True):
        assert (one - other).norm() <= 1e-3 * one.norm()


def test_sampling_goes_on_in_halves_with_the_same_replies(folder):
    base = base_of(folder)
    decoding = Decoding(1.0, 0.9, 6, base.ends, base.tokenizer.pad_token_id, seed=4)
    free = sample(base.model, prompts_of(base), decoding=decoding)
    with_room_for(base.model, 3)
    assert sample(base.model, prompts_of(base), decoding=decoding) == free


def test_the_last_good_values_are_those_before_the_break():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    good = LastGood([weight])
    with torch.no_grad():
        weight.add_(1)
    good.keep()
    with torch.no_grad():
        weight.fill_(math.nan)
    good.restore()
    assert weight.tolist() == [2.0, 3.0]
    weight.grad = torch.tensor([0.0, math.inf])
    assert not good.gradients_are_finite()


def test_a_training_that_breaks_gives_back_what_it_had_before(folder, tmp_path):
    """The third pass gives no number. Two steps were made; the weights that broke are those of the second, so the
    last good ones are those after the first, which a training of one step ends with."""
    settings = SETTINGS.model_copy(update={"min_steps": 4, "learning_rate": 1e-2})
    base = base_of(folder)
    steps: list = []

    def poison(step):
        steps.append(step)
        if step.step == 2:
            words = base.model.get_input_embeddings()
            words.register_forward_hook(lambda module, arguments, output: output * math.nan)

    kept: list = []

    def note(step):
        poison(step)
        kept.append(
            [value.detach().clone() for name, value in base.model.named_parameters() if "lora_" in name]
        )

    with pytest.raises(TrainingDiverged, match=r"at step 3/4.*Lower learning_rate") as broken:
        dpo.train(base, pairs_of(base), settings=settings, folder=tmp_path, on_step=note)
    assert [step.step for step in steps] == [1, 2]
    good = adapter_parameters(broken.value.last_good, CANDIDATE)
    assert all(torch.equal(now, then) for now, then in zip(good, kept[0], strict=True))
    assert not all(torch.equal(now, then) for now, then in zip(good, kept[1], strict=True))


def test_a_run_that_breaks_keeps_the_last_good_adapter_and_serves_nothing(tmp_path, folder):
    database = open_database(f"sqlite:///{tmp_path / 'thumbprint.db'}")
    fill_ledger(database, comparisons=30)
    flags = ["--data-dir", str(tmp_path), "--model", str(folder), *QUICK_FLAGS, *LENIENT, "--method", "dpo"]
    assert main([*flags, "--learning-rate", "1e30", "--min-steps", "20"]) == EXIT_CODES["failed"]
    (run,) = Runs(database).list()
    kept = Path(run.folder) / "candidate"
    assert f"The adapter from before is kept in {kept}; nobody has examined it." in run.message
    assert all(value.isfinite().all() for value in load_file(kept / "adapter_model.safetensors").values())
    assert Runs(database).served() is None
    assert not list((tmp_path / "adapters").glob("v*"))
    database.close()
