"""Which version answers: promotions, rollbacks, refusals, restarts, and replies under way while all that
happens.
"""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from desk import ANN, Gate, desk_at

from memory.database import StorageError
from studio.policy.scripted import ScriptedPolicy
from training.registry import AdapterRefused


@pytest.fixture
def desk(tmp_path):
    with desk_at(tmp_path) as made:
        yield made


def loaded(desk) -> set[str]:
    return {served.version for served in desk.policy.loaded()}


def corrupt(desk, version) -> None:
    weights = desk.registry.root / version / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_without_promotions_the_base_is_served(desk):
    desk.serving.start()
    assert desk.serving.current == desk.policy.base()
    assert desk.serving.previous is None and desk.serving.refused is None


def test_a_promotion_is_served_without_a_restart_and_the_one_before_stands_by(desk):
    desk.serving.start()
    heard = []
    desk.serving.add_listener(heard.append)
    first, second = desk.publish(), desk.publish()
    desk.promote(first)
    assert desk.serving.wait_for(first, timeout=10)
    desk.promote(second)
    assert desk.serving.wait_for(second, timeout=10)
    desk.serving.stop()
    assert desk.serving.current.fingerprint == "00000002"
    assert desk.serving.previous.version == first and desk.serving.refused is None
    assert [served.version for served in heard] == [first, second]
    assert desk.say(desk.begin(), "hello").first.served.version == second


def test_waiting_for_a_version_that_never_comes_ends(desk):
    desk.serving.start()
    assert not desk.serving.wait_for("v0009", timeout=0.05)


def test_replies_under_way_keep_their_version_through_swaps_and_its_adapter_until_they_end(tmp_path):
    gate = Gate("on the first", "on the second")
    with desk_at(tmp_path, policy=ScriptedPolicy(delay=0.0, script=gate)) as desk:
        versions = [desk.publish() for _ in range(3)]
        desk.promote(versions[0])
        desk.serving.start()
        early = desk.chat.send(ANN, desk.begin(), "hello")
        desk.promote(versions[1])
        assert desk.serving.wait_for(versions[1], timeout=10)
        late = desk.chat.send(ANN, desk.begin(), "hello")
        desk.promote(versions[2])
        assert desk.serving.wait_for(versions[2], timeout=10)
        for exchange, version in ((early, versions[0]), (late, versions[1])):
            gate.let_go(exchange, exchange.first)
            assert exchange.wait(10)
            turn = desk.ledger.turn(exchange.first.turn_id)
            assert (turn.policy_version, turn.fingerprint) == (version, f"{int(version[1:]):08x}")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (corrupt, "damaged"),
        (lambda desk, version: shutil.rmtree(desk.registry.root / version), "no adapter"),
        (lambda desk, version: (desk.registry.root / version / "STABLE").unlink(), "STABLE"),
        (lambda desk, version: (desk.registry.root / version / "x.pkl").write_bytes(b"\x80\x04."), "pickle"),
    ],
)
def test_an_adapter_that_cannot_be_trusted_leaves_the_old_one_served_and_says_why(desk, harm, reason):
    good, bad = desk.publish(), desk.publish()
    desk.promote(good)
    desk.serving.start()
    harm(desk, bad)
    desk.promote(bad)
    desk.serving.check()
    assert desk.serving.current.version == good
    assert bad in desk.serving.refused and reason in desk.serving.refused and good in desk.serving.refused
    [event] = desk.ledger.occurrences("adapter_refused")
    assert event.target == bad and reason in event.detail["reason"]
    desk.serving.check()
    assert len(desk.ledger.occurrences("adapter_refused")) == 1
    assert desk.say(desk.begin(), "hello").first.served.version == good
    third = desk.publish()
    desk.promote(third)
    assert desk.serving.wait_for(third, timeout=10)
    desk.serving.stop()
    assert desk.serving.refused is None and desk.serving.previous.version == good


def test_an_adapter_of_another_base_or_with_another_fingerprint_is_refused(tmp_path):
    with desk_at(
        tmp_path, policy=ScriptedPolicy(delay=0.0, refuse={"v0002": "v0002 computes something else"})
    ) as desk:
        foreign, liar = desk.publish(base_identity="another"), desk.publish()
        desk.serving.start()
        desk.promote(foreign)
        desk.serving.check()
        assert "another" in desk.serving.refused
        desk.promote(liar)
        desk.serving.check()
        assert "computes something else" in desk.serving.refused
        assert desk.serving.current == desk.policy.base()


def test_a_promoted_version_that_is_damaged_later_stays_served_from_memory_until_a_restart(tmp_path):
    with desk_at(tmp_path) as desk:
        good, doomed = desk.publish(), desk.publish()
        desk.promote(good)
        desk.promote(doomed)
        desk.serving.start()
        corrupt(desk, doomed)
        assert desk.say(desk.begin(), "hello").first.served.version == doomed
    with desk_at(tmp_path) as desk:
        desk.serving.start()
        assert desk.serving.current.version == good
        assert doomed in desk.serving.refused and f"Served instead: {good}" in desk.serving.refused
        assert desk.runs.served().version == doomed


def test_a_restart_with_nothing_left_to_serve_falls_back_to_the_base(tmp_path):
    with desk_at(tmp_path) as desk:
        for version in (desk.publish(), desk.publish()):
            desk.promote(version)
            corrupt(desk, version)
        desk.serving.start()
        assert desk.serving.current == desk.policy.base() and desk.serving.previous is None
        assert "Served instead: base" in desk.serving.refused
        assert len(desk.ledger.occurrences("adapter_refused")) == 2


def test_a_restart_serves_the_last_promotion_and_the_one_before_it(tmp_path):
    with desk_at(tmp_path) as desk:
        first, second = desk.publish(), desk.publish()
        desk.promote(first)
        desk.promote(second)
    with desk_at(tmp_path) as desk:
        desk.serving.start()
        assert (desk.serving.current.version, desk.serving.previous.version) == (second, first)


def test_rolling_back_is_a_promotion_and_the_version_taken_back_is_not_put_before_people_again(desk):
    versions = [desk.publish() for _ in range(3)]
    desk.serving.start()
    for version in versions:
        desk.promote(version)
    desk.serving.check()
    promotion = desk.serving.roll_back(versions[1], actor="ann", reason="v0003 rambles")
    assert (promotion.version, promotion.actor, promotion.reason) == (versions[1], "ann", "v0003 rambles")
    assert desk.runs.served() == promotion
    assert desk.serving.current.version == versions[1] and desk.serving.previous.version == versions[0]
    desk.serving.roll_back("base", actor="ann", reason="start over")
    assert desk.serving.current == desk.policy.base() and desk.serving.previous is None


def test_rolling_back_to_something_that_cannot_be_served_promotes_nothing(desk):
    first, second = desk.publish(), desk.publish()
    for version in (first, second):
        desk.promote(version)
    desk.serving.start()
    corrupt(desk, first)
    before = desk.runs.promotions()
    for version, reason in ((first, "damaged"), ("v0042", "no adapter"), ("../base", "expected v")):
        with pytest.raises(AdapterRefused, match=reason):
            desk.serving.roll_back(version, actor="ann", reason="")
    assert desk.runs.promotions() == before and desk.serving.current.version == second


def test_at_most_so_many_adapters_stay_loaded_and_never_the_served_or_the_previous_one_go(tmp_path):
    with desk_at(tmp_path, keep_adapters=2) as desk:
        versions = [desk.publish() for _ in range(5)]
        for version in versions:
            desk.promote(version)
            desk.serving.check()
        assert loaded(desk) == set(versions[2:])
        desk.serving.ensure(versions[0])
        assert loaded(desk) == {versions[0], versions[3], versions[4]}
        desk.serving.ensure(versions[1])
        assert loaded(desk) == {versions[1], versions[3], versions[4]}
        assert desk.serving.current.version == versions[4] and desk.serving.previous.version == versions[3]


def test_what_is_held_is_not_released(tmp_path):
    with desk_at(tmp_path, keep_adapters=1) as desk:
        versions = [desk.publish() for _ in range(4)]
        desk.promote(versions[0])
        desk.serving.check()
        with desk.serving.hold() as (current, _previous):
            for version in versions[1:]:
                desk.promote(version)
                desk.serving.check()
            assert current.version in loaded(desk)
        desk.serving.ensure(versions[3])
        assert loaded(desk) == set(versions[2:])


def test_pairs_set_the_served_version_against_the_one_before(tmp_path):
    with desk_at(tmp_path, compare_every=1, compare_with_previous=1.0) as desk:
        first, second = desk.publish(), desk.publish()
        desk.promote(first)
        desk.promote(second)
        desk.serving.start()
        letters_of_second, places_of_second = set(), set()
        for _ in range(30):
            exchange = desk.say(desk.begin(), "hello")
            by_version = {side.served.version: side for side in exchange.sides}
            assert by_version.keys() == {first, second}
            letters_of_second.add(by_version[second].letter)
            places_of_second.add((by_version[second].letter, exchange.first.served.version))
        assert letters_of_second == {"A", "B"} and len(places_of_second) == 4
        reveal = desk.chat.vote(exchange.id, "tie", ANN, owner=ANN)
        comparison = desk.ledger.comparison(exchange.id)
        assert (reveal.version_A, reveal.version_B) == (comparison.version_A, comparison.version_B)
        assert reveal.fingerprint_A == f"{int(reveal.version_A[1:]):08x}"


def test_a_database_that_cannot_be_read_is_reported_and_watched_on(desk, monkeypatch):
    served = desk.runs.served
    broken = threading.Event()
    tried = threading.Event()

    def failing():
        if broken.is_set():
            tried.set()
            raise StorageError("The disk went away.")
        return served()

    monkeypatch.setattr(desk.runs, "served", failing)
    desk.serving.start()
    broken.set()
    assert tried.wait(10)
    while desk.serving.refused is None:
        tried.wait(0.001)
    assert "The disk went away" in desk.serving.refused
    broken.clear()
    version = desk.publish()
    desk.promote(version)
    assert desk.serving.wait_for(version, timeout=10)
    while desk.serving.refused is not None:
        tried.wait(0.001)


def test_swaps_while_eight_people_chat_lose_no_reply_and_mix_no_version(tmp_path):
    policy = ScriptedPolicy(delay=0.0, script=lambda messages, version, seed: f"{version} " * 50)
    with desk_at(
        tmp_path, policy=policy, keep_adapters=1, compare_every=2, compare_with_previous=0.5
    ) as desk:
        versions = [desk.publish() for _ in range(8)]
        desk.serving.start()
        over = threading.Event()

        def talk(person: int) -> int:
            owner, count = f"owner-{person}", 0
            where = desk.begin(owner)
            while not over.is_set():
                exchange = desk.say(where, "hello", owner)
                assert not exchange.error, exchange.notice
                for side in exchange.sides:
                    assert set(side.stream.text.split()) == {side.served.version}
                if exchange.asks:
                    desk.chat.vote(exchange.id, "A", owner, owner=owner)
                count += 1
            return count

        with ThreadPoolExecutor(max_workers=8) as people:
            talks = [people.submit(talk, person) for person in range(8)]
            for version in versions:
                desk.promote(version)
                assert desk.serving.wait_for(version, timeout=10)
            over.set()
            assert all(talk.result() > 0 for talk in talks)
        assert desk.happened("error") == []
