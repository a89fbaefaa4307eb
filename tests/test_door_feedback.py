"""Feedback by receipt: every kind of it ends in the ledger as from the page, once, and only from its client."""

from __future__ import annotations

import pytest
from doorway import door_at

from studio.door.receipts import Receipt, ReceiptRefused, Receipts, open_receipts
from training.views import preference_view, read_feedback, sft_rows, unpaired_rows


@pytest.fixture
def door(tmp_path):
    with door_at(tmp_path / "data") as opened:
        yield opened


def outcomes(answer) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    return [(one["kind"], one["outcome"]) for one in answer.json()["judgements"]]


def test_a_thumb_is_given_repeated_changed_and_taken_back(door):
    proof = door.ask("Hello").thumbprint
    assert outcomes(door.tell(proof["receipt"], thumb="up")) == [("rating", "recorded")]
    last = door.studio.ledger.last_sequence()
    assert outcomes(door.tell(proof["receipt"], thumb="up")) == [("rating", "unchanged")]
    assert door.studio.ledger.last_sequence() == last
    assert outcomes(door.tell(proof["receipt"], thumb="down")) == [("rating", "recorded")]
    (rating,) = door.studio.ledger.ratings()
    assert (rating.turn_id, rating.value) == (proof["turn_id"], -1)
    feedback = read_feedback(door.studio.ledger)
    (row,) = unpaired_rows(feedback.ratings, feedback.turns)
    assert row["label"] is False
    assert outcomes(door.tell(proof["receipt"], thumb=None)) == [("rating", "retracted")]
    assert door.studio.ledger.ratings() == []


def test_scores_texts_and_thumbs_may_come_together(door):
    receipt = door.ask("Hello").thumbprint["receipt"]
    said = {"thumb": "down", "score": {"helpful": 2, "clear": 5}, "text": "Too long."}
    assert outcomes(door.tell(receipt, **said)) == [
        ("rating", "recorded"),
        ("score", "recorded"),
        ("critique", "recorded"),
    ]
    ledger = door.studio.ledger
    assert {(score.criterion, score.value) for score in ledger.scores()} == {("helpful", 2), ("clear", 5)}
    assert [critique.text for critique in ledger.critiques()] == ["Too long."]
    assert {outcome for _, outcome in outcomes(door.tell(receipt, **said))} == {"unchanged"}
    assert outcomes(door.tell(receipt, score={"helpful": 3})) == [("score", "recorded")]
    assert {(score.criterion, score.value) for score in ledger.scores()} == {("helpful", 3), ("clear", 5)}


def test_a_correction_is_a_pair_and_a_row_and_stands_beside_the_reply(door):
    reply = door.ask("What is tea?")
    answer = door.tell(reply.thumbprint["receipt"], correction="Tea is a hot drink.")
    assert outcomes(answer) == [("correction", "recorded")]
    feedback = read_feedback(door.studio.ledger)
    view = preference_view(feedback, share=0.2)
    (row,) = (*view.train, *view.heldout)
    assert (row.chosen, row.rejected) == ("Tea is a hot drink.", reply.choices[0].message.content)
    assert sft_rows(feedback.corrections, feedback.turns)[0]["completion"][0]["content"] == row.chosen
    turn = door.studio.ledger.turn(reply.thumbprint["turn_id"])
    (shown,) = [
        node
        for node in door.studio.conversations.siblings(
            door.studio.conversations.path(turn.conversation_id)[-1].id
        )
        if node.turn_id is None
    ]
    assert shown.message.content == "Tea is a hot drink."
    assert outcomes(door.tell(reply.thumbprint["receipt"], correction="Tea is a hot drink.")) == [
        ("correction", "unchanged")
    ]
    same = door.tell(reply.thumbprint["receipt"], correction=f" {reply.choices[0].message.content}\n")
    assert same.status_code == 400


@pytest.mark.parametrize(("label", "chosen"), [("A", 0), ("B", 1)])
def test_a_comparison_of_two_receipts_is_a_pair_to_train_on(door, label, chosen):
    reply = door.ask("What is tea?", n=2, seed=20)
    receipts = [choice.thumbprint["receipt"] for choice in reply.choices]
    texts = [choice.message.content for choice in reply.choices]
    assert outcomes(door.tell(receipts=receipts, comparison=label)) == [("comparison", "recorded")]
    view = preference_view(read_feedback(door.studio.ledger), share=0.2)
    (row,) = (*view.train, *view.heldout)
    assert (row.chosen, row.rejected) == (texts[chosen], texts[1 - chosen])
    assert [message.content for message in row.prompt] == ["What is tea?"]


def test_a_comparison_is_the_same_question_in_either_order(door):
    reply = door.ask("What is tea?", n=2, seed=20)
    one, two = (choice.thumbprint["receipt"] for choice in reply.choices)
    assert outcomes(door.tell(receipts=[one, two], comparison="A")) == [("comparison", "recorded")]
    assert outcomes(door.tell(receipts=[two, one], comparison="B")) == [("comparison", "unchanged")]
    assert outcomes(door.tell(receipts=[two, one], comparison="A")) == [("comparison", "recorded")]
    (labeled,) = door.studio.ledger.comparisons()
    assert labeled.chosen == reply.choices[1].message.content
    assert outcomes(door.tell(receipts=[one, two], comparison="tie")) == [("comparison", "recorded")]
    assert outcomes(door.tell(receipts=[two, one], comparison="tie")) == [("comparison", "unchanged")]
    assert outcomes(door.tell(receipts=[one, two], comparison=None)) == [("comparison", "retracted")]
    assert door.studio.ledger.comparisons() == []


def test_replies_of_two_requests_compare_when_they_answer_the_same(door):
    receipts = [door.ask("What is tea?", seed=seed).thumbprint["receipt"] for seed in (1, 2)]
    assert outcomes(door.tell(receipts=receipts, comparison="B")) == [("comparison", "recorded")]
    (labeled,) = door.studio.ledger.comparisons()
    turns = [door.studio.ledger.turn(turn) for turn in (labeled.comparison.turn_A, labeled.comparison.turn_B)]
    assert len({turn.conversation_id for turn in turns}) == 1


def test_replies_to_different_prompts_are_not_compared(door):
    receipts = [door.ask(text).thumbprint["receipt"] for text in ("What is tea?", "What is coffee?")]
    answer = door.tell(receipts=receipts, comparison="A")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "different_prompts")
    twice = door.tell(receipts=[receipts[0], receipts[0]], comparison="A")
    assert twice.status_code == 400
    assert door.studio.ledger.comparisons() == []


def test_a_forged_or_foreign_receipt_is_refused(door):
    open_receipt = door.ask("Hello").thumbprint["receipt"]
    first, second = door.key("first"), door.key("second")
    mine = door.ask("Hello", key=first).thumbprint["receipt"]
    other_turn = door.ask("Hello again", key=first).thumbprint["receipt"]
    mark, payload, signature = mine.split(".")
    forged = [
        f"{mark}.{payload}.{'A' * len(signature)}",
        f"{mark}.{other_turn.split('.')[1]}.{signature}",
        f"{mark}.{payload}",
        "",
        "é.é.é",
        open_receipt,
    ]
    for receipt in forged:
        refused = door.tell(receipt, key=first, thumb="up")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "invalid_receipt"), receipt
    assert door.tell(mine, key=second, thumb="up").status_code == 403
    assert door.tell(mine, thumb="up").status_code == 401
    assert door.tell(receipts=[mine, open_receipt], key=first, comparison="A").status_code == 403
    assert door.studio.ledger.last_sequence() == 0
    assert outcomes(door.tell(mine, key=first, thumb="up")) == [("rating", "recorded")]


def test_raters_are_told_apart_and_never_stored_by_name(door):
    proof = door.ask("Hello", user="alice@example.com").thumbprint
    for rater, thumb in (("alice@example.com", "up"), ("bob@example.com", "down"), (None, "up")):
        said = {"thumb": thumb} | ({"rater": rater} if rater else {})
        assert outcomes(door.tell(proof["receipt"], **said)) == [("rating", "recorded")]
    ratings = door.studio.ledger.ratings()
    assert len({rating.rater for rating in ratings}) == 3
    turn = door.studio.ledger.turn(proof["turn_id"])
    kept = repr((ratings, turn, door.studio.conversations.get(turn.conversation_id)))
    assert "example.com" not in kept
    folder = door.studio.settings.data_dir
    assert not any(b"alice@" in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"thumb": "up"},
        {"receipts": ["a", "b"]},
        {"receipts": ["a"], "comparison": "A"},
        {"receipts": ["a", "b"], "comparison": "left"},
        {"receipts": ["a", "b"], "comparison": "A", "thumb": "up"},
        {"receipt": "a"},
        {"receipt": "a", "comparison": "A"},
        {"receipt": "a", "receipts": ["a", "b"], "thumb": "up"},
        {"receipt": "a", "thumb": "sideways"},
        {"receipt": "a", "thumb": 1},
        {"receipt": "a", "score": {"helpful": 6}},
        {"receipt": "a", "score": {"funny": 3}},
        {"receipt": "a", "score": {}},
        {"receipt": "a", "score": {"helpful": True}},
    ],
)
def test_feedback_that_says_nothing_clear_is_refused(door, said):
    answer = door.tell(**said)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_an_empty_text_is_refused_before_anything_is_kept(door):
    receipt = door.ask("Hello").thumbprint["receipt"]
    assert door.tell(receipt, thumb="up", text="  ").status_code == 400
    assert door.studio.ledger.ratings() == []


def test_feedback_for_a_reply_under_way_comes_too_early(tmp_path):
    with door_at(tmp_path / "data", delay=0.2) as door:
        stream = door.ask("Hello", stream=True)
        early = next(iter(stream)).thumbprint["receipt"]
        answer = door.tell(early, thumb="up")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "reply_under_way")
        assert list(stream)[-1].choices[0].finish_reason == "stop"
        assert outcomes(door.tell(early, thumb="up")) == [("rating", "recorded")]


def test_receipts_outlive_a_restart(tmp_path):
    with door_at(tmp_path / "data") as door:
        receipt = door.ask("Hello").thumbprint["receipt"]
    with door_at(tmp_path / "data") as door:
        assert outcomes(door.tell(receipt, thumb="up")) == [("rating", "recorded")]


def test_a_receipt_is_good_for_its_secret_and_its_client_only():
    receipts, others = Receipts("a" * 64), Receipts("b" * 64)
    given = Receipt("turn", "node", "v0001", "cafe")
    signed = receipts.sign(given, client="me")
    assert receipts.read(signed, client="me") == given
    for reader, client in ((receipts, "you"), (others, "me")):
        with pytest.raises(ReceiptRefused):
            reader.read(signed, client=client)
    assert receipts.owner("a", "bc") != receipts.owner("ab", "c")
    assert receipts.owner("a", "b") != receipts.rater("a", "b")


def test_a_damaged_secret_is_said(tmp_path):
    (tmp_path / "door.secret").write_text("short")
    with pytest.raises(ValueError, match=r"door\.secret is damaged"):
        open_receipts(tmp_path)
