"""What a reward model may also learn from, and what its head may read: thumbs, and the mean over a reply."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from judged import DISLIKED, LIKED, quick_settings, turn
from tiny import save_tiny_base

from memory.schema import Message, Rating
from training.base import load_base
from training.lines import hidden_states, lines_of
from training.orderings import Ordering, orderings_of
from training.reward_examination import examine
from training.reward_fitting import encode_orderings, fit
from training.reward_model import REWARD, RewardModel, RewardModelRefused
from training.reward_phrases import Phrases, runs_of
from training.views import Feedback

SETTINGS = quick_settings(batch_size=4, min_steps=40, reward_epochs=1.0, reward_learning_rate=1e-2)
STILL = SETTINGS.model_copy(update={"reward_learning_rate": 1e-30, "min_steps": 1, "reward_epochs": 0.1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(folder):
    return load_base(SETTINGS.model_copy(update={"model": str(folder)}))


def ordering(number, *replies, liked=None):
    prompt = (Message("user", f"What about {number}?"),)
    return Ordering(prompt, replies, (True,) * len(replies), "ann", str(number), f"row:{number}", liked=liked)


def pairs():
    return [ordering(number, LIKED[number % 3], DISLIKED[number % 3]) for number in range(4)]


def thumbs(*, down=True):
    ups = [ordering(10 + number, LIKED[number], liked=True) for number in range(3)]
    return [*ups, *(ordering(20 + n, DISLIKED[n], liked=False) for n in range(3) if down)]


def test_the_mean_reads_every_token_of_the_reply_and_none_of_the_prompt(base):
    items = encode_orderings(base, pairs(), settings=STILL)
    mean = fit(base, items, settings=STILL.model_copy(update={"reward_pooling": "mean"}))
    prompts, replies = [item.prompt for item in items], [item.replies[0] for item in items]
    found = mean.score(prompts, replies)
    for prompt, reply, reward in zip(prompts, replies, found, strict=True):
        mean.model.set_adapter(REWARD)
        with torch.no_grad():
            lines = lines_of([prompt], [reply], pad=base.tokenizer.pad_token_id, device=base.device)
            states = hidden_states(mean.model, lines)[0, len(prompt) :]
            assert reward == pytest.approx(float(mean.head(states).mean()), abs=1e-5)


def test_what_the_head_reads_is_saved_with_it_and_an_unknown_way_is_refused(base, folder, tmp_path):
    items = encode_orderings(base, pairs(), settings=STILL)
    fitted = fit(base, items, settings=STILL.model_copy(update={"reward_pooling": "mean"}))
    saved = fitted.save(tmp_path / "r", report=examine(fitted, items), feedback_ids=[])
    rewards = fitted.score([item.prompt for item in items], [item.replies[0] for item in items])
    again = load_base(SETTINGS.model_copy(update={"model": str(folder)}))
    loaded, _ = RewardModel.load(again, saved)
    assert loaded.pooling == "mean"
    assert loaded.score([item.prompt for item in items], [item.replies[0] for item in items]) == rewards
    manifest = json.loads((saved / "reward_model.json").read_text())
    (saved / "reward_model.json").write_text(json.dumps({**manifest, "pooling": "first"}))
    with pytest.raises(RewardModelRefused, match="reads replies by 'first'"):
        RewardModel.load(load_base(SETTINGS.model_copy(update={"model": str(folder)})), saved)


def test_phrases_tell_replies_apart_when_the_base_may_not_learn(base, tmp_path, folder):
    """Without LoRA or head moving (a learning rate of nothing but for the table) the table alone orders all pairs."""
    settings = SETTINGS.model_copy(update={"reward_phrases": 2, "reward_learning_rate": 1e-3})
    items = encode_orderings(base, pairs(), settings=settings)
    fitted = fit(base, items, settings=settings)
    worth = {
        item.prompt: [float(fitted.phrases([reply])[0].detach()) for reply in item.replies] for item in items
    }
    assert all(better > worse for better, worse in worth.values())
    report = examine(fitted, items)
    saved = fitted.save(tmp_path / "r", report=report, feedback_ids=[])
    loaded, _ = RewardModel.load(load_base(SETTINGS.model_copy(update={"model": str(folder)})), saved)
    assert torch.equal(loaded.phrases.worth, fitted.phrases.worth)
    prompts, replies = [item.prompt for item in items], [item.replies[0] for item in items]
    assert loaded.score(prompts, replies) == fitted.score(prompts, replies)


def test_the_worth_of_phrases_is_a_sum_over_different_runs_over_the_root_of_their_number():
    """Of (7, 7) with runs of at most 2: start, start 7, 7, 7 7; worth 1, 2, 3 and 4: 10 / sqrt(4)."""
    phrases = Phrases(2, device=torch.device("cpu"))
    runs = runs_of((7, 7), 2)
    assert len(runs) == 4
    with torch.no_grad():
        phrases.worth[torch.tensor(runs)] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert phrases([(7, 7)]).tolist() == pytest.approx([5.0])
    assert runs_of((7, 7, 7), 2) == runs
    assert runs_of((7, 8), 1) == runs_of((8, 7), 1) != runs_of((7, 9), 1)
    assert runs_of((7, 8), 2) != runs_of((8, 7), 2)


def test_thumbs_alone_teach_what_is_liked(base):
    items = encode_orderings(base, thumbs(), settings=SETTINGS)
    report = examine(fit(base, items, settings=SETTINGS), items)
    assert (report.thumbs, report.thumb_accuracy) == (6, 1.0)
    assert (report.pairs, report.accuracy) == (0, None)


def test_the_first_loss_of_thumbs_is_what_the_rewards_say(base):
    """Half of the thumbs are up, so the bias begins at log(1) = 0: log(1 + e^-r) for the one up, log(1 + e^r) for the
    one down, and their mean."""
    losses: list[float] = []
    items = encode_orderings(base, [thumbs()[0], thumbs()[3]], settings=STILL)
    fitted = fit(
        base, items, settings=STILL, on_step=lambda step: losses.append(step.values["reward_model/loss"])
    )
    up, down = fitted.score([item.prompt for item in items], [item.replies[0] for item in items])
    centred = float(fitted.head.bias.detach())
    expected = (math.log1p(math.exp(-(up - centred))) + math.log1p(math.exp(down - centred))) / 2
    assert losses == pytest.approx([expected], abs=1e-5)


def test_thumbs_of_one_kind_are_left_out_beside_pairs_and_refused_alone(base, folder):
    with pytest.raises(ValueError, match="nor thumbs both up and down"):
        fit(base, encode_orderings(base, thumbs(down=False), settings=STILL), settings=STILL)
    again = [load_base(SETTINGS.model_copy(update={"model": str(folder)})) for _ in range(2)]
    heads = [
        fit(b, encode_orderings(b, rows, settings=SETTINGS), settings=SETTINGS).head.weight
        for b, rows in zip(again, (pairs(), [*pairs(), *thumbs(down=False)]), strict=True)
    ]
    assert torch.equal(heads[0], heads[1])


def test_damaged_copies_are_part_of_the_examination(base):
    items = encode_orderings(base, pairs(), settings=SETTINGS)
    report = examine(fit(base, items, settings=SETTINGS), items, known=items[:2])
    assert set(report.edited) == {"shuffled", "cut", "doubled", "off_topic"}
    assert all(0.0 <= share <= 1.0 for share in report.edited.values())


def test_a_thumb_is_an_ordering_of_one():
    answer, failed = turn("a", "c", "Hm?", "One"), turn("b", "c", "Hm?", "Two", finish="error")
    turns = {made.id: made for made in (answer, failed)}
    ratings = tuple(Rating(turn_id, value, "ann", 1.0) for turn_id, value in (("a", -1), ("b", 1), ("z", 1)))
    (found,) = orderings_of(Feedback(ratings=ratings, turns=turns))
    assert (found.replies, found.liked, found.feedback_id, found.pairs) == (("One",), False, "rating:a", 0)
    cut = replace(answer, finish="length")
    (found,) = orderings_of(Feedback(ratings=ratings[:1], turns={"a": cut}))
    assert found.finished == (False,)
