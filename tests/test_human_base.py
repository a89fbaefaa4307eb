"""A base of its own for the benchmark on human judgements: made of the training parts' texts, and loadable."""

from __future__ import annotations

import gzip
import json
import math

import pytest

from benchmarks.human_base import make_base, texts_of
from training.base import load_base
from training.mini.dialogue import Message
from training.settings import TrainingSettings


@pytest.fixture
def folder(tmp_path):
    def row(number, dialogue):
        return {
            "prompt": [{"role": "user", "content": f"Question {number % 40}?"}],
            "chosen": [{"role": "assistant", "content": f"Good {number}."}],
            "rejected": [{"role": "assistant", "content": f"Bad {number}."}],
            "dialogue": dialogue,
        }

    files = {
        "accentor_pairs": [row(number, f"t{number}") for number in range(60)],
        "accentor_pairs_dev": [row(7, "d")],
        "accentor_thumbs": [],
    }
    for name, rows in files.items():
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(each) + "\n" for each in rows)
    return tmp_path


def test_one_text_for_every_prompt_and_none_of_the_test_part(folder):
    texts = texts_of(folder, ["accentor"])
    assert len(texts) == 39
    assert "Question 7?" not in {message.content for text in texts for message in text}
    assert texts[0] == [Message("user", "Question 0?"), Message("assistant", "Good 0.")]


def test_the_base_is_trained_and_can_be_loaded(folder, tmp_path):
    trained = make_base(texts_of(folder, ["accentor"]) * 20, tmp_path / "own", cpu_seconds=1.0)
    assert trained.texts == 780
    assert trained.tokens > 0
    assert trained.loss < math.log(4096)  # what a model that knows nothing has
    base = load_base(TrainingSettings(model=str(tmp_path / "own"), quantization="none"))
    assert base.model.config.hidden_size == 192
    assert sum(parameter.numel() for parameter in base.model.parameters()) == trained.parameters
