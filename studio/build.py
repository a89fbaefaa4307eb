"""The studio put together: every service made once, handed what it needs, and closed in the right order.

This is the only place that knows which parts there are. It makes no page and reads no settings from
anywhere; torch is imported only when a policy is made that reads a model's files.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from memory.conversations import Conversations
from memory.database import Database, open_database
from memory.feedback_search import FeedbackSearch
from memory.ledger import Ledger
from memory.runs import Runs
from studio.chat import ChatService
from studio.door.gate import is_loopback
from studio.door.service import Door, open_door
from studio.feedback import FeedbackService
from studio.feedback_sums import FeedbackSums
from studio.guidelines import Guidelines
from studio.judging import Judging
from studio.policy.interface import Policy
from studio.policy.scripted import ScriptedPolicy
from studio.reminding import Reminder
from studio.retraining import Retraining
from studio.scheduler import Scheduler
from studio.serving import Serving
from studio.settings import StudioSettings
from studio.watch import Watch
from training.registry import Registry


@dataclass(frozen=True)
class Studio:
    """A running studio without its page."""

    settings: StudioSettings
    database: Database
    conversations: Conversations
    ledger: Ledger
    runs: Runs
    registry: Registry
    policy: Policy
    serving: Serving
    watch: Watch
    reminder: Reminder
    chat: ChatService
    feedback: FeedbackService
    judging: Judging
    search: FeedbackSearch
    sums: FeedbackSums
    retraining: Retraining
    scheduler: Scheduler
    door: Door
    closing: ExitStack

    def close(self) -> None:
        """Stop watching for versions, end and write down the replies under way, then free model and database.

        A retraining under way goes on: it is a process of its own, and the next start picks its result up.
        """
        self.closing.close()

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_error: Any) -> None:
        self.close()


def build(
    settings: StudioSettings, *, policy: Policy | None = None, rng: random.Random | None = None
) -> Studio:
    """Open the database, load the policy that `settings` name (or take `policy`), and serve the last good
    promotion.

    The studio owns `policy` from then on and closes it. Raises what the parts raise when they cannot start:
    `memory.database.NewerDatabaseError`, `memory.database.StorageError`, `training.base.ModelUnavailable`;
    what was opened before is closed again.
    """
    with ExitStack() as opened:
        database = open_database(settings.resolved_database_url)
        opened.callback(database.close)
        conversations, ledger, runs = Conversations(database), Ledger(database), Runs(database)
        registry = Registry(settings.adapters_dir)
        policy = policy if policy is not None else _policy(settings)
        opened.callback(policy.close)
        serving = Serving(policy, registry, runs, ledger, keep=settings.keep_adapters, clock=database.clock)
        reminder = Reminder(settings, database=database, conversations=conversations, policy=policy)
        opened.callback(reminder.close)
        chat = ChatService(
            settings,
            policy=policy,
            serving=serving,
            conversations=conversations,
            ledger=ledger,
            reminder=reminder,
            new_id=database.new_id,
            rng=rng if rng is not None else random.Random(),
            clock=database.clock,
        )
        opened.callback(chat.close)
        feedback = FeedbackService(
            ledger, conversations, max_chars=settings.max_message_chars, clock=database.clock
        )
        search = FeedbackSearch(database)
        judging = Judging(
            database,
            ledger,
            conversations,
            Guidelines(ledger, settings.guidelines, clock=database.clock),
            ask_consent=_asks_consent(settings),
            max_chars=settings.max_message_chars,
            clock=database.clock,
        )
        retraining = Retraining(settings, runs, ledger)
        scheduler = Scheduler(settings.retraining_plan, retraining, runs, database)
        door = open_door(
            settings,
            policy=policy,
            serving=serving,
            conversations=conversations,
            ledger=ledger,
            new_id=database.new_id,
            rng=random.Random(),
            clock=database.clock,
        )
        opened.callback(door.close)
        opened.callback(serving.stop)
        serving.start()
        watch = Watch(serving, runs, database, odds=settings.watch_odds, votes_each=settings.watch_votes_each)
        opened.callback(watch.stop)
        watch.start()
        opened.callback(scheduler.stop)
        scheduler.start()
        return Studio(
            settings=settings,
            database=database,
            conversations=conversations,
            ledger=ledger,
            runs=runs,
            registry=registry,
            policy=policy,
            serving=serving,
            watch=watch,
            reminder=reminder,
            chat=chat,
            feedback=feedback,
            judging=judging,
            search=search,
            sums=FeedbackSums(ledger, search),
            retraining=retraining,
            scheduler=scheduler,
            door=door,
            closing=opened.pop_all(),
        )


def _asks_consent(settings: StudioSettings) -> bool:
    if settings.ask_consent == "auto":
        return not is_loopback(settings.host)
    return settings.ask_consent == "always"


def _policy(settings: StudioSettings) -> Policy:
    shared: dict[str, Any] = {
        "max_rows": settings.max_rows,
        "max_waiting": settings.max_waiting,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens,
    }
    if settings.policy == "scripted":
        return ScriptedPolicy(context=settings.context_tokens, **shared)
    if settings.policy == "vllm":
        return _vllm_policy(settings, shared)
    from training.base import load_base

    base_model = load_base(settings)
    from studio.policy.local import LocalPolicy

    return LocalPolicy(
        base_model=base_model,
        threads=settings.chat_threads,
        cache_mib=settings.cache_mib,
        **shared,
    )


def _vllm_policy(settings: StudioSettings, shared: dict[str, Any]) -> Policy:
    from studio.policy.vllm import VllmPolicy
    from studio.policy.vllm_base import know_base

    return VllmPolicy(
        known_base=know_base(settings),
        urls=list(settings.vllm_urls),
        api_key=settings.vllm_api_key,
        shelf=settings.adapters_dir,
        adapters_dir=settings.vllm_adapters_dir,
        tolerance=settings.vllm_tolerance,
        start_seconds=settings.vllm_start_seconds,
        **shared,
    )
