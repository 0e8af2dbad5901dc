"""The answer of `POST /v1/embeddings` as a safetensors file, for callers who embed millions.

    bytes 0..7      length of the header, little-endian
    header          JSON: dtype, shape and place of each tensor, and under `__metadata__` the rest
    values          little-endian, row-major

One vector an input: `embeddings` [input, dim]. Many: `embeddings` [all tokens, dim], and `offsets`
int64 [input + 1]: rows `offsets[i]` up to `offsets[i + 1]` are those of input i. The metadata has
`model`, `object`, `usage` (JSON), and for PDFs `pages` (JSON, page numbers in order). The safetensors
library reads it, and so does anything else in twenty lines. It does not know JSON answers (`answer`).
"""

from collections.abc import Sequence

import orjson
import torch
from safetensors.torch import save
from torch import Tensor

from pooling import NonFiniteError, VectorFormat, require_finite
from serving.http.errors import FieldError, invalid
from serving.http.wire.answer_parts import Embedded, Usage, present
from serving.http.wire.calls import EmbeddingsCall, Format
from serving.http.wire.negotiate import OCTETS_TYPE
from serving.http.wire.problems import invalid_all


def check_octets(call: EmbeddingsCall) -> None:
    """Refuse what a binary answer has no place for, before anything is computed.

    Raises:
        HttpError: 422; the call asks for another format, or for tokens.
    """
    errors = []
    if call.formats != (Format.FLOAT,):
        errors.append(
            FieldError(
                "embedding_type",
                f"{OCTETS_TYPE} holds floats, in the dtype that the Accept header names. "
                "Leave out the embedding type, or accept application/json.",
                "conflict",
            )
        )
    if call.tokenized:
        errors.append(
            FieldError(
                "return_tokenized_input",
                f"{OCTETS_TYPE} has no place for tokens. Accept application/json.",
                "conflict",
            )
        )
    if errors:
        raise invalid_all(errors)


def octets(
    call: EmbeddingsCall,
    model: str,
    embedded: Sequence[Embedded],
    usage: Usage,
    vector_format: VectorFormat,
) -> bytes:
    """The body, each value rounded once to `vector_format`, nearest even; of a call that was checked.

    Raises:
        HttpError: 422; a vector that is not normalised outgrows the format.
        NonFiniteError: a value is NaN or infinite.
    """
    metadata = {
        "model": model,
        "object": "list",
        "usage": orjson.dumps(usage.by_name()).decode("utf-8"),
    }
    pages = [item.page for item in embedded if item.page is not None]
    if pages:
        metadata["pages"] = orjson.dumps(pages).decode("ascii")
    if not call.multi:
        vectors = torch.stack([present(item.single) for item in embedded])
        return save({"embeddings": _rounded(vectors, vector_format)}, metadata)
    multi = [present(item.multi) for item in embedded]
    lengths = torch.tensor([0, *(len(vectors) for vectors in multi)], dtype=torch.int64)
    return save(
        {
            "embeddings": _rounded(torch.cat(multi), vector_format),
            "offsets": lengths.cumsum(0),
        },
        metadata,
    )


def _rounded(vectors: Tensor, vector_format: VectorFormat) -> Tensor:
    require_finite(vectors)
    rounded = vectors.detach().cpu().to(vector_format.torch_dtype)
    try:
        require_finite(rounded)
    except NonFiniteError:
        raise invalid(
            "accept",
            f"A value outgrows {vector_format.value}. Ask for normalized vectors, or for dtype=fp32.",
            "out_of_range",
        ) from None
    return rounded.contiguous()
