"""The policy on this machine: versions that prove themselves, replies as asked for, and LangChain's way in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.messages import HumanMessage, SystemMessage
from peft import PeftModel

from memory.schema import Message
from studio.policy.chat_model import ReplyFailed
from studio.policy.interface import PolicyClosed, PromptTooLong, Sampling, ServedVersion, UnknownVersion
from studio.policy.local import LocalPolicy
from tests.tiny import save_tiny_adapter, save_tiny_base
from training.base import BaseModel, load_base
from training.fingerprint import canary_logprobs, digest
from training.registry import AdapterRefused, Manifest
from training.settings import TrainingSettings

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=24)
HELLO = [Message("user", "Hello, how are you?")]


@dataclass(frozen=True)
class Candidate:
    version: str
    path: Path
    manifest: Manifest

    def into(self, policy: LocalPolicy) -> ServedVersion:
        return policy.load(self.version, self.path, self.manifest)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pristine(folder: Path) -> BaseModel:
    return load_base(TrainingSettings(model=str(folder)))


@pytest.fixture(scope="module")
def candidates(pristine: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Candidate]:
    """Two adapters as a trainer would publish them, with fingerprints computed through PEFT itself."""
    base = canary_logprobs(pristine.model, pristine.tokenizer, adapter=None)
    found = {}
    for version, seed in (("v0001", 1), ("v0002", 2)):
        path = save_tiny_adapter(tmp_path_factory.mktemp(version), pristine.model, seed=seed)
        adapted = PeftModel.from_pretrained(deepcopy(pristine.model), path, adapter_name="default")
        logprobs = canary_logprobs(adapted, pristine.tokenizer, adapter="default")
        manifest = Manifest(
            version=version,
            parent="base",
            base_model=pristine.name,
            base_revision="",
            base_identity=pristine.identity,
            quantization=pristine.quantization,
            method="dpo",
            fingerprint=digest(logprobs),
            canary_logprobs=logprobs,
            base_canary_logprobs=base,
            code_version="0.1.0",
            created_at=0.0,
        )
        found[version] = Candidate(version, path, manifest)
    return found


@pytest.fixture
def make_policy(pristine: BaseModel) -> Iterator[Callable[..., LocalPolicy]]:
    made: list[LocalPolicy] = []

    def make(**fields: Any) -> LocalPolicy:
        base = replace(pristine, model=deepcopy(pristine.model), **fields.pop("base", {}))
        made.append(LocalPolicy(base_model=base, threads=1, **fields))
        return made[-1]

    yield make
    for policy in made:
        policy.close()


@pytest.fixture
def policy(make_policy: Callable[..., LocalPolicy]) -> LocalPolicy:
    return make_policy(temperature=0.0, max_tokens=24)


def reply(policy: LocalPolicy, version: str = "base", **changes: Any) -> str:
    stream = policy.start(HELLO, version=version, sampling=replace(GREEDY, **changes))
    assert stream.wait(30) and stream.error is None
    return stream.text


def test_reply_is_what_generate_says(policy: LocalPolicy, pristine: BaseModel) -> None:
    from training.prompt import encode_prompt

    prompt = encode_prompt(pristine.tokenizer, HELLO)
    with torch.inference_mode():
        ids = pristine.model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, pad_token_id=0
        )
    expected = pristine.tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)
    assert reply(policy) == expected.rstrip("\ufffd")


def test_version_answers_as_peft_does(
    policy: LocalPolicy, pristine: BaseModel, candidates: dict[str, Candidate]
) -> None:
    from training.prompt import encode_prompt

    prompt = encode_prompt(pristine.tokenizer, HELLO)
    said = {"base": reply(policy)}
    for version, candidate in candidates.items():
        candidate.into(policy)
        said[version] = reply(policy, version)
        adapted = PeftModel.from_pretrained(deepcopy(pristine.model), candidate.path).eval()
        with torch.inference_mode():
            ids = adapted.generate(
                input_ids=torch.tensor([prompt]), max_new_tokens=24, do_sample=False, pad_token_id=0
            )
        expected = pristine.tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True)
        assert said[version] == expected.rstrip("\ufffd")
    assert len(set(said.values())) == 3


def test_loading_offers_the_published_fingerprint_and_happens_once(
    policy: LocalPolicy, candidates: dict[str, Candidate]
) -> None:
    first = candidates["v0001"].into(policy)
    assert first == ServedVersion("v0001", candidates["v0001"].manifest.fingerprint)
    assert candidates["v0001"].into(policy) == first
    assert policy.loaded() == [first]
    assert policy.base() == ServedVersion("base", policy.identity[:8]) and policy.base().is_base


def test_adapter_that_computes_something_else_is_refused_and_leaves_no_trace(
    policy: LocalPolicy, candidates: dict[str, Candidate]
) -> None:
    before = reply(policy)
    one, other = candidates["v0001"], candidates["v0002"]
    with pytest.raises(AdapterRefused, match="v0001 is not served: The adapter does not compute"):
        policy.load("v0001", other.path, one.manifest)
    assert policy.loaded() == [] and reply(policy) == before
    one.into(policy)
    assert [served.version for served in policy.loaded()] == ["v0001"]


def test_adapter_without_effect_is_refused(
    policy: LocalPolicy, pristine: BaseModel, candidates: dict[str, Candidate], tmp_path: Path
) -> None:
    path = save_tiny_adapter(tmp_path / "zero", pristine.model, seed=3, scale=0.0)
    own = candidates["v0001"].manifest
    numbers = own.base_canary_logprobs
    with pytest.raises(AdapterRefused, match="no effect"):
        policy.load("v0003", path, replace(own, canary_logprobs=numbers, fingerprint=digest(numbers)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_identity": "0" * 16}, "was trained on"),
        ({"quantization": "none"}, "THUMBPRINT_QUANTIZATION"),
        ({"fingerprint": "00000000"}, "manifest was put together wrongly"),
    ],
)
def test_manifest_for_something_else_is_refused(
    policy: LocalPolicy, candidates: dict[str, Candidate], change: dict[str, str], words: str
) -> None:
    one = candidates["v0001"]
    with pytest.raises(AdapterRefused, match=words):
        policy.load("v0001", one.path, replace(one.manifest, **change))


def test_adapter_of_another_shape_is_refused_and_the_policy_goes_on(
    policy: LocalPolicy, candidates: dict[str, Candidate], tmp_path: Path
) -> None:
    from tests.tiny import tiny_model, tiny_tokenizer

    candidates["v0001"].into(policy)
    before = reply(policy, "v0001")
    for name, shape in (("wide", {"width": 64}), ("deep", {"layers": 3})):
        path = save_tiny_adapter(tmp_path / name, tiny_model(tiny_tokenizer(), **shape), seed=5)
        with pytest.raises(AdapterRefused, match="does not fit the base model"):
            policy.load("v0007", path, candidates["v0001"].manifest)
    assert reply(policy, "v0001") == before
    candidates["v0002"].into(policy)
    assert [served.version for served in policy.loaded()] == ["v0001", "v0002"]


def test_released_version_finishes_its_replies_and_then_goes(
    policy: LocalPolicy, candidates: dict[str, Candidate]
) -> None:
    candidates["v0001"].into(policy)
    alone = reply(policy, "v0001", max_new_tokens=200)
    stream = policy.start(HELLO, version="v0001", sampling=replace(GREEDY, max_new_tokens=200))
    policy.release("v0001")
    policy.release("v0001")
    assert policy.loaded() == []
    with pytest.raises(UnknownVersion, match="there are: base"):
        policy.start(HELLO, version="v0001", sampling=GREEDY)
    assert stream.wait(30) and stream.text == alone and stream.served.version == "v0001"
    candidates["v0001"].into(policy)
    assert reply(policy, "v0001", max_new_tokens=200) == alone


def test_reply_ends_at_the_limit_of_tokens_or_context(make_policy: Callable[..., LocalPolicy]) -> None:
    policy = make_policy(base={"context_tokens": 40})
    stream = policy.start(HELLO, version="base", sampling=replace(GREEDY, max_new_tokens=5))
    assert stream.wait(30) and (stream.finish, stream.completion_tokens) == ("length", 5)
    stream = policy.start(HELLO, version="base", sampling=replace(GREEDY, max_new_tokens=500))
    assert stream.wait(30) and stream.finish == "length"
    assert stream.prompt_tokens + stream.completion_tokens == 40
    assert stream.prompt_tokens == policy.count_tokens(HELLO)
    with pytest.raises(PromptTooLong, match="the context is 40"):
        policy.start([Message("user", "long " * 60)], version="base", sampling=GREEDY)


def test_cache_limit_shortens_the_context_and_says_when_it_is_too_small(
    make_policy: Callable[..., LocalPolicy],
) -> None:
    """One token takes 2 layers x (keys, values) x 2 heads x 8 wide x 4 bytes = 256 bytes."""
    assert make_policy(cache_mib=1, max_rows=1).context_tokens == 512
    wide = {"context_tokens": 100_000}
    assert make_policy(cache_mib=1, base=wide).context_tokens == 4096
    assert make_policy(cache_mib=4096, max_rows=2, base=wide).context_tokens == 100_000
    policy = make_policy(base={"context_tokens": 40}, cache_mib=1)
    assert policy.context_tokens == 40


def test_cache_that_holds_no_conversation_is_refused(pristine: BaseModel) -> None:
    from tests.tiny import tiny_model, tiny_tokenizer

    wide = tiny_model(tiny_tokenizer(), width=32, layers=1, num_key_value_heads=4, head_dim=2048)
    with pytest.raises(ValueError, match=r"holds 16 tokens .* Set THUMBPRINT_CACHE_MIB to 8 or more"):
        LocalPolicy(base_model=replace(pristine, model=wide), cache_mib=1, threads=1)


def test_scaling_follows_the_ranks_and_alphas_that_peft_wrote(pristine: BaseModel, tmp_path: Path) -> None:
    """r 4, alpha 8 -> 2; the pattern's r 2 with alpha 8 -> 4; with rank stabilization alpha / sqrt(r)."""
    from peft import LoraConfig, get_peft_model

    from studio.policy.adapters import read_adapter

    for stabilized, patterns, expected in (
        (False, {"rank_pattern": {"q_proj": 2}}, {"q_proj": 4.0, "v_proj": 2.0}),
        (True, {}, {"q_proj": 4.0, "v_proj": 4.0}),
    ):
        config = LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "v_proj"],
            task_type="CAUSAL_LM",
            use_rslora=stabilized,
            **patterns,
        )
        get_peft_model(deepcopy(pristine.model), config).save_pretrained(str(tmp_path))
        updates = read_adapter(tmp_path, device=torch.device("cpu")).updates
        assert {name.rsplit(".", 1)[1]: update.scaling for name, update in updates.items()} == expected
        assert len(updates) == 4


def test_adapter_with_half_a_layer_is_refused(pristine: BaseModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from studio.policy.adapters import read_adapter

    file = save_tiny_adapter(tmp_path, pristine.model, seed=1) / "adapter_model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if "lora_B" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, file)
    with pytest.raises(AdapterRefused, match="expected A of"):
        read_adapter(tmp_path, device=torch.device("cpu"))


def test_end_of_turn_ends_the_reply_and_gives_no_text(policy: LocalPolicy) -> None:
    policy._ends = frozenset(range(3, 200))
    stream = policy.start(HELLO, version="base", sampling=replace(GREEDY, temperature=1.0, seed=3))
    assert stream.wait(30) and stream.finish == "stop"
    assert stream.completion_tokens >= 1 and "<|" not in stream.text


def test_cancel_keeps_what_was_said(policy: LocalPolicy) -> None:
    stream = policy.start(HELLO, version="base", sampling=replace(GREEDY, max_new_tokens=450))
    for _ in stream:
        break
    stream.cancel()
    assert stream.wait(30) and stream.finish == "cancelled"
    assert stream.text and stream.completion_tokens < 450


def test_stop_word_ends_the_reply(policy: LocalPolicy) -> None:
    whole = reply(policy, max_new_tokens=60)
    word = whole[len(whole) // 2 :][:3]
    stream = policy.start(HELLO, version="base", sampling=replace(GREEDY, max_new_tokens=60, stop=(word,)))
    assert stream.wait(30) and stream.finish == "stop"
    assert stream.text == whole[: whole.index(word)]


def test_same_seed_same_reply_and_none_draws_a_fresh_one(make_policy: Callable[..., LocalPolicy]) -> None:
    seeds = iter([1, 2])
    policy = make_policy(new_seed=lambda: next(seeds))
    warm = {"temperature": 1.0}
    assert reply(policy, seed=5, **warm) == reply(policy, seed=5, **warm)
    assert reply(policy, **warm) != reply(policy, **warm)


def test_close_ends_replies_and_refuses_more(policy: LocalPolicy, candidates: dict[str, Candidate]) -> None:
    stream = policy.start(HELLO, version="base", sampling=replace(GREEDY, max_new_tokens=400))
    policy.close()
    assert stream.wait(30) and stream.finish == "error" and stream.error == "The studio is shutting down."
    with pytest.raises(PolicyClosed):
        policy.start(HELLO, version="base", sampling=GREEDY)
    with pytest.raises(PolicyClosed):
        candidates["v0001"].into(policy)


def test_langchain_invoke_stream_and_batch_agree(
    policy: LocalPolicy, candidates: dict[str, Candidate]
) -> None:
    served = candidates["v0001"].into(policy)
    question = [SystemMessage("Be kind."), HumanMessage("Tea?")]
    whole = policy.invoke(question, version="v0001")
    assert whole.response_metadata["policy_version"] == "v0001"
    assert whole.response_metadata["fingerprint"] == served.fingerprint
    assert whole.response_metadata["finish_reason"] in ("stop", "length")
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 24
    assert whole.usage_metadata["input_tokens"] == policy.count_tokens(
        [Message("system", "Be kind."), Message("user", "Tea?")]
    )
    chunks = list(policy.stream(question, version="v0001"))
    assert len(chunks) > 3 and "".join(str(chunk.content) for chunk in chunks) == whole.content
    assert [answer.content for answer in policy.batch([question] * 3, version="v0001")] == [whole.content] * 3
    assert policy.invoke(question).response_metadata["policy_version"] == "base"


def test_langchain_async_runs_many_at_once(policy: LocalPolicy) -> None:
    async def ask() -> tuple[list[str], str]:
        answers = await asyncio.gather(*(policy.ainvoke("Tea?") for _ in range(10)))
        pieces = [str(chunk.content) async for chunk in policy.astream("Tea?")]
        return [str(answer.content) for answer in answers], "".join(pieces)

    answers, streamed = asyncio.run(ask())
    assert set(answers) == {streamed} and streamed


def test_langchain_stop_callbacks_and_errors(policy: LocalPolicy) -> None:
    from langchain_core.callbacks import BaseCallbackHandler

    heard: list[str] = []

    class Ear(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            heard.append(token)

    whole = str(policy.invoke("Tea?", config={"callbacks": [Ear()]}).content)
    assert "".join(heard) == whole
    word = whole[10:13]
    assert policy.invoke("Tea?", stop=[word]).content == whole[: whole.index(word)]
    with pytest.raises(ValueError, match="reads text only"):
        policy.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])])
    policy._engine.close()
    with pytest.raises((ReplyFailed, PolicyClosed)):
        policy.invoke("Tea?")


def test_leaving_a_langchain_stream_frees_the_row(policy: LocalPolicy) -> None:
    stream = policy.stream("Tea?", max_tokens=450)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert reply(policy)
    assert policy._engine._running is None
