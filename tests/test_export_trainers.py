"""TRL's own trainers take what `memory.export` writes, without a hand edit: one step each on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny_base

from memory.database import open_database
from memory.export import export
from memory.import_ import import_file
from memory.ledger import Ledger
from memory.schema import Correction

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each training format, made of an imported ledger."""
    folder = tmp_path_factory.mktemp("exported")
    database = open_database(f"sqlite:///{folder / 'ledger.db'}")
    rows: list[dict[str, Any]] = []
    for number in range(12):
        prompt = [{"role": "user", "content": f"What is thing {number}?"}]
        good, bad = f"It is tea {number}.", f"No idea {number}!"
        rows.append({"prompt": prompt, "chosen": good, "rejected": bad})
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    thumbs = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]
    (folder / "thumbs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in thumbs))
    for name in ("pairs", "thumbs"):
        import_file(database, folder / f"{name}.jsonl", quiet=True)
    ledger = Ledger(database)
    for rating in ledger.ratings():
        ledger.record(Correction(rating.turn_id, "It is coffee.", "me", 1.0))
    for format in ("preference", "unpaired", "sft"):
        export(database, format, folder / f"{format}.parquet", quiet=True)  # type: ignore[arg-type]
    database.close()
    return folder


@pytest.mark.parametrize(
    ("format", "trainer", "batch"),
    [
        ("preference", "DPO", 4),
        ("preference", "Reward", 4),
        ("unpaired", "KTO", 4),
        ("sft", "SFT", 4),
    ],
)
def test_a_trainer_takes_the_file_as_it_is(
    exported: Path, tmp_path: Path, format: str, trainer: str, batch: int
) -> None:
    import trl
    from datasets import load_dataset

    file = str(exported / f"{format}.parquet")
    rows = load_dataset("parquet", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    base = str(save_tiny_base(tmp_path / "base"))
    arguments = getattr(trl, f"{trainer}Config")(
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=batch,
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        logging_steps=1,
    )
    made = getattr(trl, f"{trainer}Trainer")(model=base, args=arguments, train_dataset=rows)
    result = made.train()
    assert result.global_step == 1
    assert 0 < result.training_loss < 100
