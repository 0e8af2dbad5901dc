"""The spellings of one tensor's name, and the way between them.

Checkpoints and adapters write the same Qwen2.5-VL module in one of three ways, by the version of
transformers and the class that saved them:

    NEW       model.language_model.layers.0…   model.visual.blocks.0…   (transformers >= 4.52)
    OLD       model.layers.0…                  visual.blocks.0…         (jina-embeddings-v4's base)
    HEADLESS  language_model.layers.0…         visual.blocks.0…         (Qwen2_5_VLModel alone)

NEW is the canonical one. This module knows strings only: no file and no shape.
"""

import re
from collections.abc import Iterable
from enum import Enum

__all__ = ["PROJECTOR", "Spelling", "canonical", "spell", "spelling_of"]

PROJECTOR = "multi_vector_projector"

_OLD_LANGUAGE = re.compile(r"^model\.(?!language_model\.|visual\.)")


class Spelling(Enum):
    """One way of writing names."""

    NEW = "new"
    OLD = "old"
    HEADLESS = "headless"


def canonical(name: str) -> str:
    """The NEW spelling of a module's or tensor's name; names without spellings are unchanged."""
    if name.startswith(("visual.", "language_model.")):
        return f"model.{name}"
    return _OLD_LANGUAGE.sub("model.language_model.", name)


def spell(canonical_name: str, spelling: Spelling) -> str:
    """The inverse of `canonical` for one spelling."""
    if spelling is Spelling.NEW:
        return canonical_name
    if canonical_name.startswith("model.visual."):
        return canonical_name.removeprefix("model.")
    if spelling is Spelling.HEADLESS:
        return canonical_name.removeprefix("model.")
    return re.sub(r"^model\.language_model\.", "model.", canonical_name)


def spelling_of(names: Iterable[str]) -> Spelling:
    """The spelling that a set of module names is written in; NEW when nothing tells."""
    seen = Spelling.NEW
    for name in names:
        if name.startswith(("model.language_model.", "model.visual.")):
            return Spelling.NEW
        if name.startswith("language_model."):
            return Spelling.HEADLESS
        if name.startswith(("model.", "visual.")):
            seen = Spelling.OLD
    return seen
