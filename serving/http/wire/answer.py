"""The answer of `POST /v1/embeddings` in JSON, in pieces, so that others may get a turn between them.

Joined, the pieces are one document. It does not know who reads it, nor binary answers (`octets`).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from serving.http.wire.answer_parts import Embedded, Usage, present
from serving.http.wire.calls import EmbeddingsCall, Format
from serving.http.wire.encode import Array, json_block, json_rows, scales_of, to_json

MAX_PIECE_VECTORS = 32
"""Single vectors that are encoded at once: 2 ms of floats."""

MAX_PIECE_VALUES = 65536
"""Values of a multi-vector that are encoded at once: as many."""


def answer_chunks(
    call: EmbeddingsCall, model: str, embedded: Sequence[Embedded], usage: Usage
) -> Iterator[bytes]:
    """The JSON body in order, in pieces of a megabyte at most; work is done as it is asked for.

    Args:
        call: says in which formats, and whether one vector or many for each input.
        model: name to answer with.
        embedded: in the order of the answer.
        usage: tokens of the whole call.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    head = to_json({"model": model, "object": "list", "usage": usage.by_name(), "data": []})
    yield head.removesuffix(b"]}")
    yield from (_multi_items if call.multi else _single_items)(call, embedded)
    yield b"]}"


def _single_items(call: EmbeddingsCall, embedded: Sequence[Embedded]) -> Iterator[bytes]:
    step = max(1, MAX_PIECE_VECTORS // len(call.formats))
    for start in range(0, len(embedded), step):
        block = embedded[start : start + step]
        vectors = torch.stack([present(item.single) for item in block])
        rows = [json_rows(vectors, format_) for format_ in call.formats]
        scales = scales_of(vectors) if Format.INT8 in call.formats else None
        for at, item in enumerate(block):
            comma = b"," if start or at else b""
            yield b'%b{"object":"embedding","index":%d,"embedding":' % (comma, item.index)
            if call.keyed:
                yield from _keyed(call.formats, [values[at] for values in rows])
            else:
                yield rows[0][at]
            if scales is not None:
                yield b',"scale":' + to_json(scales[at])
            yield b"}" if item.page is None else b',"page":%d}' % item.page


def _keyed(formats: Sequence[Format], values: Sequence[bytes]) -> Iterator[bytes]:
    for number, (format_, value) in enumerate(zip(formats, values, strict=True)):
        yield b'%b"%b":' % (b"," if number else b"{", format_.value.encode("ascii"))
        yield value
    yield b"}"


def _multi_items(call: EmbeddingsCall, embedded: Sequence[Embedded]) -> Iterator[bytes]:
    for number, item in enumerate(embedded):
        yield b'%s{"object":"embeddings","index":%d,"embeddings":' % (
            b"," if number else b"",
            item.index,
        )
        yield from _multi_formats(call, present(item.multi))
        if item.tokens is not None and call.tokenized:
            yield b',"tokenized_input":' + to_json(item.tokens)
            if item.patches is not None:
                yield b',"patches":' + to_json(item.patches.by_name())
        if item.page is not None:
            yield b',"page":%d' % item.page
        yield b"}"


def _multi_formats(call: EmbeddingsCall, vectors: Tensor) -> Iterator[bytes]:
    """What `embeddings` holds, and the scales after it."""
    blocks = torch.split(vectors, max(1, MAX_PIECE_VALUES // vectors.shape[1]))
    for number, format_ in enumerate(call.formats):
        if call.keyed:
            yield b'%s"%s":' % (b"," if number else b"{", format_.value.encode("ascii"))
        yield b"["
        for position, block in enumerate(blocks):
            yield (b"," if position else b"") + json_block(block, format_)
        yield b"]"
    if call.keyed:
        yield b"}"
    if Format.INT8 in call.formats:
        scales: list[Array] = [scales_of(block) for block in blocks]
        yield b',"scales":[' + b",".join(to_json(part)[1:-1] for part in scales) + b"]"
