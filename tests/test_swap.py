"""A swap under load: versions come, are routed to and go while replies stream, and no reply notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from memory.schema import Message
from studio.policy.local import LocalPolicy
from tests.test_local_policy import (  # noqa: F401  (fixtures)
    GREEDY,
    Candidate,
    candidates,
    folder,
    make_policy,
    pristine,
)

QUESTIONS = [f"Question {n}: what about {'tea ' * n}?" for n in range(8)]
LONG = replace(GREEDY, max_new_tokens=100)


def start(policy: LocalPolicy, question: str, version: str):  # type: ignore[no-untyped-def]
    return policy.start([Message("user", question)], version=version, sampling=LONG)


def test_eight_replies_stream_through_two_swaps_without_failure_or_mixture(
    make_policy: Callable[..., LocalPolicy],  # noqa: F811
    candidates: dict[str, Candidate],  # noqa: F811
) -> None:
    alone: dict[tuple[str, str], str] = {}
    for version in ("base", "v0001", "v0002"):
        policy = make_policy()
        if version != "base":
            candidates[version].into(policy)
        for question in QUESTIONS:
            stream = start(policy, question, version)
            assert stream.wait(60)
            alone[version, question] = stream.text
    assert len(set(alone.values())) == 24

    policy = make_policy()
    under_way = [("base", question, start(policy, question, "base")) for question in QUESTIONS]
    previous = None
    for version in ("v0001", "v0002"):
        assert not all(stream.done for _, _, stream in under_way), "the swap came too late to show anything"
        candidates[version].into(policy)
        under_way += [(version, question, start(policy, question, version)) for question in QUESTIONS]
        if previous:
            policy.release(previous)
        previous = version
    policy.release("v0002")
    assert policy.loaded() == []

    for version, question, stream in under_way:
        assert stream.wait(60)
        assert stream.finish in ("length", "stop") and stream.error is None
        assert stream.served.version == version
        assert stream.text == alone[version, question], f"{version} answered {question!r} differently"
    assert start(policy, QUESTIONS[0], "base").wait(60)
    assert policy._versions._offered == {} and policy._adapters._names == []
