"""Everything that decides the weights of the mini model, as numbers: its shape, its cycles of training, its corpus.

A cycle goes from a risen learning rate down to nothing on a corpus of its own mix. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from training.mini.mix import Mix


@dataclass(frozen=True)
class Cycle:
    """A stretch of training."""

    steps: int
    peak: float = 1.0
    """Share of the recipe's learning rates that is reached."""
    study: tuple[int, int] = (0, 0)
    """First and last step (excluded), within the cycle, whose dialogues are mostly dense in facts (`studying`)."""
    reckoning: bool = False
    """Whether the dense dialogues hold sums and unknown things as well."""
    mix: Mix = field(default_factory=Mix)
    stream: str = ""
    """Sets the random stream of the cycle's corpus apart from that of the others."""


FACTS = Cycle(2800, study=(1300, 2200))
MANNERS = Cycle(
    1500,
    peak=0.6,
    study=(0, 900),
    reckoning=True,
    mix=Mix(topic=55, talk=31, sum=10, story=4, unknown=130, everyday=True, terse=0.28),
    stream=" again",
)


@dataclass(frozen=True)
class Recipe:
    """The same recipe on the same kind of machine gives the same weights, bit for bit."""

    seed: int = 0
    cycles: tuple[Cycle, ...] = (FACTS, MANNERS)
    batch_tokens: int = 6912
    row_lengths: tuple[int, ...] = (256, 512)
    """Tokens per row: a dialogue goes into the first length that holds it (short rows are cheap to attend over)."""
    long_share: float = 0.06
    """Share of a cycle's last steps that use rows of the full context, with long dialogues."""
    quantized_share: float = 0.25
    """Share of a cycle's last steps in which linear weights are felt through NF4."""
    chunk: int = 4000
    """Dialogues written, encoded and packed at a time (a quarter of that where they are long)."""
    vocabulary: int = 3072
    tokenizer_dialogues: int = 40000
    hidden: int = 256
    layers: int = 5
    heads: int = 8
    feed_forward: int = 640
    learning_rate: float = 3e-3
    """Of AdamW, for embeddings and norms."""
    muon_learning_rate: float = 6e-3
    """Of Muon, for the matrices between them (update scaled to the size of AdamW's)."""
    warmup: int = 100
    decay_share: float = 0.35
    """Share of a cycle's last steps over which the learning rate falls to nothing (warmup, stable, decay)."""
    weight_decay: float = 0.05
    clip: float = 1.0
    threads: int = 1
    """Of torch; the weights depend on it in the last bits."""

    @property
    def steps(self) -> int:
        return sum(cycle.steps for cycle in self.cycles)


PRESETS = {
    "tiny": Recipe(
        cycles=(Cycle(20, study=(5, 10)), Cycle(10, peak=0.5, study=(0, 5), reckoning=True, stream=" again")),
        batch_tokens=1024, row_lengths=(256,), chunk=200, vocabulary=512, tokenizer_dialogues=300,
        hidden=64, layers=2, heads=2, feed_forward=128, warmup=5, long_share=0.05,
    ),
    "quick": Recipe(cycles=(Cycle(350, study=(100, 250)),)),
    "full": Recipe(),
}  # fmt: skip
