"""The answer of `POST /v1/embeddings` in JSON, in pieces, so that others get a turn between them.

Joined, the pieces are one document. It does not know who reads it, nor binary answers (`octets`).
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from serving.http.wire.answer_parts import Embedded, Usage, present
from serving.http.wire.calls import EmbeddingsCall, Format
from serving.http.wire.encode import Array, rows_of, scales_of, to_json

MAX_PIECE_VECTORS = 32
"""Single vectors that are encoded at once: 2 ms of floats."""

MAX_PIECE_VALUES = 65536
"""Values of a multi-vector that are encoded at once: as many."""

PIECE_BYTES = 1024 * 1024
"""Small pieces are joined up to this."""


def answer_chunks(
    call: EmbeddingsCall, model: str, embedded: Sequence[Embedded], usage: Usage
) -> Iterator[bytes]:
    """The JSON body, in order; work is done as it is asked for.

    Args:
        call: says in which formats, and whether one vector or many for each input.
        model: name to answer with.
        embedded: in the order of the answer.
        usage: tokens of the whole call.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    items = _multi_items(call, embedded) if call.multi else _single_items(call, embedded)
    return _joined(_document(model, usage, items))


def _document(model: str, usage: Usage, items: Iterable[bytes]) -> Iterator[bytes]:
    head = to_json({"model": model, "object": "list", "usage": usage.by_name(), "data": []})
    yield head.removesuffix(b"]}")
    yield from items
    yield b"]}"


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces; none over `PIECE_BYTES` that was not before."""
    waiting: list[bytes] = []
    num_bytes = 0
    for piece in pieces:
        if waiting and num_bytes + len(piece) > PIECE_BYTES:
            yield b"".join(waiting)
            waiting, num_bytes = [], 0
        waiting.append(piece)
        num_bytes += len(piece)
    yield b"".join(waiting)


def _single_items(call: EmbeddingsCall, embedded: Sequence[Embedded]) -> Iterator[bytes]:
    step = max(1, MAX_PIECE_VECTORS // len(call.formats))
    for start in range(0, len(embedded), step):
        block = embedded[start : start + step]
        vectors = torch.stack([present(item.single) for item in block])
        rows = {format_.value: rows_of(vectors, format_) for format_ in call.formats}
        values: Iterable[object]
        if call.keyed:
            values = [{name: row[at] for name, row in rows.items()} for at in range(len(block))]
        else:
            (values,) = rows.values()
        objects: list[dict[str, object]] = [
            {"object": "embedding", "index": item.index, "embedding": value}
            for item, value in zip(block, values, strict=True)
        ]
        if Format.INT8 in call.formats:
            for entry, scale in zip(objects, scales_of(vectors), strict=True):
                entry["scale"] = scale
        if block[0].page is not None:
            for entry, item in zip(objects, block, strict=True):
                entry["page"] = item.page
        yield (b"," if start else b"") + to_json(objects)[1:-1]


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
            yield (b"," if position else b"") + to_json(rows_of(block, format_))[1:-1]
        yield b"]"
    if call.keyed:
        yield b"}"
    if Format.INT8 in call.formats:
        scales: list[Array] = [scales_of(block) for block in blocks]
        yield b',"scales":[' + b",".join(to_json(part)[1:-1] for part in scales) + b"]"
