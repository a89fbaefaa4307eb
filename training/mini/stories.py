"""Very short stories and poems about a named hero, made from a small grammar of their own.

The hero that a person asks for is the hero of the story. Knows heroes, places and little troubles; knows no topics.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.mini import phrases
from training.mini.asking import Phrasings
from training.mini.grammar import FIXED, Body, Clause

STORY_PHRASINGS = Phrasings(
    (
        "tell me a story about {hero}",
        "tell me a story",
        "a story about {hero}",
        "a short story about {hero} please",
        "write a story about {hero}",
        "write a short story about {hero}",
        "can you tell me a story about {hero}",
        "do you know a story about {hero}",
        "make up a story about {hero}",
        "I want a story about {hero}",
        "story",
        "a story please",
        "tell me a bedtime story",
        "tell me a short story with {hero}",
        "story about {hero}",
        "invent a story about {hero}",
    ),
    (
        "could you write a story about {hero}",
        "I would like a story with {hero}",
        "please tell a story about {hero}",
    ),
)
POEM_PHRASINGS = Phrasings(
    (
        "write a poem about {hero}",
        "a poem about {hero}",
        "tell me a poem about {hero}",
        "write me a poem",
        "can you write a poem",
        "make a rhyme about {hero}",
        "a short poem please",
        "do you know a poem about {hero}",
        "poem about {hero}",
        "write a short poem about {hero}",
        "compose a poem about {hero}",
    ),
    ("could you make a poem about {hero}", "I would like a rhyme about {hero}"),
)

HEROES = (
    "a fox", "a bear", "a mouse", "a cat", "a dog", "a rabbit", "an owl", "a frog", "a hedgehog", "a snail", "a duck",
    "a squirrel", "a horse", "a robot", "a baker", "a sailor", "a king", "a queen", "a farmer", "a child", "a girl",
    "a boy", "a gardener", "a painter", "a crow", "a bee", "a turtle", "a lion", "a whale", "a goose",
)  # fmt: skip
_NAMES = ("Pip", "Mara", "Otto", "Lily", "Bruno", "Wanda", "Toby", "Fern", "Hugo", "Nell", "Milo", "Ruby")
_PLACES = (
    "a quiet forest", "a village by the sea", "an old mill", "a green valley", "a small town", "a house on a hill",
    "a garden full of roses", "a cabin by a lake",
)  # fmt: skip
_ADJECTIVES = ("small", "curious", "shy", "brave", "clever", "sleepy", "cheerful", "lonely", "kind")


@dataclass(frozen=True)
class Plot:
    """A little trouble, what the hero does about it, and how it ends."""

    trouble: tuple[str, ...]
    deed: tuple[str, ...]
    end: tuple[str, ...]


PLOTS = (
    Plot(
        ("one morning a golden key was missing", "one day the key of the old gate was lost"),
        (
            "{name} looked under every stone until it shone in the grass",
            "{name} asked a crow, who had seen it fall",
        ),
        ("the gate opened, and behind it lay a secret garden", "that evening everyone had cake to celebrate"),
    ),
    Plot(
        ("one night a great storm blew out every lamp", "in winter the snow covered every path"),
        ("{name} lit a lantern and led the neighbours home", "{name} rang a bell so that nobody got lost"),
        ("from then on nobody was afraid of the dark", "in the morning the sun came out again"),
    ),
    Plot(
        ("one day a stranger came to the door, hungry and cold", "one evening a lost bird sat on the window"),
        (
            "{name} shared a bowl of warm soup and a place by the fire",
            "{name} made a soft bed from wool and leaves",
        ),
        (
            "the guest stayed, and they became the best of friends",
            "in spring the guest came back with a song",
        ),
    ),
    Plot(
        (
            "everybody said that the hill was too steep to climb",
            "nobody believed that the river could be crossed",
        ),
        ("{name} went slowly, one step after the other", "{name} built a bridge from old planks"),
        (
            "at the end there was a view that no one had ever seen",
            "the others followed, one by one, and cheered",
        ),
    ),
    Plot(
        (
            "a big race was to be held, and {name} was the slowest of all",
            "there was a contest for the best song",
        ),
        ("{name} practised every day before breakfast", "{name} stopped on the way to help a friend"),
        (
            "in the end there was no prize, but a crowd of new friends",
            "the whole village clapped the loudest for {name}",
        ),
    ),
    Plot(
        ("{name} planted one small seed, but nothing grew", "{name} found an egg that would not open"),
        ("{name} waited, watered and hoped for many weeks", "{name} kept it warm and told it stories"),
        ("then, one bright morning, it was ready at last", "patience, it turned out, was the whole secret"),
    ),
)
_MORALS = ("a little courage goes a long way", "kindness comes back in the end", "patience is a kind of magic",
           "good friends are the best treasure")  # fmt: skip

_COUPLETS = (
    ("{Hero} went out in the morning light", "and danced along till the fall of night"),
    ("{Hero} sat down beneath a tree", "and hummed a song of the deep blue sea"),
    ("{Hero} looked up at the silver moon", "and softly whistled a little tune"),
    ("{Hero} walked on through the gentle rain", "and then came home by the winding lane"),
    ("The wind was low and the stars were near", "and all the world was quiet to hear"),
    ("The road was long and the hill was steep", "but dreams are sweet for those who sleep"),
    ("The day was warm and the sky was wide", "with clouds like boats on a slow blue tide"),
    ("So take your time and be of good cheer", "for spring comes back to us every year"),
    ("And if you ask what the song was for", "it was for joy and for nothing more"),
)


def draw_hero(rng: random.Random) -> str:
    return rng.choice(HEROES)


def tell_story(hero: str, rng: random.Random) -> Body:
    """Three or more sentences: who and where, the trouble, the deed; the end and a moral when the reply is long."""
    name, plot = rng.choice(_NAMES), rng.choice(PLOTS)
    kind = hero.split(" ", 1)[1]
    adjective = rng.choice(_ADJECTIVES)
    opening = rng.choice(("once upon a time there was", "long ago there lived", "once there was"))
    core = (
        f"{opening} a {adjective} {kind} called {name}, who lived in {rng.choice(_PLACES)}",
        rng.choice(plot.trouble),
        rng.choice(plot.deed),
        rng.choice(plot.end),
    )
    return Body(
        core=tuple(Clause(line.replace("{name}", name), FIXED) for line in core),
        more=(Clause(rng.choice(_MORALS), because="every story teaches a little"),),
        intros=("here is the story:", "the story goes like this:"),
        example="the old tale of the hare and the tortoise",
        tip="read it aloud in a quiet voice",
        trailers=phrases.TALE_TRAILERS,
        questions=("would you like another story", "did you like it", "who should the next story be about"),
    )


def write_poem(hero: str, rng: random.Random) -> Body:
    """Two couplets, or three."""
    first = rng.choice(_COUPLETS[:4])
    others = rng.sample(_COUPLETS[4:], rng.choice((1, 1, 2)))
    verse = ".\n".join(",\n".join(pair) for pair in (first, *others)).replace(
        "{Hero}", hero[0].upper() + hero[1:]
    )
    return Body(
        core=(Clause(verse, FIXED),),
        intros=("here is a poem:",),
        example="a poem about the sea",
        tip="read it aloud in a quiet voice",
        trailers=phrases.TALE_TRAILERS,
        questions=("would you like another poem", "did you like it", "what should the next poem be about"),
    )
