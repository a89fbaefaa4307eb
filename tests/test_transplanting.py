"""Trees as files and back, branches, facts, links: what a person takes along, brings, shares and has remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from furnished import furnish
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.conversations import Conversations, UnknownConversation
from memory.database import Database, open_database
from memory.facts import MOST_FACTS, Facts, TooManyFacts, UnknownFact
from memory.past import at
from memory.schema import Message
from memory.search import Search
from memory.transplanting import Planted, branch_off, plant, tree_of
from studio import remembering_tab
from studio.exporting import as_json, as_markdown
from studio.importing import Unreadable, conversations_in
from studio.intake import ChatRefused

pytest_plugins = ("tests.postgres",)


def forked(conversations: Conversations) -> str:
    """A question with two replies, the second one shown and gone on from."""
    made = conversations.create("me", title="Tea", system_prompt="Be brief.").id
    first = conversations.append(made, Message("user", "How long?"), parent=None)
    conversations.append(made, Message("assistant", "4 min"), parent=first.id, turn_id="t1")
    reply = conversations.append(made, Message("assistant", "Four minutes."), parent=first.id, turn_id="t2")
    conversations.append(made, Message("user", "How hot?"), parent=reply.id)
    return made


def said(conversations: Conversations, conversation_id: str) -> list[tuple[str, str]]:
    return [(node.message.role, node.message.content) for node in conversations.path(conversation_id)]


def test_an_export_comes_back_as_it_was(database: Database) -> None:
    conversations = Conversations(database)
    made = forked(conversations)
    text = as_json(conversations.get(made), tree_of(database, made))
    (read,) = conversations_in(text)
    again = plant(
        database, "you", read.said, title=read.title, system_prompt=read.system_prompt, head=read.head
    )
    assert (again.title, again.system_prompt, again.owner) == ("Tea", "Be brief.", "you")
    assert said(conversations, again.id) == said(conversations, made)
    shape = [(n.message, n.parent is None) for n in tree_of(database, made)]
    assert [(n.message, n.parent is None) for n in tree_of(database, again.id)] == shape
    assert all(node.turn_id is None for node in tree_of(database, again.id))
    assert [one.conversation_id for one in Search(database).find("you", "hot")] == [again.id]
    past = conversations.past(again.id)
    assert [at(past, depth).message.content for depth in range(3)] == [
        "How long?",
        "Four minutes.",
        "How hot?",
    ]  # type: ignore[union-attr]


def test_markdown_is_the_path_that_is_shown(database: Database) -> None:
    conversations = Conversations(database)
    made = conversations.get(forked(conversations))
    text = as_markdown(made, conversations.path(made.id))
    assert text.startswith(
        "# Tea\n\n*2026-01-01*\n\n> Be brief.\n\n**You**\n\nHow long?\n\n**Reply**\n\nFour minutes."
    )
    assert "4 min" not in text


def test_a_branch_is_a_conversation_of_its_own_that_keeps_its_turns(database: Database) -> None:
    conversations = Conversations(database)
    made = forked(conversations)
    reply = conversations.path(made)[1]
    conversations.remember_by(made, "last_turns:3", elsewhere=True)
    branch = branch_off(database, made, reply.id, title="Tea (branch)")
    assert said(conversations, branch.id) == [("user", "How long?"), ("assistant", "Four minutes.")]
    assert [node.turn_id for node in conversations.path(branch.id)] == [None, "t2"]
    kept = conversations.get(branch.id)
    assert (kept.owner, kept.system_prompt, kept.memory, kept.elsewhere) == (
        "me",
        "Be brief.",
        "last_turns:3",
        True,
    )
    conversations.append(branch.id, Message("user", "Thanks"), parent=kept.head)
    assert len(conversations.path(made)) == 3


def test_what_cannot_be_planted_leaves_nothing_behind(database: Database) -> None:
    conversations = Conversations(database)
    for wrong, says in (
        (Planted("b", "a", Message("user", "x")), "does not stand before it"),
        (Planted("b", None, Message("system", "x")), "cannot be planted"),
    ):
        with pytest.raises(ValueError, match=says):
            plant(database, "me", [Planted("c", None, Message("user", "first")), wrong], title="")
    assert conversations.list("me") == [] and Search(database).find("me", "first") == []


CHATGPT = [
    {
        "title": "Bees",
        "current_node": "d",
        "mapping": {
            "root": {"id": "root", "message": None, "parent": None, "children": ["s"]},
            "s": {
                "message": {
                    "author": {"role": "system"},
                    "content": {"content_type": "text", "parts": [""]},
                    "metadata": {"is_visually_hidden_from_conversation": True},
                },
                "parent": "root",
            },
            "a": {
                "message": {"author": {"role": "user"}, "content": {"parts": ["What do bees eat?"]}},
                "parent": "s",
            },
            "b": {
                "message": {"author": {"role": "assistant"}, "content": {"parts": ["Nectar."]}},
                "parent": "a",
            },
            "t": {"message": {"author": {"role": "tool"}, "content": {"parts": ["42"]}}, "parent": "a"},
            "d": {
                "message": {
                    "author": {"role": "assistant"},
                    "content": {"parts": ["Pollen, ", {"asset_pointer": "file"}, "mostly."]},
                },
                "parent": "t",
            },
        },
    }
]
OPEN_WEBUI = [
    {
        "id": "x",
        "title": "Boats",
        "chat": {
            "title": "Boats",
            "params": {"system": "Be a sailor."},
            "history": {
                "currentId": "2",
                "messages": {
                    "2": {"id": "2", "parentId": "1", "role": "assistant", "content": "They float."},
                    "1": {"id": "1", "parentId": None, "role": "user", "content": "Why do boats float?"},
                },
            },
        },
    }
]


def test_exports_of_others_are_read_with_their_branches() -> None:
    (bees,) = conversations_in(json.dumps(CHATGPT))
    assert bees.title == "Bees" and bees.head == "d" and bees.system_prompt == ""
    assert [(one.key, one.parent, one.message.content) for one in bees.said] == [
        ("a", None, "What do bees eat?"),
        ("b", "a", "Nectar."),
        ("d", "a", "Pollen, \nmostly."),
    ]
    (boats,) = conversations_in(json.dumps(OPEN_WEBUI))
    assert (boats.title, boats.system_prompt, boats.head) == ("Boats", "Be a sailor.", "2")
    assert [one.key for one in boats.said] == ["1", "2"]
    assert len(conversations_in(json.dumps(CHATGPT + OPEN_WEBUI))) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[1, null, true]", '{"mapping": {}}', '"text"'])
def test_a_file_of_another_kind_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(Unreadable, match="This file"):
        conversations_in(text)


wild = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.sampled_from(["user", "assistant", "a", "b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mapping", "message", "author", "role", "content", "parts", "parent", "a", "b"]),
            inner,
        )
    ),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), wild), wild)
def test_nothing_in_a_file_can_do_worse_than_be_refused(mapping: dict[str, Any], other: Any) -> None:
    history = {"messages": mapping, "currentId": "a"}
    for data in ({"mapping": mapping, "current_node": other}, {"chat": {"history": history}}, other):
        try:
            read = conversations_in(json.dumps(data))
        except Unreadable:
            continue
        for one in read:
            keys = [planted.key for planted in one.said]
            assert all(p.parent is None or p.parent in keys[: keys.index(p.key)] for p in one.said)


def test_messages_that_go_round_in_a_circle_are_left_out() -> None:
    rows = {
        "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["x"]}}, "parent": "b"},
        "b": {"message": {"author": {"role": "user"}, "content": {"parts": ["y"]}}, "parent": "a"},
        "c": {"message": {"author": {"role": "user"}, "content": {"parts": ["z"]}}, "parent": None},
    }
    (read,) = conversations_in(json.dumps({"mapping": rows}))
    assert [one.message.content for one in read.said] == ["z"]


def test_facts_are_ones_own_and_deleted_when_deleted(database: Database) -> None:
    facts = Facts(database)
    kept = facts.add("me", "  I am\na vegetarian. ")
    assert kept.text == "I am a vegetarian." and facts.add("me", "I am a vegetarian.") == kept
    facts.add("you", "I live in Oslo.")
    assert [fact.text for fact in facts.list("me")] == ["I am a vegetarian."]
    for trespass in (lambda: facts.change("you", kept.id, "x"), lambda: facts.delete("you", kept.id)):
        with pytest.raises(UnknownFact):
            trespass()
    facts.change("me", kept.id, "I am a vegan.")
    assert [fact.text for fact in facts.list("me")] == ["I am a vegan."]
    facts.delete("me", kept.id)
    assert facts.list("me") == [] and facts.delete_all("you") == 1
    for wrong in ("", " \n", "x" * 301):
        with pytest.raises(ValueError, match=r"nothing to remember|characters long"):
            facts.add("me", wrong)
    for number in range(MOST_FACTS):
        facts.add("me", f"fact {number}")
    with pytest.raises(TooManyFacts, match="Delete one first"):
        facts.add("me", "one more")


def test_pinned_conversations_come_first_and_links_show_what_is_shared(
    database: Database, clock: Any
) -> None:
    conversations = Conversations(database)
    old = conversations.create("me", title="old").id
    clock.now += 5
    new = conversations.create("me", title="new").id
    conversations.pin(old, True)
    assert [kept.id for kept in conversations.list("me")] == [old, new]
    conversations.share(new, "word")
    assert conversations.shared_by("word").id == new
    conversations.hide(new)
    for word in ("word", "", "other"):
        with pytest.raises(UnknownConversation):
            conversations.shared_by(word)


def test_what_the_studio_does_not_offer_is_refused_and_strangers_get_nothing(tmp_path: Path) -> None:
    with furnish(tmp_path / "data", compare_every=0) as studio:
        mine = studio.chat.owned.begin("me").id
        for action in ("facts", "keep_fact"):
            with pytest.raises(ChatRefused, match="remembers nothing"):
                remembering_tab.ACTIONS[action](studio, "me", {"text": "x"})
        with pytest.raises(ChatRefused, match="makes no links"):
            remembering_tab.share(studio, "me", {"conversation": mine, "shared": True})
        with pytest.raises(ChatRefused, match="expected one of"):
            remembering_tab.remember_by(studio, "me", {"conversation": mine, "memory": "nonsense"})
        for action in ("context", "remember_by", "pin", "share", "export"):
            with pytest.raises(ChatRefused, match="not here"):
                remembering_tab.ACTIONS[action](studio, "you", {"conversation": mine})
        seen = remembering_tab.look(studio, "me", {"conversation": mine})["context"]
        assert seen["budget"] == studio.reminder.budget and seen["prompt"] == [{"role": "user", "text": "…"}]
        assert sum(part["tokens"] for part in seen["parts"]) == seen["used"]


def test_an_old_database_gets_places_and_words_for_what_was_said_in_it(tmp_path: Path) -> None:
    """Messages written without depth, jump and words, as before revision 0003, forked and a hundred deep."""
    from alembic import command
    from alembic.config import Config

    import memory.database

    url = f"sqlite:///{tmp_path / 'old.db'}"
    database = open_database(url)
    config = Config()
    config.set_main_option("script_location", str(Path(memory.database.__file__).with_name("migrations")))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        connection.exec_driver_sql(
            "INSERT INTO conversations (id, owner, title, system_prompt, head, hidden, created_at, updated_at) "
            "VALUES ('k', 'me', 'Old', '', 'n99', false, 1.0, 2.0)"
        )
        for number in range(100):
            parent = None if number == 0 else f"n{number - 1 if number != 50 else 20}"
            connection.exec_driver_sql(
                "INSERT INTO nodes (id, conversation_id, parent, role, content, created_at) "
                "VALUES (?, 'k', ?, 'user', ?, 3.0)",
                (f"n{number}", parent, f"word number{number}"),
            )
    database.close()
    opened = open_database(url)
    past = Conversations(opened).past("k")
    assert past.length == 71
    assert [at(past, depth).id for depth in (0, 20, 21, 70)] == ["n0", "n20", "n50", "n99"]  # type: ignore[union-attr]
    assert [one.node_id for one in Search(opened).find("me", "number37")] == ["n37"]
    with pytest.raises(Exception, match="never changed"), opened.write() as connection:
        connection.exec_driver_sql("UPDATE nodes SET content = 'x'")
    opened.close()
