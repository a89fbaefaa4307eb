"""LangChain's own standard tests for chat models, run on both policies: they drop into anyone's chain.

What is switched off below is what these policies honestly do not do: tools, structured output, images, and answering
as another model than the one they hold. No test is overridden or expected to fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from studio.policy.chat_model import ChatPolicy
from studio.policy.local import LocalPolicy
from studio.policy.scripted import ScriptedPolicy
from tests.tiny import save_tiny_base
from training.base import BaseModel, load_base
from training.settings import TrainingSettings


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base(TrainingSettings(model=str(save_tiny_base(tmp_path_factory.mktemp("base")))))


@pytest.fixture(autouse=True)
def closed_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close whatever policy a test makes, since the standard tests know of no closing."""
    made: list[ChatPolicy] = []
    for kind in (LocalPolicy, ScriptedPolicy):
        begin = kind.model_post_init

        def begin_and_remember(policy: ChatPolicy, context: Any, /, begin: Any = begin) -> None:
            begin(policy, context)
            made.append(policy)

        monkeypatch.setattr(kind, "model_post_init", begin_and_remember)
    yield
    for policy in made:
        policy.close()


@pytest.fixture(params=["scripted", "local"])
def policy(request: pytest.FixtureRequest, tiny: BaseModel) -> ChatPolicy:
    if request.param == "scripted":
        return ScriptedPolicy(delay=0.0, temperature=0.0)
    return LocalPolicy(base_model=tiny, threads=1, temperature=0.0, max_tokens=24)


class Scripted:
    """The shipped fake, without its pauses."""

    @property
    def chat_model_class(self) -> type[ScriptedPolicy]:
        return ScriptedPolicy

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"delay": 0.0}


class Local:
    """The model on this machine, with a tiny random base."""

    @pytest.fixture(autouse=True)
    def take_base(self, tiny: BaseModel) -> None:
        self._base = tiny

    @property
    def chat_model_class(self) -> type[LocalPolicy]:
        return LocalPolicy

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_model": self._base, "threads": 1, "seed": 1}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 16, "stop": []}


class Plain:
    """What neither policy does."""

    @property
    def supports_model_override(self) -> bool:
        return False


class TestScriptedUnit(Plain, Scripted, ChatModelUnitTests):
    """The offline half, on the fake."""


class TestScriptedIntegration(Plain, Scripted, ChatModelIntegrationTests):
    """The half that asks for replies, on the fake."""


class TestLocalUnit(Plain, Local, ChatModelUnitTests):
    """The offline half, on the model."""


class TestLocalIntegration(Plain, Local, ChatModelIntegrationTests):
    """The half that asks for replies, on the model."""


def test_chain_with_parser_batch_and_async(policy: ChatPolicy) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Be kind."), ("human", "{question}")])
    chain = prompt | policy | StrOutputParser()
    alone = [chain.invoke({"question": question}) for question in ("Tea?", "Rain?")]
    assert all(alone) and len(set(alone)) == 2
    assert chain.batch([{"question": "Tea?"}, {"question": "Rain?"}]) == alone
    assert "".join(chain.stream({"question": "Tea?"})) == alone[0]
    assert asyncio.run(chain.abatch([{"question": "Tea?"}, {"question": "Rain?"}])) == alone


def test_fallback_takes_over_when_a_policy_is_closed(policy: ChatPolicy) -> None:
    closed = ScriptedPolicy()
    closed.close()
    assert closed.with_fallbacks([policy]).invoke("Tea?").content == policy.invoke("Tea?").content


def test_usage_and_errors_reach_the_callbacks(policy: ChatPolicy) -> None:
    errors: list[BaseException] = []

    class Ear(BaseCallbackHandler):
        def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
            errors.append(error)

    usage = UsageMetadataCallbackHandler()
    answers = policy.batch(["Tea?", "Rain?"], config={"callbacks": [usage]})
    spent = [answer.usage_metadata["output_tokens"] for answer in answers if isinstance(answer, AIMessage)]
    assert usage.usage_metadata[policy.model_name]["output_tokens"] == sum(spent) > 0
    with pytest.raises(LookupError, match="not loaded"):
        policy.invoke("Tea?", version="v0404", config={"callbacks": [Ear()]})
    assert len(errors) == 1


def test_trimming_counts_with_the_policys_own_tokenizer(policy: ChatPolicy) -> None:
    messages: list[BaseMessage] = [SystemMessage("Be kind.")]
    messages += [(HumanMessage, AIMessage)[n % 2](f"Number {n}: tea and trains") for n in range(9)]
    room = policy.get_num_tokens_from_messages(messages) // 2
    kept = trim_messages(
        messages, max_tokens=room, token_counter=policy, include_system=True, start_on="human"
    )
    assert kept[0] == messages[0] and kept[1:] == messages[-(len(kept) - 1) :] and len(kept) > 3
    assert policy.get_num_tokens_from_messages(kept) <= room
    assert 0 < policy.get_num_tokens("tea") < policy.get_num_tokens("tea and trains")
    assert policy.get_num_tokens_from_messages([]) == 0


def test_cache_tells_policies_with_other_defaults_apart() -> None:
    cache = InMemoryCache()
    first, second = (ScriptedPolicy(delay=0.0, max_tokens=most, cache=cache) for most in (3, 5))
    assert first.invoke("Tea?").content != second.invoke("Tea?").content
    assert first.invoke("Tea?").content == first.invoke("Tea?", max_tokens=3).content


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "gpt-x"}, "asks for model 'gpt-x'.*chosen with version"),
        ({"tools": [{"name": "search"}]}, "has tools, which this policy cannot do"),
        ({"presence_penalty": 1.0}, "has presence_penalty"),
    ],
)
def test_what_a_policy_cannot_do_is_refused(
    policy: ChatPolicy, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        policy.invoke("Tea?", **arguments)
    with pytest.raises(NotImplementedError):
        policy.bind_tools([])
    with pytest.raises(ValueError, match="answers system, human and AI messages only"):
        policy.invoke([ToolMessage("4", tool_call_id="1")])
    assert policy.invoke("Tea?", model=policy.model_name, temperature=None, stream_usage=True).content


def test_what_is_traced_names_provider_and_model(policy: ChatPolicy) -> None:
    assert policy._get_ls_params()["ls_provider"] == "thumbprint"
    assert policy._get_ls_params()["ls_model_name"] == policy.model_name
    assert len(repr(policy)) < 1000
