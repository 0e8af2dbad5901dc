"""Small Python functions, and what they do in words.

A function picks things by a condition, and counts, adds up, sorts or finds among what is left. Names of functions and
arguments say nothing, so that the words have to be matched with what the code does.
"""

import random
from dataclasses import dataclass

from mini.documents import vocabulary

_FIELDS = ("price", "weight", "size", "age", "length", "score", "rating", "stock")
_NAMES = ("run", "solve", "work", "compute", "apply", "handle", "process", "helper")
_ARGUMENTS = ("items", "values", "data", "rows", "things", "given")

_CONDITIONS = (
    ("{x}.{f} > {n}", "with a {f} above {n}", "whose {f} is more than {n}"),
    ("{x}.{f} < {n}", "with a {f} below {n}", "whose {f} is less than {n}"),
    ("{x}.{f} == {n}", "with a {f} of {n}", "whose {f} is exactly {n}"),
    ("{x}.{f} != {n}", "with a {f} other than {n}", "whose {f} is not {n}"),
)
_ACTIONS = (
    ("len({s})", "count the {p}", "how many {p}"),
    ("sum({x}.{g} for {x} in {s})", "add up the {g} of the {p}", "total {g} of the {p}"),
    (
        "sorted({s}, key=lambda {x}: {x}.{g})",
        "sort the {p} by {g}, lowest first",
        "order the {p} by rising {g}",
    ),
    (
        "sorted({s}, key=lambda {x}: -{x}.{g})",
        "sort the {p} by {g}, highest first",
        "order the {p} by falling {g}",
    ),
    (
        "max({s}, key=lambda {x}: {x}.{g})",
        "find the {p} of highest {g}",
        "the largest {g} among the {p}",
    ),
    (
        "min({s}, key=lambda {x}: {x}.{g})",
        "find the {p} of lowest {g}",
        "the smallest {g} among the {p}",
    ),
    (
        "[{x}.{g} for {x} in {s}]",
        "list the {g} of the {p}",
        "collect the {g} of every one of the {p}",
    ),
    ("{s}[0]", "take the first of the {p}", "the first one of the {p}"),
    ("{s}[-1]", "take the last of the {p}", "the last one of the {p}"),
    (
        "any({x}.{g} for {x} in {s})",
        "is there a {g} among the {p}?",
        "tell whether the {p} have a {g}",
    ),
)


@dataclass(frozen=True, slots=True)
class Function:
    """Code, and two ways to say what it does; equal `meaning` is equal behaviour."""

    code: str
    docstring: str
    query: str
    meaning: tuple[str, ...]


def function(rng: random.Random) -> Function:
    """A function that nobody has named well."""
    thing, asked, wanted = (
        rng.choice(vocabulary.PRODUCTS),
        rng.choice(_FIELDS),
        rng.choice(_FIELDS),
    )
    number = rng.randint(2, 99)
    condition, with_one, with_two = rng.choice(_CONDITIONS)
    action, doc, query = rng.choice(_ACTIONS)
    argument, each = rng.choice(_ARGUMENTS), rng.choice(("x", "one", "it"))
    picked = condition.format(x=each, f=asked, n=number)
    chosen = f"[{each} for {each} in {argument}.{thing} if {picked}]"
    body = action.format(s="found", x=each, g=wanted)
    code = (
        f"def {rng.choice(_NAMES)}({argument}):\n    found = {chosen}\n    return {body}"
        if rng.random() < 0.5
        else f"lambda {argument}: " + action.format(s=chosen, x=each, g=wanted)
    )
    words = [f"{thing}s {part.format(f=asked, n=number)}" for part in (with_one, with_two)]
    rng.shuffle(words)
    return Function(
        code,
        doc.format(p=words[0], g=wanted).capitalize() + ".",
        query.format(p=words[1], g=wanted),
        (thing, condition, asked, str(number), action, wanted if "{g}" in action else ""),
    )
