"""Models of the field load as they are: each family's architecture, tokenizer and template shape, in miniature."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from memory.schema import Message
from memory.window import WindowError, fit
from studio.intake import ChatRefused
from studio.policy import local
from studio.policy.interface import PromptTooLong, Sampling
from studio.policy.local import LocalPolicy
from studio.policy.scripted import ScriptedPolicy
from studio.policy.text import ReplyText
from tests.desk import ANN, desk_at
from tests.families import FAMILIES, family_tokenizer, save_family
from tests.judged import DISLIKED, LIKED, quick_settings
from tests.tiny import save_tiny_adapter
from training.base import BaseModel, load_base
from training.dpo import train
from training.fingerprint import canary_logprobs, digest
from training.generation import Decoding, sample
from training.method import CANDIDATE
from training.pairs import encode_pairs
from training.prompt import PromptError, count_tokens, encode_prompt, encode_reply, encode_text
from training.publishing import save_candidate
from training.registry import Manifest
from training.settings import TrainingSettings
from training.views import PreferenceRow

families = pytest.mark.parametrize("name", list(FAMILIES))


def some_now(name: str, *more: str) -> Any:
    """The most unlike families with every run of the tests, the others with the slow ones."""
    return pytest.param(name, *more, marks=[] if name in ("qwen2", "gemma2", "phi3") else pytest.mark.slow)


GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=20)
CONVERSATIONS = (
    [Message("user", "Tea?")],
    [
        Message("user", "What is a good way to boil an egg, and what does the weather do in May?"),
        Message("assistant", "Put it in cold water."),
        Message("user", "Why, 😀?"),
    ],
    [Message("system", "Be brief."), Message("user", "Trains and the weather in May, please.")],
)

tokenizer_of = cache(lambda name: family_tokenizer(FAMILIES[name]))
"""A family's tokenizer, made once: none of the tests changes it."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cache(lambda name: save_family(tmp_path_factory.mktemp(name), name))


@pytest.fixture
def load(folders: Any) -> Any:
    def load_family(name: str, **fields: Any) -> BaseModel:
        return load_base(TrainingSettings(model=str(folders(name)), **fields))

    return load_family


@pytest.fixture
def tokens_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, list[int]]]:
    """The tokens that the engine gave to each reply's text, in the order in which the replies were asked for."""
    said: dict[int, list[int]] = {}

    class Recorded(ReplyText):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            said[len(said)] = self.tokens = []

        def push(self, token: int) -> str:
            self.tokens.append(token)
            return super().push(token)

    monkeypatch.setattr(local, "ReplyText", Recorded)
    yield said


def published(base: BaseModel, path: Path) -> tuple[PeftModel, Manifest]:
    """The adapter in `path` as PEFT itself computes it, and the manifest that a trainer would write."""
    numbers = canary_logprobs(base.model, base.tokenizer, adapter=None)
    adapted = PeftModel.from_pretrained(deepcopy(base.model), path, adapter_name="default").eval()
    logprobs = canary_logprobs(adapted, base.tokenizer, adapter="default")
    manifest = Manifest(
        version="v0001",
        parent="base",
        base_model=base.name,
        base_revision="",
        base_identity=base.identity,
        quantization=base.quantization,
        method="dpo",
        fingerprint=digest(logprobs),
        canary_logprobs=logprobs,
        base_canary_logprobs=numbers,
        code_version="0.1.0",
        created_at=0.0,
    )
    return adapted, manifest


def alone(model: Any, prompt: list[int], ends: frozenset[int]) -> list[int]:
    """What transformers' own generate says to `prompt`, without the token that ends it."""
    with torch.inference_mode():
        whole = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(
                1, len(prompt), dtype=torch.long
            ),  # else guessed from the padding token
            max_new_tokens=GREEDY.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(ends),
        )
    ids: list[int] = whole[0, len(prompt) :].tolist()
    return ids[:-1] if ids[-1] in ends else ids


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        *((name, "nf4") for name in FAMILIES),
        *(some_now(name, "none") for name in FAMILIES),
        ("qwen2", "int8"),
        ("phi3", "int8"),
    ],
)
def test_replies_in_one_batch_are_what_generate_says_to_each_alone(
    name: str, quantization: str, load: Any, tokens_said: dict[int, list[int]], tmp_path: Path
) -> None:
    """Rows of unlike length, under the base and an adapter, joined while others run, beyond any sliding window."""
    base = load(name, quantization=quantization)
    path = save_tiny_adapter(tmp_path / "adapter", base.model, seed=1)
    adapted, manifest = published(base, path)
    prompts = [encode_prompt(base.tokenizer, messages) for messages in CONVERSATIONS]
    expected = [alone(model, prompt, base.ends) for prompt in prompts for model in (base.model, adapted)]
    policy = LocalPolicy(base_model=base, threads=1, prefill_tokens=16)
    try:
        policy.load("v0001", path, manifest)
        streams = [
            policy.start(messages, version=version, sampling=GREEDY)
            for messages in CONVERSATIONS
            for version in ("base", "v0001")
        ]
        assert all(stream.wait(60) for stream in streams)
        assert [stream.error for stream in streams] == [None] * len(streams)
        assert list(tokens_said.values()) == expected
        assert len({tuple(tokens) for tokens in expected}) > 3
    finally:
        policy.close()


@families
def test_the_trainers_own_sampling_says_the_same(name: str, load: Any) -> None:
    base = load(name)
    prompts = [encode_prompt(base.tokenizer, messages) for messages in CONVERSATIONS]
    decoding = Decoding(0.0, 1.0, GREEDY.max_new_tokens, base.ends, pad=base.tokenizer.pad_token_id, seed=0)
    with torch.inference_mode():
        said = sample(base.model, prompts, decoding=decoding)
    said = [ids[:-1] if ids[-1] in base.ends else ids for ids in said]
    assert said == [alone(base.model, prompt, base.ends) for prompt in prompts]


@pytest.mark.parametrize("name", [some_now(name) for name in FAMILIES])
def test_what_is_trained_is_served(name: str, load: Any, tmp_path: Path) -> None:
    """From the trainer through the adapter's files into the chat's policy, which recomputes the fingerprint."""
    base = load(name)
    settings = quick_settings(batch_size=3, min_steps=3, learning_rate=1e-2)
    rows = [
        PreferenceRow((Message("user", f"Number {n}?"),), LIKED[n], DISLIKED[n], str(n), str(n))
        for n in range(3)
    ]
    pairs = encode_pairs(base.tokenizer, rows, context_tokens=256)[1]
    losses: list[float] = []
    model = train(
        base,
        pairs,
        settings=settings,
        folder=tmp_path,
        on_step=lambda step: losses.append(step.values["loss"]),
    )
    path = save_candidate(model, tmp_path / "candidate")
    trained = canary_logprobs(model, base.tokenizer, adapter=CANDIDATE)
    fresh = load(name)
    _, manifest = published(fresh, path)
    policy = LocalPolicy(base_model=fresh, threads=1)
    try:
        policy.load("v0001", path, replace(manifest, canary_logprobs=trained, fingerprint=digest(trained)))
        assert [served.version for served in policy.loaded()] == ["v0001"]
    finally:
        policy.close()
    assert losses[-1] < losses[0]


@families
def test_adapter_sits_on_every_linear_layer_but_the_head(name: str, load: Any, tmp_path: Path) -> None:
    from safetensors import safe_open

    base = load(name, quantization="none")
    linears = {
        module_name
        for module_name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and module_name != "lm_head"
    }
    path = save_tiny_adapter(tmp_path, base.model, seed=1)
    with safe_open(path / "adapter_model.safetensors", framework="pt") as file:
        adapted = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in file.keys()}  # noqa: SIM118
    assert adapted == linears
    assert len(linears) >= 4 * base.model.config.get_text_config().num_hidden_layers


@families
def test_ends_are_all_that_template_and_settings_name(name: str, load: Any) -> None:
    base = load(name, quantization="none")
    family = FAMILIES[name]
    expected = set(base.tokenizer.convert_tokens_to_ids(list(family.ends)))
    assert expected <= base.ends <= expected | {base.tokenizer.eos_token_id}
    reply = encode_reply(base.tokenizer, "Put it in cold water.")
    assert base.tokenizer.convert_ids_to_tokens(reply[-1]) == family.ends[0]


@families
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_control_tokens_that_are_typed_stay_text(name: str, place: int) -> None:
    tokenizer, family = tokenizer_of(name), FAMILIES[name]
    innocent = [Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "z")]
    control_ids = set(tokenizer.convert_tokens_to_ids(list(family.controls)))
    expected = [i for i in encode_prompt(tokenizer, innocent) if i in control_ids]
    for control in family.controls:
        if place == 2 and control == "</think>":
            continue  # there the template itself cuts what stands before it off an earlier reply
        text = f"one {control}{control} two \n{control} x"
        messages = list(innocent)
        messages[place] = Message(innocent[place].role, text)
        ids = encode_prompt(tokenizer, messages)
        assert [i for i in ids if i in control_ids] == expected, control
        assert text in tokenizer.decode(ids)


@families
def test_reply_and_plain_text_hold_no_control_token_but_the_end(name: str) -> None:
    tokenizer, family = tokenizer_of(name), FAMILIES[name]
    control_ids = set(tokenizer.convert_tokens_to_ids(list(family.controls)))
    for control in family.controls:
        text = f"one {control} two"
        assert not set(encode_text(tokenizer, text)) & control_ids
        assert tokenizer.decode(encode_text(tokenizer, text)) == text
        reply = encode_reply(tokenizer, text)
        assert not set(reply[:-1]) & control_ids
        assert tokenizer.decode(reply[:-1]).strip() == text


@families
def test_prompt_and_reply_are_what_the_template_makes_of_them(name: str) -> None:
    tokenizer = tokenizer_of(name)
    messages = [Message("user", "Tea?"), Message("assistant", "With milk.")]
    dicts = [{"role": message.role, "content": message.content} for message in messages]
    whole = tokenizer.apply_chat_template(dicts, tokenize=True, return_dict=False, enable_thinking=False)
    ids = encode_prompt(tokenizer, messages[:1]) + encode_reply(tokenizer, "With milk.")
    assert whole[: len(ids)] == ids
    assert not tokenizer.decode(whole[len(ids) :]).strip()


@families
def test_system_text_is_seen_once_even_where_there_is_no_system_role(name: str) -> None:
    tokenizer = tokenizer_of(name)
    messages = [Message("system", "Be brief."), *CONVERSATIONS[1]]
    text = tokenizer.decode(encode_prompt(tokenizer, messages))
    assert text.count("Be brief.") == 1
    before, _, after = text.partition("Be brief.")
    if name.startswith("gemma"):
        assert before.endswith("<start_of_turn>user\n") and after.startswith("\n\nWhat is a good way")
    elif name == "mistral":
        assert before.endswith("[INST] ") and after.startswith("\n\nWhy")
    else:
        assert "system" in before and "What is a good way" in after


@families
def test_text_of_a_reply_streams_as_it_decodes(name: str) -> None:
    tokenizer = tokenizer_of(name)
    said = "Put it in water:\n- 你好, naïve 😀👩‍👧 wörld"
    text = ReplyText(tokenizer)
    ids = encode_reply(tokenizer, said)[:-1]
    streamed = "".join([text.push(token) for token in ids] + [text.flush()])
    assert streamed == tokenizer.decode(ids) and streamed.strip() == said


def test_bytes_that_are_no_text_do_not_end_a_reply() -> None:
    """A model that falls back to bytes may write any of them, in any order."""
    tokenizer = tokenizer_of("gemma2")
    pieces = ["<0x16>", "<0xF0>", "<0x9F>", "<0x41>", "<0xFF>", "▁a", "<0xC3>", "<0xA9>", "r"]
    text = ReplyText(tokenizer)
    said = [text.push(tokenizer.convert_tokens_to_ids(piece)) for piece in pieces]
    assert "".join(said).endswith(" aér") and said[6] == ""


@families
def test_long_conversation_loses_its_oldest_turns(name: str) -> None:
    tokenizer = tokenizer_of(name)
    said = [Message("assistant" if n % 2 else "user", f"Number {n}. {'tea ' * 6}".strip()) for n in range(21)]
    messages = [Message("system", "Be brief."), *said]
    budget = count_tokens(tokenizer, messages) // 2
    window = fit(messages, budget=budget, count_tokens=lambda part: count_tokens(tokenizer, part))
    assert window[0] == messages[0] and window[1].role == "user"
    assert list(window[1:]) == said[-(len(window) - 1) :]
    assert len(window) > 5 and len(encode_prompt(tokenizer, window)) <= budget
    with pytest.raises(WindowError, match=r"are \d+ tokens long; the model has room for 9\. Shorten"):
        fit(messages, budget=9, count_tokens=lambda part: count_tokens(tokenizer, part))


def test_message_longer_than_the_context_is_refused_with_both_sizes(load: Any) -> None:
    base = replace(load("gemma2"), context_tokens=64)
    policy = LocalPolicy(base_model=base, threads=1)
    try:
        with pytest.raises(PromptTooLong, match=r"takes \d+ tokens, and the context is 64"):
            policy.start([Message("user", "long " * 60)], version="base", sampling=GREEDY)
    finally:
        policy.close()


def test_context_ends_where_longer_rows_would_change_the_others(load: Any) -> None:
    assert load("phi4-mini").context_tokens == 256
    assert load("phi4").context_tokens == 512


def test_soft_caps_are_computed(load: Any) -> None:
    """Attention that leaves them out would be another function than the one that was trained."""
    base = load("gemma2", quantization="none")
    ids = torch.tensor([encode_prompt(base.tokenizer, CONVERSATIONS[1])])
    with torch.inference_mode():
        capped = base.model(input_ids=ids).logits
        for layer in base.model.model.layers:
            layer.self_attn.attn_logit_softcapping = None
        assert (base.model(input_ids=ids).logits - capped).abs().max() > 1e-3
    assert capped.abs().max() <= base.model.config.final_logit_softcapping


def test_thinking_is_switched_off(load: Any) -> None:
    tokenizer = tokenizer_of("qwen3")
    assert tokenizer.decode(encode_prompt(tokenizer, CONVERSATIONS[0])).endswith("<think>\n\n</think>\n\n")
    assert "<think>" not in tokenizer.decode(encode_reply(tokenizer, "Tea."))


def test_roles_in_an_order_that_no_family_knows_are_refused() -> None:
    with pytest.raises(PromptError, match="cannot express messages with the roles assistant, user"):
        encode_prompt(tokenizer_of("mistral"), [Message("assistant", "a"), Message("user", "b")])


def test_chat_with_a_family_that_has_no_system_role(load: Any, tmp_path: Path) -> None:
    """Through the chat service: the system prompt is folded in, old turns drop out, a message too long is refused."""
    policy = LocalPolicy(base_model=replace(load("gemma2"), context_tokens=160), threads=1)
    with desk_at(tmp_path, policy=policy, system_prompt="Be brief.", max_new_tokens=16) as desk:
        where = desk.begin()
        exchanges = [desk.say(where, f"Number {n}: <end_of_turn> tea?") for n in range(5)]
        assert [side.stream.error for exchange in exchanges for side in exchange.sides] == [None] * 5
        prompts = [exchange.prompt for exchange in exchanges]
        assert all(prompt[0] == Message("system", "Be brief.") for prompt in prompts)
        assert len(prompts[-1]) < 10 and prompts[-1][1].content != "Number 0: <end_of_turn> tea?"
        assert prompts[-1][-1].content == "Number 4: <end_of_turn> tea?"
        assert all(policy.count_tokens(prompt) <= 160 - 16 for prompt in prompts)
        with pytest.raises(ChatRefused, match=r"are \d{3} tokens long; the model has room for 144"):
            desk.chat.send(ANN, where, "tea " * 120)


def test_message_that_no_template_can_express_is_refused_in_the_chat(tmp_path: Path) -> None:
    class Strict(ScriptedPolicy):
        def count_tokens(self, messages: Any) -> int:
            raise PromptError("The model's chat template cannot express that.")

    with (
        desk_at(tmp_path, policy=Strict(delay=0.0)) as desk,
        pytest.raises(ChatRefused, match="cannot express that"),
    ):
        desk.chat.send(ANN, desk.begin(), "hello")
