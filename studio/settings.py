"""Where the page is served and how the chat asks for feedback: the settings of the top floor.

Everything from the floors below is here too, so ``python app.py --help`` lists every setting there is.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from memory.settings import StorageSettings
from training.settings import REPOSITORY, TrainingSettings


class StudioSettings(TrainingSettings):
    """All settings of the studio."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = Field(7860, ge=1, le=65535)
    """Port to listen on."""

    policy: Literal["local", "scripted"] = "local"
    """What answers: local (the model on this machine) or scripted (a fake that needs no model, for demonstrations)."""

    compare_every: int = Field(3, ge=0)
    """Every how many turns a reply comes as a blind pair; 0: never."""

    compare_with_previous: float = Field(0.25, ge=0.0, le=1.0)
    """Share of blind pairs that set the served version against the one before; the others come from one version."""

    system_prompt: str = ""
    """System prompt that new conversations start with."""

    max_message_chars: int = Field(20_000, ge=1)
    """Longest message that a person may send."""

    max_rows: int = Field(16, ge=1)
    """Most replies generated at the same time; further ones wait in line."""

    max_waiting: int = Field(64, ge=0)
    """Most replies that may wait in line; further ones are refused with a message."""

    keep_adapters: int = Field(3, ge=1)
    """Most adapters kept in memory beside those in use."""

    chat_threads: int = Field(0, ge=0)
    """CPU threads for generation; 0: all cores."""

    training_niceness: int = Field(10, ge=0, le=19)
    """How far a retraining steps back for the chat on the same CPU (Unix nice)."""


def settings_page() -> str:
    """The page docs/settings.md, made from the fields and their docstrings: one table per floor."""
    lines = [
        "# Settings",
        "",
        "Made by `python -m studio.settings`. Strongest last: default, preset, `thumbprint.toml`, environment, flag.",
        "",
    ]
    seen: set[str] = set()
    for title, model in (
        ("Storage", StorageSettings),
        ("Model and training", TrainingSettings),
        ("Studio", StudioSettings),
    ):
        lines += [f"## {title}", "", "| flag | environment | default | what |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            if name in seen:
                continue
            seen.add(name)
            default = str(field.default).replace(str(REPOSITORY) + "/", "")
            described = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(
                f"| `--{name.replace('_', '-')}` | `THUMBPRINT_{name.upper()}` | `{default}` | {described} |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_page(), end="")
