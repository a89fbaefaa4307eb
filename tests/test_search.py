"""The word index, search and recall: what is found, whose it is, and what is never found. On SQLite and PostgreSQL."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.bm25 import Corpus, corpus_of, score
from memory.conversations import Conversations
from memory.database import Database
from memory.embedded import EmbeddedRecollection, VectorShelf
from memory.hashed import HashedEmbeddings
from memory.past import Followed, ListedPast, at
from memory.schema import Message
from memory.search import Search, StoredRecollection
from memory.strategies.recall import ListedRecollection
from memory.words import words_of

pytest_plugins = ("tests.postgres",)


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


def talk(conversations: Conversations, owner: str, *said: str, title: str = "") -> str:
    """A conversation of `owner` in which this was said in turn, the person first."""
    made = conversations.create(owner, title=title).id
    parent = None
    for place, text in enumerate(said):
        message = Message("user" if place % 2 == 0 else "assistant", text)
        parent = conversations.append(made, message, parent=parent).id
    return made


FILLER = [f"the weather on day {number} was mild and I like it" for number in range(150)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog's 2 Dogs!", ["the", "dog", "2", "dog"]),
        ("Café ÉCOLE straße", ["cafe", "ecole", "strasse"]),
        ("berries lies gas glass bus", ["berry", "lie", "gas", "glass", "bus"]),
        ("don't", ["dont"]),
        ("чай", ["u00447u00430u00438"]),
        ("お茶", ["u0304a", "u08336", "u0304au08336"]),
        ('\'; DROP TABLE "nodes" --*', ["drop", "table", "node"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_words_are_ascii_letters_and_digits_whatever_is_said(text: str) -> None:
    assert all(word.isascii() and word.isalnum() and word == word.lower() for word in words_of(text))
    assert words_of(text) == words_of(f" {text}\n")


def test_bm25_is_the_formula() -> None:
    """idf(a) = ln(1 + (2 - 1 + .5) / (1 + .5)) = ln 2; tf = 2 * 2.2 / (2 + 1.2 * (.25 + .75 * 3 / 2)) = 4.4 / 3.65."""
    corpus = Corpus(texts=2, average_words=2, containing={"a": 1})
    assert score(["a", "a", "x"], ["a", "a", "b"], corpus=corpus) == pytest.approx(0.6931472 * 4.4 / 3.65)
    assert corpus_of([["a", "b"], ["b"]]) == Corpus(2.0, 1.5, {"a": 1, "b": 2})
    assert corpus_of([]).idf("a") > 0


def test_a_person_finds_what_was_said_anywhere_and_nobody_elses(conversations: Conversations) -> None:
    mine = talk(conversations, "me", "I keep penguins.", "How many penguins?", title="Birds")
    talk(conversations, "me", "I keep bees.")
    talk(conversations, "you", "penguins are mine")
    search = Search(conversations._database)
    found = search.find("me", "PENGUIN keep")
    assert [(one.conversation_id, one.title, one.message.content) for one in found] == [
        (mine, "Birds", "I keep penguins.")
    ]
    assert [one.message.content for one in search.find("me", "peng")] == [
        "How many penguins?",
        "I keep penguins.",
    ]
    assert search.find("me", "peng ") == []
    assert search.find("me", "!?") == search.find("nobody", "penguins") == []


def test_what_was_deleted_is_not_found_and_what_was_edited_away_still_is(
    conversations: Conversations,
) -> None:
    search = Search(conversations._database)
    mine = talk(conversations, "me", "alpha beta")
    conversations.append(mine, Message("user", "gamma delta"), parent=None)
    assert [one.message.content for one in search.find("me", "beta")] == ["alpha beta"]
    conversations.hide(mine)
    assert search.find("me", "beta") == []


def test_any_text_can_be_said_and_looked_for(conversations: Conversations) -> None:
    hostile = "NUL \x00 lone \ud800 \"quotes\" 'single' (a AND b) NEAR * -- עברית 茶 c:x & | !"
    talk(conversations, "me", hostile)
    search = Search(conversations._database)
    for query in (hostile, '"', "*", "AND", "a AND b", "עברית", "茶", "NEAR("):
        assert [one.message.content for one in search.find("me", query)] in ([hostile], [])
    assert search.find("me", "עברי") and search.find("me", "茶") and search.find("me", "single")


def test_recall_finds_the_turn_however_long_ago(conversations: Conversations, database: Database) -> None:
    said = [*FILLER[:20], "My parrot is called Ludo.", "A fine name.", *FILLER]
    mine = talk(conversations, "me", *said)
    past = Followed(conversations.past(mine), Message("user", "What is the name of the parrot I have?"))
    found = StoredRecollection(database, "me").find("What is the parrot called?", past, before=150, limit=3)
    assert found[0].text == "Person: My parrot is called Ludo.\nYou: A fine name."
    assert len(found[0].sources) == 2 and not found[0].elsewhere
    listed = ListedRecollection().find(
        "What is the parrot called?",
        ListedPast([one.message for one in past.stretch(0, 173)]),
        before=150,
        limit=3,
    )
    assert listed[0].text == found[0].text
    assert StoredRecollection(database, "me").find("parrot", past, before=20, limit=3) == []


def test_recall_keeps_to_the_path(conversations: Conversations, database: Database) -> None:
    mine = conversations.create("me").id
    gone = conversations.append(mine, Message("user", "My parrot is called Ludo."), parent=None)
    conversations.append(mine, Message("assistant", "I see."), parent=gone.id)
    kept = conversations.append(mine, Message("user", "My parrot is called Kiki."), parent=None)
    reply = conversations.append(mine, Message("assistant", "I see."), parent=kept.id)
    conversations.append(mine, Message("user", "Go on."), parent=reply.id)
    past = conversations.past(mine)
    (found,) = StoredRecollection(database, "me").find("parrot name", past, before=2, limit=5)
    assert "Kiki" in found.text


def test_recall_from_other_conversations_only_when_wanted_and_only_ones_own(
    conversations: Conversations, database: Database
) -> None:
    talk(conversations, "me", "My parrot is called Ludo.", "I see.")
    talk(conversations, "you", "Your parrot is called Nemo.", "Indeed.")
    deleted = talk(conversations, "me", "My parrot was called Rio.")
    conversations.hide(deleted)
    here = talk(conversations, "me", "Hello", "Hi", "What is my parrot called?")
    past = conversations.past(here)
    asked = "What is my parrot called?"
    assert StoredRecollection(database, "me").find(asked, past, before=2, limit=5) == []
    found = StoredRecollection(database, "me", elsewhere=True).find(asked, past, before=2, limit=5)
    assert [one.text for one in found] == ["Person: My parrot is called Ludo."]
    assert found[0].elsewhere


def test_embeddings_recall_too_and_are_made_once(conversations: Conversations, database: Database) -> None:
    talk(conversations, "me", "My parrots are called Ludo.", "I see.")
    here = talk(conversations, "me", "I adore penguins.", "Lovely.", "It rains.", "Indeed.", "Penguin facts?")
    shelf = VectorShelf(database, HashedEmbeddings(size=256), maker="hashed-256")
    for conversation in conversations.list("me"):
        shelf.catch_up(conversation.id)
    assert shelf.catch_up(here) == 0
    past = conversations.past(here)
    found = EmbeddedRecollection(database, shelf, "me").find("penguins", past, before=4, limit=2)
    assert found[0].text == "Person: I adore penguins.\nYou: Lovely."
    elsewhere = EmbeddedRecollection(database, shelf, "me", elsewhere=True)
    assert (
        elsewhere.find("parrot names", past, before=4, limit=2)[0].text
        == "Person: My parrots are called Ludo."
    )
    assert VectorShelf(database, HashedEmbeddings(size=64), maker="other").nearest("x", [here], limit=3) == []


def test_hashed_vectors_are_of_length_one_and_near_where_words_are_shared() -> None:
    one, same, other, nothing = HashedEmbeddings().embed_documents(
        ["My dog Rex", "rex, my dogs!", "blue boats", ""]
    )
    assert sum(value * value for value in one) == pytest.approx(1.0)
    near = sum(a * b for a, b in zip(one, same, strict=True))
    far = sum(a * b for a, b in zip(one, other, strict=True))
    assert near > 0.8 and abs(far) < 0.3 and not any(nothing)
    with pytest.raises(ValueError, match="expected 8 or more"):
        HashedEmbeddings(size=1)


def test_any_place_of_any_path_is_found(conversations: Conversations) -> None:
    """A tree with a fork at every third message: each path is what walking up by parents gives."""
    mine = conversations.create("me").id
    parents: dict[str, str | None] = {}
    tips: list[str | None] = [None]
    for number in range(40):
        parent = tips[(number * 7) % len(tips)] if number % 3 == 0 else tips[-1]
        node = conversations.append(mine, Message("user", str(number)), parent=parent)
        parents[node.id] = parent
        tips.append(node.id)
    for tip in list(parents)[::5]:
        walked = [tip]
        while (above := parents[walked[-1]]) is not None:
            walked.append(above)
        walked.reverse()
        past = conversations.past(mine, leaf=tip)
        assert past.length == len(walked)
        for depth, expected in enumerate(walked):
            found = at(past, depth)
            assert found is not None and (found.id, found.depth) == (expected, depth)
        middle = len(walked) // 2
        assert [one.id for one in past.stretch(middle, len(walked))] == walked[middle:]
        assert [one.id for one in past.stretch(0, middle)] == walked[:middle]
