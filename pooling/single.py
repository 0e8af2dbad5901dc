"""One vector for a span of tokens: the mean, then L2.

It does not know which span is right for which input (`pooling.span` and its caller do), nor how
many dimensions the caller will keep (`pooling.matryoshka`).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from pooling.errors import EmptySpanError, ShapeError, SpanRangeError
from pooling.span import Span
from pooling.unit import unit


def mean_vector(
    token_embeddings: Float[Tensor, "token hidden"], span: Span
) -> Float32[Tensor, " hidden"]:
    """`sum(x[start:stop]) / (stop - start)`, summed in float32 whatever the input's dtype.

    Raises:
        SpanRangeError: the span ends after the last token.
    """
    if token_embeddings.ndim != 2:
        raise ShapeError(
            f"token_embeddings has shape {tuple(token_embeddings.shape)}, expected (token, hidden). "
            "Pool one sequence at a time."
        )
    num_tokens = token_embeddings.shape[0]
    if span.stop > num_tokens:
        raise SpanRangeError(
            f"A span lies inside its sequence, got tokens {span.start}..{span.stop - 1} of "
            f"{num_tokens}. Was the text truncated after its spans were taken?"
        )
    return token_embeddings[span.start : span.stop].mean(dim=0, dtype=torch.float32)


def single_vector(
    token_embeddings: Float[Tensor, "token hidden"], span: Span
) -> Float32[Tensor, " hidden"]:
    """`m / max(|m|, 1e-12)` with `m` the mean over the span, in float32.

    Source: jina-embeddings-v4's own pooling: all tokens for a text, vision_start to vision_end
    for an image. A NaN among the pooled tokens gives NaN, see `pooling.finite`.

    Raises:
        SpanRangeError: the span ends after the last token.
    """
    return unit(mean_vector(token_embeddings, span))


def single_vectors(
    token_embeddings: Float[Tensor, "token hidden"], spans: Sequence[Span]
) -> Float32[Tensor, "span hidden"]:
    """Late chunking: one vector for each span of one sequence, in the order of the spans.

    Row `i` equals `single_vector(token_embeddings, spans[i])` bit for bit. Spans may overlap.
    Source: Günther et al., "Late Chunking", arXiv:2409.04701.

    Raises:
        EmptySpanError: no span.
        SpanRangeError: a span ends after the last token.
    """
    if not spans:
        raise EmptySpanError("Late chunking pools at least one span, got none.")
    return unit(torch.stack([mean_vector(token_embeddings, span) for span in spans]))
