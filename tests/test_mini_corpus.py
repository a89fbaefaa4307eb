"""The mini corpus: its topics are true to the schema, its replies to their style, its splits to each other."""

from __future__ import annotations

import random
import re
from itertools import combinations

import pytest

from training.mini import dialogue as dialogue_module
from training.mini import (
    facts_kept,
    heldout_prompts,
    states_true_fact,
    training_prompts,
    unknown_topic_prompts,
)
from training.mini.arithmetic import Sum, draw_sum, solve, states_result, word
from training.mini.asking import looks_like_question, slip
from training.mini.contractions import contract, expand
from training.mini.dialogue import Message, Writer
from training.mini.grammar import FIXED, Body, Clause, Subject, render
from training.mini.heldout import follow_up_prompts, world
from training.mini.mix import Mix
from training.mini.stories import PLOTS, POEM_PHRASINGS, STORY_PHRASINGS, tell_story
from training.mini.studying import PLAIN, answer_in_succession, recite
from training.mini.style import BASE_RATES, LENGTH_RATES, LONG, SHORT, Style, draw, measure
from training.mini.systems import STEERING
from training.mini.talk import admits_ignorance
from training.mini.thread import Thread
from training.mini.topics import HELD_OUT, load_atlas, normalise


def spoken(seed: int, dialogues: int) -> list[tuple[Style, str]]:
    """Styles asked for and replies made, in `dialogues` dialogues."""
    made: list[tuple[Style, str]] = []

    def remember(body: Body, style: Style, rng: random.Random):
        reply = render(body, style, rng)
        made.append((style, reply.text))
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialogue_module, "render", remember)
        writer = Writer(world(), random.Random(seed))
        for _ in range(dialogues):
            writer.dialogue()
    return made


@pytest.fixture(scope="module")
def replies() -> list[tuple[Style, str]]:
    return spoken(3, 2500)


# ------------------------------------------------------------------ topics


def test_topics_are_a_few_hundred_and_split_as_announced():
    atlas = world().atlas
    assert len(atlas.topics) >= 300
    assert {topic.name for topic in atlas.held_out} == HELD_OUT
    assert not set(atlas.known) & set(atlas.held_out)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('name = "x"', "noun is None"),
        ('name = "x"\nnoun = "x"\nnumber = "dual"\nwhat = "w"\nexample = "e"\nfacts=[]', "exactly 5 facts"),
    ],
)
def test_a_broken_topic_file_is_refused_with_file_topic_and_field(tmp_path, entry, complaint):
    (tmp_path / "bad.toml").write_text(f"[[topic]]\n{entry}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"bad\.toml, topic 'x'.*{complaint}"):
        load_atlas(tmp_path)


def test_an_empty_topic_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No topics"):
        load_atlas(tmp_path)


def test_a_true_fact_is_one_of_the_topic_and_of_no_other():
    bees, cats = (world().atlas.by_name[name] for name in ("bees", "cats"))
    assert states_true_fact("bees", f"Sure! As you may know, they're {bees.what}. 🙂")
    assert states_true_fact("bees", f"- They also {bees.facts[0].say}!")
    assert not states_true_fact("bees", "They are nice.")
    assert not states_true_fact("bees", f"They {cats.facts[0].say}.")
    assert not states_true_fact("bees", f"They {bees.facts[0].say}. They {cats.facts[0].say}.")


def test_facts_kept_follows_the_topic_named_last():
    cats = world().atlas.by_name["cats"]
    said = f"They {cats.facts[0].say}."
    assert facts_kept("tell me about cats", said) is True
    asked = [Message("user", "tell me about cats"), Message("assistant", "..."), Message("user", "and why?")]
    assert facts_kept(asked, said) is True
    assert facts_kept([*asked, Message("user", "what about bees")], said) is False
    assert facts_kept("hello", said) is None


def test_corpus_replies_keep_the_facts_apart_from_those_spoiled_on_purpose():
    rng = random.Random(5)
    writer, atlas = Writer(world(), rng), world().atlas
    kept = []
    for topic in rng.sample(atlas.known, 150):
        thread, messages = Thread(), []
        writer.add_turn(
            messages, *writer.topic_question(topic, rng.choice(["what", "ask", "uses"]), thread), None, thread
        )
        kept.append(states_true_fact(topic.name, messages[1].content))
    assert 0.94 <= sum(kept) / len(kept) <= 1.0


# ------------------------------------------------------------------ grammar


def test_replies_are_well_formed(replies):
    for _, text in replies:
        assert text == text.strip()
        assert not re.search(r"[{}]|  |\.\.(?!\.)|[?!]\.|,\.| [,.!?]", text), text
        for sentence in re.split(r"(?<=[.!?])\s+", re.sub(r"(?m)^(- |\d\. )", "", text)):
            assert sentence[0].isupper() or not sentence[0].isalpha() or ",\n" in text, text


def test_most_replies_are_short(replies):
    words = sorted(len(text.split()) for _, text in replies)
    assert words[len(words) // 2] <= 45
    assert words[int(len(words) * 0.97)] <= 95


def test_terse_replies_say_one_thing_and_nothing_around_it():
    rng = random.Random(8)
    styles = [draw(rng, terse=0.3) for _ in range(4000)]
    plain = [
        style
        for style in styles
        if style.length == SHORT and not (style.courtesy or style.offer or style.tip or style.example)
    ]
    assert 0.36 < len(plain) / len(styles) < 0.44, "three tenths, and those that chance made so"
    writer = Writer(world(), random.Random(8), mix=Mix(terse=1.0))
    said = [m.content for _ in range(300) for m in writer.dialogue() if m.role == "assistant"]
    short = [text for text in said if len(text.split()) < 18]
    assert len(short) > 0.7 * len(said)


def test_a_mix_shifts_what_is_asked():
    def share_of_sums(mix):
        writer = Writer(world(), random.Random(4), mix=mix)
        return (
            sum(writer.new_subject(Thread())[1].example == "one plus one, which is two" for _ in range(600))
            / 600
        )

    assert share_of_sums(Mix()) < 0.1
    assert share_of_sums(Mix(sum=100)) > 0.4


def test_every_axis_is_shown_when_drawn_and_absent_when_not(replies):
    blurred = {"casual", "naming", "reason", "example", "tip"}
    shown = [(style, measure(text)) for style, text in replies]
    for axis in BASE_RATES:
        on = [marks[axis] for style, marks in shown if getattr(style, axis)]
        off = [marks[axis] for style, marks in shown if not getattr(style, axis)]
        assert sum(on) / len(on) > 0.75, axis
        assert axis in blurred or sum(off) / len(off) < 0.08, axis


def test_both_ways_of_every_axis_are_common(replies):
    shown = [measure(text) for _, text in replies]
    for axis in shown[0]:
        rate = sum(marks[axis] for marks in shown) / len(shown)
        assert 0.12 <= rate <= 0.85, (axis, rate)


def test_axes_are_drawn_independently():
    rng = random.Random(0)
    drawn = [draw(rng) for _ in range(20000)]
    for one, other in combinations(BASE_RATES, 2):
        both = sum(getattr(s, one) and getattr(s, other) for s in drawn) / len(drawn)
        assert both == pytest.approx(BASE_RATES[one] * BASE_RATES[other], abs=0.012), (one, other)
    short = sum(style.length == SHORT for style in drawn) / len(drawn)
    assert short == pytest.approx(LENGTH_RATES[0], abs=0.015)


def test_axes_stay_nearly_independent_in_the_text(replies):
    shown = [measure(text) for _, text in replies]
    for one, other in combinations([axis for axis in BASE_RATES if axis not in ("naming", "casual")], 2):
        p, q = (sum(m[axis] for m in shown) / len(shown) for axis in (one, other))
        both = sum(m[one] and m[other] for m in shown) / len(shown)
        assert abs(both - p * q) / (p * (1 - p) * q * (1 - q)) ** 0.5 < 0.15, (one, other)


def test_render_says_the_core_and_names_the_subject_first():
    body = Body((Clause("{it} {be} a drink"),), subject=Subject("green tea"))
    rng = random.Random(0)
    assert render(body, Style(naming=True), rng).text == "Green tea is a drink."
    assert render(body, Style(), rng).text == "It is a drink."
    assert render(body, Style(casual=True), rng).text == "It's a drink."
    assert render(body, Style(exclamation=True), rng).text == "It is a drink!"


def test_a_question_closes_the_reply_and_its_kind_is_told():
    body = Body((Clause("it works"),), questions=("tip",))
    reply = render(body, Style(question=True, emoji=True, offer=True), random.Random(1))
    assert reply.text.endswith("?")
    assert reply.question == "tip"


def test_a_list_has_one_line_per_clause():
    body = Body(tuple(Clause(f"point {number} holds", FIXED) for number in "abc"), exact=True)
    lines = render(body, Style(listing=True, length=LONG), random.Random(0)).text.split("\n")
    assert [bool(re.match(r"(- |\d\. )Point", line)) for line in lines] == [False, True, True, True]


@pytest.mark.parametrize(
    ("plain", "short"),
    [
        ("It is warm. They are here.", "It's warm. They're here."),
        ("That is what it is.", "That's what it is."),
        ("Nobody knows what it is for.", "Nobody knows what it is for."),
    ],
)
def test_contractions_go_where_english_allows_them_and_back(plain, short):
    assert contract(plain) == short
    assert expand(short) == plain


# ------------------------------------------------------------------ what is asked


def all_phrasings():
    exchanges = {f"talk: {e.name}": e.asks for e in world().talk.exchanges}
    stories = {"story": STORY_PHRASINGS, "poem": POEM_PHRASINGS}
    askings = world().askings
    later = {f"later: {intent}": phrasings for intent, phrasings in askings.follow_up.items()}
    return {**askings.topic, **later, **exchanges, **stories}


def test_held_out_phrasings_are_never_trained_on():
    for intent, phrasings in all_phrasings().items():
        trained = {normalise(frame) for frame in phrasings.trained}
        assert phrasings.held_out, intent
        assert not trained & {normalise(frame) for frame in phrasings.held_out}, intent


def test_held_out_topics_are_never_spoken_of_in_training():
    writer = Writer(world(), random.Random(9))
    distinctive = [
        t for t in world().atlas.held_out if t.name not in {"ferry", "mop", "cork", "tongue", "moss"}
    ]
    text = " ".join(normalise(m.content) for _ in range(1500) for m in writer.dialogue())
    for topic in distinctive:
        assert f" {normalise(topic.what)} " not in text, topic.name
        assert not any(f" {normalise(fact.say)} " in text for fact in topic.facts), topic.name


def test_prompts_for_benchmarks_are_reproducible_and_of_the_announced_kind():
    assert heldout_prompts(40, 1) == heldout_prompts(40, 1) != heldout_prompts(40, 2)
    assert all(prompt.topic_name not in HELD_OUT for prompt in heldout_prompts(60, 0))
    assert all(prompt.topic_name in HELD_OUT for prompt in unknown_topic_prompts(30, 0))
    assert all(prompt[-1].role == "user" for prompt in training_prompts(30, 0))
    assert all(len(prompt.prompt_messages) == 3 for prompt in follow_up_prompts(20, 0))


def test_a_slip_changes_one_word_by_one_letter():
    rng = random.Random(2)
    for _ in range(50):
        changed = slip("what is green tea", rng).split()
        assert sum(a != b for a, b in zip(changed, ["what", "is", "green", "tea"], strict=True)) <= 1
        assert all(
            abs(len(a) - len(b)) <= 1 for a, b in zip(changed, ["what", "is", "green", "tea"], strict=True)
        )


def test_questions_are_told_from_statements():
    assert looks_like_question("what is rain")
    assert looks_like_question("I see. how long does it take")
    assert not looks_like_question("tell me about rain")


# ------------------------------------------------------------------ dialogues


def test_a_follow_up_is_answered_about_the_topic_before():
    writer, rng = Writer(world(), random.Random(4)), random.Random(4)
    right = []
    for _ in range(120):
        thread, messages = Thread(), []
        topic = rng.choice(world().atlas.known)
        writer.add_turn(messages, *writer.topic_question(topic, "fact", thread), None, thread)
        intent = writer.ask_on(thread)[0]
        writer.add_turn(messages, *writer._follow(intent, thread), None, thread)
        right.append(states_true_fact(topic.name, messages[3].content))
    assert sum(right) / len(right) > 0.93


def test_shorter_please_repeats_the_core_alone():
    writer, thread, messages = Writer(world(), random.Random(8)), Thread(), []
    topic = world().atlas.by_name["bees"]
    writer.add_turn(messages, *writer.topic_question(topic, "what", thread), None, thread)
    _, body, demands = writer._follow("shorter", thread)
    assert [clause.text for clause in body.core] == ["{it} {be} " + topic.what]
    assert not body.more and demands["length"] == SHORT


def test_system_prompts_steer():
    rng = random.Random(0)
    body = Body((Clause("it works"), Clause("it is small")), more=(Clause("it is new"),))
    for system in STEERING:
        style = dialogue_module.override(draw(rng), system.demands)
        for axis, demanded in system.demands.items():
            assert getattr(style, axis) == demanded
    lists = next(system for system in STEERING if system.text == "Use bullet points.")
    assert measure(render(body, dialogue_module.override(Style(), lists.demands), rng).text)["listing"]


def test_a_few_replies_are_wrong_or_rude_on_purpose():
    rng = random.Random(1)
    writer = Writer(world(), rng)
    bodies = []
    for _ in range(4000):
        thread = Thread(topic=rng.choice(world().atlas.known))
        body = Body((Clause("right"),))
        bodies.append(writer._spoil(body, thread) is not body)
    assert 0.007 < sum(bodies) / len(bodies) < 0.022


def test_unknown_things_are_answered_honestly():
    talk, rng = world().talk, random.Random(0)
    assert len(talk.unknown) > 250 and not set(talk.unknown) & set(talk.unknown_held_out)
    filling = {"person": "Ann", "thing": "quarks", "topic": "bees", "bigsum": "1 + 1000"}
    for _ in range(40):
        body = talk.by_name["unknown thing"].body(rng, filling)
        assert admits_ignorance(talk, render(body, draw(rng), rng).text)
    assert not admits_ignorance(talk, "Bees are small insects.")


# ------------------------------------------------------------------ sums and stories


def test_sums_are_right_and_small():
    rng = random.Random(0)
    for _ in range(300):
        item = draw_sum(rng)
        value = {"+": item.a + item.b, "-": item.a - item.b, "*": item.a * item.b}.get(item.sign)
        assert value == item.result if item.sign != "/" else item.result * item.b == item.a
        assert 0 <= item.result <= 100
        assert states_result(item, render(solve(item, rng), Style(), rng).text)


def test_a_wrong_result_is_told_from_a_right_one():
    assert states_result(Sum(3, "+", 4, 7), "Sure! Three plus four is seven.")
    assert states_result(Sum(10, "*", 10, 100), "That makes one hundred.")
    assert not states_result(Sum(3, "+", 4, 7), "3 plus 4 is 8.")
    assert not states_result(Sum(3, "+", 4, 7), "I cannot tell.")


def test_numbers_in_words():
    assert [word(n) for n in (0, 13, 20, 42, 100)] == [
        "zero",
        "thirteen",
        "twenty",
        "forty-two",
        "one hundred",
    ]


def test_a_story_is_about_its_hero_and_follows_one_plot():
    text = render(tell_story("an owl", random.Random(0)), Style(), random.Random(0)).text
    assert " owl called " in text
    assert len(PLOTS) >= 5


# ------------------------------------------------------------------ dialogues dense in facts


def test_a_recital_states_everything_about_one_topic():
    rng = random.Random(3)
    dialogue = recite(Writer(world(), rng), rng)
    (topic,) = world().atlas.mentioned(dialogue[1].content)
    claims = topic.claimed_in(dialogue[2].content)
    assert dialogue[0] == PLAIN
    assert set(claims) == set(topic.claims)


def test_questions_in_succession_are_answered_plainly_and_truly():
    rng = random.Random(3)
    dialogue = answer_in_succession(Writer(world(), rng), rng)
    asked, answered = dialogue[1::2], dialogue[2::2]
    assert dialogue[0] == PLAIN and len(asked) == len(answered) >= 6
    assert all(facts_kept(q.content, a.content) is not False for q, a in zip(asked, answered, strict=True))
    assert not any(measure(message.content)["exclamation"] for message in answered)
