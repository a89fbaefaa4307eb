"""Command line of the mini model: `python -m training.mini [train|corpus|card]`, `train` where none is named.

Wires the parts together and talks to the terminal; decides nothing about corpus or model.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Sequence
from pathlib import Path

MODEL_FOLDER = Path(__file__).resolve().parents[2] / "models" / "mini"


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0].startswith("--"):
        given = given if given in (["--help"], ["-h"]) else ["train", *given]
    options = _parser().parse_args(given)
    command = {"train": _train, "corpus": _corpus, "card": _card}[options.command]
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.mini", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="learn the tokenizer, write the corpus and train the model")
    train.add_argument("--preset", choices=("tiny", "quick", "full"), default="full")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument(
        "--out", type=Path, default=MODEL_FOLDER, help="folder for the model (default: %(default)s)"
    )
    train.add_argument(
        "--checkpoint", type=Path, help="file to go on from, and to keep the state in on the way"
    )
    corpus = commands.add_parser("corpus", help="print dialogues of the corpus")
    corpus.add_argument("--count", type=int, default=20)
    corpus.add_argument("--seed", type=int, default=0)
    corpus.add_argument("--held-out", action="store_true", help="in the phrasings that training leaves out")
    card = commands.add_parser("card", help="measure a model and write its card")
    card.add_argument("--model", type=Path, default=MODEL_FOLDER)
    card.add_argument("--seed", type=int, default=0)
    card.add_argument("--scale", type=float, default=1.0, help="share of the full sample sizes")
    card.add_argument(
        "--read-by-eye", help='what a reader found, such as "97 of 100 replies without a mistake"'
    )
    return parser


def _train(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from training.mini.heldout import world
    from training.mini.model import save
    from training.mini.recipe import PRESETS
    from training.mini.train import build_tokenizer, train

    recipe = dataclasses.replace(PRESETS[options.preset], seed=options.seed)
    print(f"Learning a tokenizer of {recipe.vocabulary} tokens ...", flush=True)
    tokenizer = build_tokenizer(recipe, world())
    with tqdm(total=recipe.steps, unit="step") as bar:
        for model, progress in train(recipe, world(), tokenizer, checkpoint=options.checkpoint):
            bar.update(progress.step - bar.n)
            bar.set_postfix(loss=f"{progress.loss:.3f}", tokens=f"{progress.tokens / 1e6:.1f}M")
            if progress.step == recipe.steps:
                save(model, tokenizer, options.out)
    print(f"Saved to {options.out}. Its card: python -m training.mini card --model {options.out}")
    return 0


def _corpus(options: argparse.Namespace) -> int:
    from training.mini.dialogue import Writer
    from training.mini.heldout import world

    writer = Writer(world(), random.Random(options.seed), held_out_phrasings=options.held_out)
    for _ in range(options.count):
        print("\n".join(f"{message.role}: {message.content}" for message in writer.dialogue()), end="\n\n")
    return 0


def _card(options: argparse.Namespace) -> int:
    from training.mini.card import write_card

    print(write_card(options.model, seed=options.seed, scale=options.scale, read_by_eye=options.read_by_eye))
    return 0


if __name__ == "__main__":
    sys.exit(main())
