"""Where stateless requests land: what goes on with a known history in its conversation, all else in a new one."""

from __future__ import annotations

import pytest
from doorway import door_at

from memory.conversations import Conversations
from memory.database import open_database
from memory.schema import Message
from studio.door.histories import Histories, Place

TEA, MORE, SYSTEM = Message("user", "Tea?"), Message("user", "And more?"), Message("system", "Be brief.")
ANN, BOB = "ann", "bob"


@pytest.fixture
def conversations(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'histories.db'}")
    yield Conversations(database)
    database.close()


@pytest.fixture(params=[4_096, 0], ids=["remembered", "searched"])
def histories(request, conversations):
    return Histories(conversations, keep=request.param)


def reply(conversations, place: Place, text: str, *, turn: str | None = "turn") -> Message:
    """Answer at `place` as the recorder does."""
    said = Message("assistant", text)
    conversations.append(place.conversation_id, said, parent=place.node_id, turn_id=turn)
    return said


def told(conversations, place: Place) -> list[str]:
    path = conversations.path(place.conversation_id, leaf=place.node_id)
    return [node.message.content for node in path]


def test_a_history_that_goes_on_from_our_reply_stays_in_its_conversation(histories, conversations):
    first = histories.place(ANN, (SYSTEM, TEA))
    said = reply(conversations, first, "Yes.")
    second = histories.place(ANN, (SYSTEM, TEA, said, MORE))
    assert second.conversation_id == first.conversation_id
    assert told(conversations, second) == ["Tea?", "Yes.", "And more?"]
    said_more = reply(conversations, second, "Milk.")
    third = histories.place(ANN, (SYSTEM, TEA, said, MORE, said_more, TEA))
    assert third.conversation_id == first.conversation_id
    assert conversations.get(first.conversation_id).system_prompt == "Be brief."
    assert len(conversations.list(ANN)) == 1


def test_it_goes_on_from_any_of_several_replies(histories, conversations):
    first = histories.place(ANN, (TEA,))
    said = [reply(conversations, first, text) for text in ("Yes.", "No.")]
    branches = [histories.place(ANN, (TEA, one, MORE)) for one in said]
    assert {branch.conversation_id for branch in branches} == {first.conversation_id}
    assert [told(conversations, branch)[1] for branch in branches] == ["Yes.", "No."]


def test_it_goes_on_from_a_correction(histories, conversations):
    first = histories.place(ANN, (TEA,))
    reply(conversations, first, "Yes.")
    corrected = reply(conversations, first, "Yes, gladly.", turn=None)
    assert histories.place(ANN, (TEA, corrected, MORE)).conversation_id == first.conversation_id


def test_it_goes_on_below_a_message_whose_reply_never_came(histories):
    first = histories.place(ANN, (TEA,))
    assert histories.place(ANN, (TEA, MORE)).conversation_id == first.conversation_id


def test_an_exact_repeat_stands_beside_the_earlier_one(histories):
    assert histories.place(ANN, (TEA,)) == histories.place(ANN, (TEA,))


@pytest.mark.parametrize(
    "other",
    [
        (ANN, (SYSTEM, TEA, Message("assistant", "Yes."), MORE)),
        (ANN, (TEA, Message("assistant", "Never said."), MORE)),
        (ANN, (Message("user", "Coffee?"), Message("assistant", "Yes."), MORE)),
        (BOB, (TEA, Message("assistant", "Yes."), MORE)),
    ],
    ids=["another system prompt", "another reply", "another beginning", "another owner"],
)
def test_everything_else_begins_a_conversation_and_keeps_its_history(histories, conversations, other):
    first = histories.place(ANN, (TEA,))
    reply(conversations, first, "Yes.")
    elsewhere = histories.place(*other)
    assert elsewhere.conversation_id != first.conversation_id
    assert told(conversations, elsewhere)[-1] == "And more?"
    assert len(told(conversations, elsewhere)) == 3


def test_told_examples_do_not_gather_in_one_conversation(histories):
    examples = (TEA, Message("assistant", "An example."))
    places = [histories.place(ANN, (*examples, Message("user", f"Question {n}"))) for n in range(3)]
    assert len({place.conversation_id for place in places}) == 3


def test_what_is_remembered_is_bounded(conversations):
    histories = Histories(conversations, keep=2)
    for number in range(5):
        histories.place(ANN, (Message("user", f"Question {number}"),))
    assert len(histories._known) == 2


def test_a_clients_chat_lands_in_one_conversation_also_after_a_restart(tmp_path):
    messages: list[dict[str, str]] = []
    found = set()
    for question in ("What is tea?", "And coffee?", "And milk?"):
        with door_at(tmp_path / "data") as door:
            messages.append({"role": "user", "content": question})
            reply = door.ask(messages=messages, user="ann")
            messages.append({"role": "assistant", "content": reply.choices[0].message.content})
            found.add(door.studio.ledger.turn(reply.thumbprint["turn_id"]).conversation_id)
    assert len(found) == 1
    with door_at(tmp_path / "data") as door:
        (conversation,) = found
        shown = [node.message.content for node in door.studio.conversations.path(conversation)]
        assert shown == [message["content"] for message in messages]
