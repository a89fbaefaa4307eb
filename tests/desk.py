"""A chat service with everything around it, for tests: real SQLite, the scripted policy, a clock that is
moved by hand.
"""

from __future__ import annotations

import json
import random
import struct
import threading
from contextlib import contextmanager

from memory.conversations import Conversations
from memory.database import open_database
from memory.ledger import Ledger
from memory.runs import Runs
from studio.chat import ChatService
from studio.policy.scripted import ScriptedPolicy
from studio.reminding import Reminder
from studio.serving import Serving
from studio.settings import StudioSettings
from training.registry import Manifest, Registry

ANN, BOB = "ann", "bob"


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A chat service with everything around it, reachable."""

    def __init__(self, folder, *, clock=None, policy=None, rng=None, **settings) -> None:
        self.clock = clock or Clock()
        self.settings = StudioSettings(data_dir=folder, **{"compare_every": 0} | settings)
        self.database = open_database(self.settings.resolved_database_url, clock=self.clock)
        self.conversations = Conversations(self.database)
        self.ledger = Ledger(self.database)
        self.runs = Runs(self.database)
        self.policy = policy or ScriptedPolicy(delay=0.0)
        self.registry = Registry(self.settings.adapters_dir)
        self.serving = Serving(
            self.policy,
            self.registry,
            self.runs,
            self.ledger,
            keep=self.settings.keep_adapters,
            poll_seconds=0.02,
            clock=self.clock,
        )
        self.reminder = Reminder(
            self.settings, database=self.database, conversations=self.conversations, policy=self.policy
        )
        self.chat = ChatService(
            self.settings,
            policy=self.policy,
            serving=self.serving,
            conversations=self.conversations,
            ledger=self.ledger,
            reminder=self.reminder,
            new_id=self.database.new_id,
            rng=rng or random.Random(7),
            clock=self.clock,
            retry_seconds=0.05,
        )

    def begin(self, owner=ANN) -> str:
        return self.chat.owned.begin(owner).id

    def say(self, conversation_id, text, owner=ANN):
        exchange = self.chat.send(owner, conversation_id, text)
        assert exchange.wait(10)
        return exchange

    def shown(self, conversation_id, owner=ANN):
        return [(n.message.role, n.message.content) for n in self.chat.owned.path(owner, conversation_id)]

    def happened(self, kind=None):
        return [occurrence.kind for occurrence in self.ledger.occurrences(kind)]

    def judgements(self):
        counts = self.ledger.counts()
        return (
            counts.ratings_up
            + counts.ratings_down
            + counts.comparisons_decided
            + counts.ties
            + counts.both_bad
        )

    def publish(self, version=None, *, base_identity=None) -> str:
        """Put a small but well-formed adapter on the shelf; returns its version."""
        version = version or self.registry.reserve()
        candidate = self.settings.data_dir / "candidate"
        candidate.mkdir(parents=True, exist_ok=True)
        header = json.dumps(
            {"base_model.layer.lora_A.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}
        ).encode()
        weights = struct.pack("<Q", len(header)) + header + struct.pack("<f", float(version[1:]))
        (candidate / "adapter_model.safetensors").write_bytes(weights)
        (candidate / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1})
        )
        manifest = Manifest(
            version=version,
            parent="base",
            base_model="scripted",
            base_revision="",
            base_identity=base_identity or self.policy.identity,
            quantization="none",
            method="dpo",
            fingerprint=f"{int(version[1:]):08x}",
            canary_logprobs=[-1.0],
            base_canary_logprobs=[-2.0],
            code_version="test",
            created_at=self.clock(),
        )
        self.registry.publish(version, candidate, manifest)
        return version

    def promote(self, version: str) -> None:
        self.runs.promote(version, actor="trainer", reason="better")

    def close(self) -> None:
        self.serving.stop()
        self.chat.close()
        self.reminder.close()
        self.policy.close()
        self.database.close()


@contextmanager
def desk_at(folder, **options):
    desk = Desk(folder, **options)
    try:
        yield desk
    finally:
        desk.close()


class Gate:
    """A script whose replies each wait until they are let go; `replies` are handed out in the order of
    starting.
    """

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.gates: dict[str, threading.Event] = {}
        self.lock = threading.Lock()
        self.by_seed: dict[int, str] = {}

    def __call__(self, messages, version, seed) -> str:
        with self.lock:
            reply = self.replies.pop(0)
            self.by_seed[seed] = reply
            gate = self.gates.setdefault(reply, threading.Event())
        assert gate.wait(10), f"nobody let {reply!r} go"
        if reply.startswith("!"):
            raise RuntimeError(reply[1:])
        return reply

    def let_go(self, exchange, side) -> str:
        """Let the reply of this side come; returns its text."""
        while side.sampling["seed"] not in self.by_seed:
            threading.Event().wait(0.001)
        reply = self.by_seed[side.sampling["seed"]]
        self.gates[reply].set()
        assert side.stream.wait(10)
        return reply
