"""Scores to the answers of `POST /v1/rerank` and `POST /v1/score`.

A rerank answer has the shape of Jina's and of Cohere's; a score answer that of vLLM's. It does not know
how scores are computed.
"""

from typing import assert_never

import torch
from torch import Tensor

from pooling import require_finite
from serving.http.wire.answer_parts import Usage
from serving.http.wire.calls import RerankCall
from serving.http.wire.encode import array_of, to_json
from serving.http.wire.items import (
    ImageItem,
    ImageUrlItem,
    Item,
    PdfItem,
    PdfUrlItem,
    TextItem,
    TokensItem,
)


def rerank_answer(
    call: RerankCall, model: str, scores: Tensor, usage: Usage, request_id: str
) -> bytes:
    """The JSON body: the best documents first, equal ones in the order they came in.

    Args:
        call: says how many are returned, and whether with their texts.
        model: name to answer with.
        scores: float32 [document].
        usage: tokens of the whole call.
        request_id: Cohere's clients look for one.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    require_finite(scores)
    order = torch.sort(scores, descending=True, stable=True).indices[: call.top_n].tolist()
    values = array_of(scores.float())
    results: list[dict[str, object]] = []
    for index in order:
        result: dict[str, object] = {"index": index, "relevance_score": values[index]}
        document = _repeated(call.documents[index]) if call.return_documents else None
        if document is not None:
            result["document"] = document
        results.append(result)
    return to_json(
        {
            "model": model,
            "object": "list",
            "usage": usage.by_name(),
            "results": results,
            "id": request_id,
            "meta": {"api_version": {"version": "2"}},
        }
    )


def score_answer(
    model: str, scores: Tensor, usage: Usage, request_id: str, created_s: int
) -> bytes:
    """The JSON body, in the order of the documents.

    Args:
        model: name to answer with.
        scores: float32 [document].
        usage: tokens of the whole call.
        request_id: becomes the answer's `id`.
        created_s: seconds since 1970.

    Raises:
        NonFiniteError: a score is NaN or infinite.
    """
    require_finite(scores)
    return to_json(
        {
            "id": request_id,
            "object": "list",
            "created": created_s,
            "model": model,
            "data": [
                {"index": index, "object": "score", "score": score}
                for index, score in enumerate(array_of(scores.float()))
            ],
            "usage": usage.by_name(),
        }
    )


def _repeated(item: Item) -> dict[str, str] | None:
    """What a result says of its document; nothing where that would send megabytes back."""
    match item:
        case TextItem():
            return {"text": item.text}
        case ImageUrlItem():
            return {"image": item.url}
        case TokensItem() | ImageItem() | PdfItem() | PdfUrlItem():
            return None
        case _:
            assert_never(item)
