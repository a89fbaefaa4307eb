"""Where the page is served and how the chat asks for feedback: the settings of the top floor.

Everything from the floors below is here too, so ``python app.py --help`` lists every setting there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from memory.settings import StorageSettings
from memory.strategies.choosing import DEFAULT, checked
from training.policy_settings import PolicySettings
from training.schedule import Plan
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

    retrain_after: int = Field(0, ge=0)
    """New judgements after which a retraining begins by itself; 0: never for their number."""

    retrain_hours: float = Field(0.0, ge=0.0)
    """Hours after the last one began after which a retraining begins by itself, if anything new was said; 0: never."""

    retrain_cron: str = ""
    """Times at which a retraining begins by itself, if anything new was said: a cron expression in local time, such as
    "0 3 * * 0" for Sundays at three."""

    quiet_hours: str = ""
    """Local times of day between which no retraining begins by itself, such as 22:00-07:00."""

    watch_odds: float = Field(20.0, ge=0.0)
    """Evidence, so many to one, at which people's votes against the version before roll the served one back by
    themselves: 20 does so wrongly after at most one promotion in 20, however many votes come; 0: never."""

    watch_votes_each: int = Field(10, ge=1)
    """Most votes of one person that count for such a rollback."""

    guidelines: Path | None = None
    """File (Markdown) that tells raters what to look for; editing it takes effect at once. Empty: the text that
    ships."""

    ask_consent: Literal["auto", "always", "never"] = "auto"
    """Whether people must agree, once, to their judgements being kept; auto: where `host` is not this machine
    itself."""

    system_prompt: str = ""
    """System prompt that new conversations start with."""

    remember: str = DEFAULT
    """How the model is reminded of a long conversation, unless the conversation says otherwise: everything,
    last_turns:4 (any number), token_budget, summary, recall or summary+recall; see docs/memory.md."""

    summarise_with: str = "picked"
    """What makes summaries: picked (the sentences that tell most; needs no model), policy (the base model itself) or a
    LangChain chat model as provider:model."""

    recall_with: str = "words"
    """What finds earlier passages: words (BM25), hashed (vectors of words and their parts, made here) or LangChain
    embeddings as provider:model."""

    remember_facts: bool = False
    """Whether people may have sentences about themselves remembered for all their conversations. Off, since a visitor
    is known only by the browser."""

    share_links: bool = False
    """Whether people may make read-only links to their conversations. Who has the link can read it."""

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

    @model_validator(mode="after")
    def _read_the_plan(self) -> Self:
        _ = self.retraining_plan  # raises for what cannot be read
        return self

    @property
    def retraining_plan(self) -> Plan:
        """When a retraining begins by itself."""
        return Plan(self.retrain_after, self.retrain_hours, self.retrain_cron, self.quiet_hours)

    @field_validator("remember")
    @classmethod
    def _name_a_strategy(cls, value: str) -> str:
        return checked(value)

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
