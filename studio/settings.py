"""Where the page is served and how the chat asks for feedback: the settings of the top floor.

Everything from the floors below is here too, so ``python app.py --help`` lists every setting there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from memory.settings import StorageSettings
from training.policy_settings import PolicySettings
from training.settings import REPOSITORY, TrainingSettings


class StudioSettings(TrainingSettings):
    """All settings of the studio."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = Field(7860, ge=1, le=65535)
    """Port to listen on."""

    policy: Literal["local", "vllm", "scripted"] = "local"
    """What answers: local (the model on this machine), vllm (the same model on vLLM servers; see docs/vllm.md) or
    scripted (a fake that needs no model, for demonstrations)."""

    vllm_urls: Annotated[tuple[str, ...], NoDecode] = ("http://127.0.0.1:8000",)
    """Addresses of the vLLM servers, separated by commas; all must serve the same model and see the same adapters."""

    vllm_api_key: SecretStr = SecretStr("")
    """What the vLLM servers were given as --api-key. Better set in the environment than as a flag."""

    vllm_adapters_dir: Path | None = None
    """Where the vLLM servers see this studio's folder of adapters, if elsewhere (they may run in containers)."""

    vllm_tolerance: float = Field(2.0, gt=0.0)
    """How far, in nats, a fixed text's log-probability on a vLLM server in half precision may lie from the published
    one. A server that computes in fp32 is held to 0.001 whatever stands here."""

    vllm_start_seconds: float = Field(300.0, ge=0.0)
    """How long the studio waits at its start for the first vLLM server to come up."""

    compare_every: int = Field(3, ge=0)
    """Every how many turns a reply comes as a blind pair; 0: never."""

    compare_with_previous: float = Field(0.25, ge=0.0, le=1.0)
    """Share of blind pairs that set the served version against the one before; the others come from one version."""

    system_prompt: str = ""
    """System prompt that new conversations start with."""

    max_message_chars: int = Field(20_000, ge=1)
    """Longest message that a person may send."""

    max_rows: int = Field(16, ge=1)
    """Most replies generated at the same time (on each vLLM server); further ones wait in line."""

    cache_mib: int = Field(4096, ge=1)
    """Most memory, in MiB, that the local model's cache takes for all replies under way (twice that for a moment while
    it grows). Replies that do not fit wait in line, and a conversation that alone would not is shortened."""

    max_waiting: int = Field(64, ge=0)
    """Most replies that may wait in line; further ones are refused with a message."""

    http_door: Literal["off", "loopback", "on"] = "loopback"
    """OpenAI's API beside the page, under /v1: off, loopback (only while `host` is this machine itself; no key is
    needed until one is made) or on (everywhere, with keys)."""

    http_requests_per_minute: int = Field(60, ge=0)
    """Most requests of one key in a minute, unless the key has a limit of its own; 0: any number."""

    http_tokens_per_minute: int = Field(60_000, ge=0)
    """Most tokens, read and written, of one key in a minute, unless the key has a limit of its own; 0: any number."""

    http_max_body_bytes: int = Field(1_048_576, ge=1_024)
    """Largest request that the HTTP door reads."""

    keep_adapters: int = Field(3, ge=1)
    """Most adapters kept in memory beside those in use."""

    chat_threads: int = Field(0, ge=0)
    """CPU threads for generation; 0: as many as suit the model, which is one for a small model (a second one gains
    little and loses much while a retraining runs) and all cores for a large one."""

    training_niceness: int = Field(10, ge=0, le=19)
    """How far a retraining steps back for the chat on the same CPU (Unix nice)."""

    @field_validator("vllm_urls", mode="before")
    @classmethod
    def _split_urls(cls, value: Any) -> list[str]:
        parts = [value] if isinstance(value, str) else value
        return [url for part in parts for url in str(part).replace(",", " ").split()]


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
        ("Reward model and PPO", PolicySettings),
        ("Model and training", TrainingSettings),
        ("Studio", StudioSettings),
    ):
        lines += [f"## {title}", "", "| flag | environment | default | what |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            if name in seen:
                continue
            seen.add(name)
            default = field.default if not isinstance(field.default, tuple) else ",".join(field.default)
            default = str(default).replace(str(REPOSITORY) + "/", "")
            described = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(
                f"| `--{name.replace('_', '-')}` | `THUMBPRINT_{name.upper()}` | `{default}` | {described} |"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_page(), end="")
