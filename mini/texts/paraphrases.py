"""Pairs of sentences whose similarity is known, because it is made.

A statement is five facts; a sentence says them in one of several ways. Two sentences are as similar as the facts
that they share, whatever the words: 1 for a paraphrase, 0 for no fact in common.
"""

import random
from dataclasses import dataclass, replace

from mini.documents import vocabulary

_PEOPLE = vocabulary.PEOPLE
_CITIES = vocabulary.CITIES
_TOPICS = vocabulary.TOPICS

# What somebody does, in words that mean the same.
_ACTIONS = (
    ("talks about", "speaks about", "gives a talk on", "presents"),
    (
        "writes about",
        "publishes a text on",
        "is the author of a piece on",
        "puts on paper ideas on",
    ),
    ("asks about", "wants to know about", "has questions on", "is curious about"),
    ("complains about", "is unhappy with", "criticises", "is angry about"),
    ("pays for", "finances", "spends money on", "gives funds to"),
    ("plans", "prepares", "makes plans for", "works out"),
    ("stops", "ends", "cancels", "puts an end to"),
    ("teaches", "gives lessons on", "instructs others in", "holds a course on"),
)
_TIMES = (
    ("in the morning", "early in the day", "before noon"),
    ("in the evening", "late in the day", "after work"),
    ("every week", "weekly", "once in seven days"),
    ("in winter", "in the cold months", "when it snows"),
    ("in summer", "in the hot months", "when it is warm"),
    ("every year", "yearly", "once in twelve months"),
)
_NUM_FACTS = 5


@dataclass(frozen=True, slots=True)
class Statement:
    """Who does what about which topic, where and when; actions and times by their positions."""

    person: str
    action: int
    topic: str
    city: str
    time: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences, and the part of their facts that they share."""

    left: str
    right: str
    similarity: float


def statement(rng: random.Random) -> Statement:
    """Any five facts."""
    return Statement(
        rng.choice(_PEOPLE),
        rng.randrange(len(_ACTIONS)),
        rng.choice(_TOPICS),
        rng.choice(_CITIES),
        rng.randrange(len(_TIMES)),
    )


def sentence(rng: random.Random, said: Statement) -> str:
    """One of the ways to say it."""
    does = rng.choice(_ACTIONS[said.action])
    when = rng.choice(_TIMES[said.time])
    match rng.randrange(4):
        case 0:
            text = f"{said.person} from {said.city} {does} {said.topic} {when}."
        case 1:
            text = f"{when}, {said.person} {does} {said.topic}, in {said.city}."
        case 2:
            text = f"in {said.city} it is {said.person} who {does} {said.topic} {when}."
        case _:
            text = f"{said.topic}: {said.person} of {said.city} {does} it {when}."
    return text[0].upper() + text[1:]


def pair(rng: random.Random) -> Pair:
    """Two sentences; every number of changed facts, from none to all, is as likely."""
    said = statement(rng)
    other = statement(rng)
    names = ["person", "action", "topic", "city", "time"]
    kept = rng.sample(names, rng.randint(0, _NUM_FACTS))
    changed = replace(other, **{name: getattr(said, name) for name in kept})
    shared = sum(getattr(said, name) == getattr(changed, name) for name in names)
    return Pair(sentence(rng, said), sentence(rng, changed), shared / _NUM_FACTS)
