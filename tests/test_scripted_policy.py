"""The shipped fake behaves as a policy does: streams, waits in line, stops, fails, changes style with its version."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from memory.schema import Message
from studio.policy.chat_model import ReplyFailed
from studio.policy.interface import Busy, PolicyClosed, PromptTooLong, Sampling, ServedVersion, UnknownVersion
from studio.policy.scripted import ScriptedPolicy
from tests.test_registry import manifest
from training.registry import AdapterRefused

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=100, seed=1)
TEA = [Message("user", "Tea?")]


@pytest.fixture
def policy() -> Iterator[ScriptedPolicy]:
    policy = ScriptedPolicy(delay=0.0)
    yield policy
    policy.close()


def reply(policy: ScriptedPolicy, version: str = "base", **changes: Any) -> str:
    sampling = Sampling(**{"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 100, "seed": 1, **changes})
    stream = policy.start(TEA, version=version, sampling=sampling)
    assert stream.wait(10) and stream.error is None
    return stream.text


def test_importing_it_needs_no_torch() -> None:
    code = "import sys, studio.policy.scripted; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    root = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=120).returncode == 0


def test_reply_is_a_function_of_prompt_version_and_seed(policy: ScriptedPolicy) -> None:
    assert reply(policy, seed=1) == reply(policy, seed=1)
    assert len({reply(policy, seed=seed) for seed in range(12)}) > 1
    assert "Tea?" in reply(policy)


def test_versions_differ_in_style(policy: ScriptedPolicy) -> None:
    said = {reply(policy)}
    for number in range(1, 7):
        version = f"v{number:04d}"
        policy.load(version, Path("unused"), manifest(version))
        said.add(reply(policy, version))
    assert len(said) >= 5


def test_versions_are_loaded_by_their_manifest_and_released(policy: ScriptedPolicy) -> None:
    served = policy.load("v0001", Path("unused"), manifest("v0001"))
    assert served == ServedVersion("v0001", "0123abcd")
    assert policy.load("v0001", Path("unused"), manifest("v0001")) == served
    assert policy.loaded() == [served]
    policy.release("v0001")
    policy.release("v0001")
    assert policy.loaded() == []
    with pytest.raises(UnknownVersion, match="there are: base"):
        policy.start(TEA, version="v0001", sampling=SAMPLING)


def test_refusals_on_demand() -> None:
    policy = ScriptedPolicy(refuse={"v0002": "Adapter v0002 is damaged."})
    with pytest.raises(AdapterRefused, match="damaged"):
        policy.load("v0002", Path("unused"), manifest("v0002"))
    assert policy.loaded() == []


def test_limits_stop_words_and_counts(policy: ScriptedPolicy) -> None:
    short = policy.start(TEA, version="base", sampling=Sampling(0.0, 1.0, 3, seed=1))
    assert short.wait(10) and (short.finish, short.completion_tokens) == ("length", 3)
    whole = reply(policy)
    assert whole.startswith(short.text)
    assert reply(policy, stop=("Tea",)) == whole[: whole.index("Tea")]
    with pytest.raises(PromptTooLong):
        ScriptedPolicy(context=8).start([Message("user", "a b c d e f")], version="base", sampling=SAMPLING)


def test_line_places_busy_and_cancel() -> None:
    gate = threading.Event()

    def script(messages: Sequence[Message], version: str, seed: int) -> str:
        gate.wait(10)
        return "one two three"

    policy = ScriptedPolicy(delay=0.0, max_rows=1, max_waiting=2, script=script)
    running, second, third = (policy.start(TEA, version="base", sampling=SAMPLING) for _ in range(3))
    assert [stream.waiting for stream in (running, second, third)] == [0, 1, 2]
    with pytest.raises(Busy, match="2 replies are waiting already"):
        policy.start(TEA, version="base", sampling=SAMPLING)
    second.cancel()
    assert second.wait(10) and second.finish == "cancelled" and second.text == ""
    gate.set()
    assert third.wait(10) and third.text == "one two three"
    policy.close()


def test_cancel_keeps_what_was_said() -> None:
    policy = ScriptedPolicy(delay=0.01, script=lambda messages, version, seed: "word " * 1000)
    stream = policy.start(TEA, version="base", sampling=Sampling(0.0, 1.0, 2000))
    for _ in stream:
        break
    stream.cancel()
    assert stream.wait(10) and stream.finish == "cancelled"
    assert 0 < len(stream.text) < 4000
    policy.close()


def test_failure_on_demand_reaches_the_stream_and_langchain() -> None:
    def script(messages: Sequence[Message], version: str, seed: int) -> str:
        raise RuntimeError("out of words")

    policy = ScriptedPolicy(script=script)
    stream = policy.start(TEA, version="base", sampling=SAMPLING)
    assert stream.wait(10) and stream.finish == "error"
    assert stream.error == "The reply failed: out of words"
    with pytest.raises(ReplyFailed, match="out of words"):
        policy.invoke("Tea?")


def test_done_callbacks_come_once_whenever_they_are_added(policy: ScriptedPolicy) -> None:
    calls: list[str] = []
    stream = policy.start(TEA, version="base", sampling=SAMPLING)
    stream.add_done_callback(lambda done: calls.append(done.text))
    stream.add_done_callback(lambda done: 1 / 0)
    assert stream.wait(10)
    stream.add_done_callback(lambda done: calls.append(done.text))
    for _ in range(1000):
        if len(calls) == 2:
            break
        threading.Event().wait(0.002)
    assert calls == [stream.text] * 2


def test_close_ends_replies_with_an_error_and_takes_no_more() -> None:
    policy = ScriptedPolicy(delay=0.05, script=lambda messages, version, seed: "word " * 1000)
    stream = policy.start(TEA, version="base", sampling=Sampling(0.0, 1.0, 2000))
    policy.close()
    assert stream.wait(10) and stream.finish == "error"
    with pytest.raises(PolicyClosed):
        policy.start(TEA, version="base", sampling=SAMPLING)


def test_langchain_side(policy: ScriptedPolicy) -> None:
    served = policy.load("v0001", Path("unused"), manifest("v0001"))
    answer = policy.invoke([HumanMessage("Tea?")], version="v0001", seed=1)
    assert answer.content == reply(policy, "v0001")
    assert answer.response_metadata["policy_version"] == "v0001"
    assert answer.response_metadata["fingerprint"] == served.fingerprint
    slow = ScriptedPolicy(delay=0.005)
    slow.load("v0001", Path("unused"), manifest("v0001"))
    chunks = list(slow.stream("Tea?", version="v0001", seed=1))
    assert "".join(str(chunk.content) for chunk in chunks) == answer.content
    assert len(chunks) > 3
