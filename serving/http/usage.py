"""The tokens that one request has cost: for its answer, and for logs and metrics."""

from collections.abc import Sequence

from serving.engine.protocol import ImagePrompt, Pooled
from serving.http.record import TokenCounts
from serving.http.visit import Visit
from serving.http.wire.answer_parts import Usage
from serving.pipeline import Prepared


def note_usage(visit: Visit, prepared: Prepared, pooled: Sequence[Pooled]) -> Usage:
    """The tokens that the engine has run, by its own count; `visit` learns of them too."""
    total = sum([len(one.token_ids) for one in pooled])
    image_sizes = [
        len(one.token_ids)
        for prompt, one in zip(prepared.prompts, pooled, strict=True)
        if type(prompt) is ImagePrompt
    ]
    image = sum(image_sizes)
    visit.tokens = TokenCounts(text=total - image, image=image)
    return Usage(
        total_tokens=total, prompt_tokens=total, image_tokens=image if image_sizes else None
    )
