"""The kinds of request that are measured, and their bodies in the words of each server.

Everything is made before the clock starts. What is sent to each server holds the same texts and pages
in the same order.
"""

import base64
import functools
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import assert_never

import numpy as np

from benchmarks.load.texts import TextMaker, page_pngs

MODEL = "jina-embeddings-v4"
_MAX_TEXTS = 20_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request.

    Attributes:
        num_items: texts or pages in one request.
        num_tokens: of each text, prefix included; None is a page.
        num_workers: requests on their way at once when the highest throughput is looked for.
        encoding: `float` or `base64`.
        multi: multi-vectors, otherwise single vectors.
    """

    num_items: int
    num_tokens: int | None
    num_workers: int
    encoding: str = "float"
    multi: bool = False


KINDS = {
    "text-1": Kind(1, 64, 64),
    "text-8": Kind(8, 64, 16),
    "text-64": Kind(64, 64, 8),
    "text-1-base64": Kind(1, 64, 64, "base64"),
    "text-8-base64": Kind(8, 64, 16, "base64"),
    "text-64-base64": Kind(64, 64, 8, "base64"),
    "short-1": Kind(1, 8, 64),
    "short-8": Kind(8, 8, 16),
    "short-64": Kind(64, 8, 8),
    "page": Kind(1, None, 8),
    "page-base64": Kind(1, None, 8, "base64"),
    "multi-8": Kind(8, 64, 16, multi=True),
    "multi-8-base64": Kind(8, 64, 16, "base64", multi=True),
    "multi-page-base64": Kind(1, None, 8, "base64", multi=True),
}


class Dialect(Enum):
    """How a server wants to be asked."""

    POLYVEC = "polyvec"
    VLLM_EMBED = "vllm-embed"
    """`/v1/embeddings` of vLLM: it pools; the caller writes the prefix and the image's template."""

    VLLM_TOKENS = "vllm-tokens"
    """`/pooling` of vLLM: every token's hidden state; the caller has still to pool or project."""


@dataclass(frozen=True, slots=True)
class Body:
    """A path and what is posted to it."""

    path: str
    data: bytes


def supports(dialect: Dialect, kind: Kind) -> bool:
    """Whether a server can be asked for this at all."""
    match dialect:
        case Dialect.POLYVEC | Dialect.VLLM_TOKENS:
            return True
        case Dialect.VLLM_EMBED:
            return not kind.multi
        case _:
            assert_never(dialect)


class Inputs:
    """Texts of one seed, none twice, and pages, which are the same for every seed."""

    def __init__(self, checkpoint: Path, seed: int, *, num_pages: int = 16) -> None:
        self._texts = TextMaker(checkpoint, seed)
        self._checkpoint = checkpoint
        self._num_pages = num_pages

    def draw(self, kind: Kind, num_requests: int) -> list[list[str]]:
        """Texts, or pages as data URIs, of up to `num_requests` requests, all different.

        Fewer where that would be more than 20,000 texts, or than there are pages; the caller goes round them.
        """
        if kind.num_tokens is None:
            return self._draw_pages(kind, num_requests)
        num_requests = max(1, min(num_requests, _MAX_TEXTS // kind.num_items))
        return [self._texts.texts(kind.num_items, kind.num_tokens) for _ in range(num_requests)]

    def _draw_pages(self, kind: Kind, num_requests: int) -> list[list[str]]:
        pages = _page_uris(self._checkpoint, self._num_pages)
        return [
            [pages[(at + part) % len(pages)] for part in range(kind.num_items)]
            for at in range(min(num_requests, len(pages)))
        ]


@functools.cache
def _page_uris(checkpoint: Path, num_pages: int) -> list[str]:
    return [
        "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        for png in page_pngs(checkpoint, num_pages)
    ]


def body(dialect: Dialect, kind: Kind, items: list[str]) -> Body:
    """One request."""
    match dialect:
        case Dialect.POLYVEC:
            return _polyvec(kind, items)
        case Dialect.VLLM_EMBED:
            return Body("/v1/embeddings", _json(_vllm(kind, items)))
        case Dialect.VLLM_TOKENS:
            return Body("/pooling", _json(_vllm(kind, items) | {"task": "token_embed"}))
        case _:
            assert_never(dialect)


def vectors(dialect: Dialect, kind: Kind, answer: bytes) -> tuple[list[np.ndarray], int]:
    """An answer's vectors, float32 [dim] or [token, dim] each, and the tokens it says it used."""
    document = json.loads(answer)
    found = []
    for item in document["data"]:
        match dialect:
            case Dialect.POLYVEC:
                value = item["embeddings" if kind.multi else "embedding"]
            case Dialect.VLLM_EMBED:
                value = item["embedding"]
            case Dialect.VLLM_TOKENS:
                value = item["data"]
            case _:
                assert_never(dialect)
        found.append(_decode(value))
    return found, int(document["usage"]["prompt_tokens"])


def _polyvec(kind: Kind, items: list[str]) -> Body:
    if kind.num_tokens is None:
        inputs: list[str] | list[dict[str, str]] = [{"image": item} for item in items]
    else:
        inputs = items
    document: dict[str, object] = {
        "model": MODEL,
        "input": inputs,
        "task": "retrieval.query",
        "embedding_type": kind.encoding,
    }
    if kind.multi:
        document["return_multivector"] = True
    return Body("/v1/embeddings", _json(document))


def _vllm(kind: Kind, items: list[str]) -> dict[str, object]:
    document: dict[str, object] = {"model": MODEL, "encoding_format": kind.encoding}
    if kind.num_tokens is not None:
        return document | {"input": [f"Query: {item}" for item in items]}
    if len(items) != 1:
        raise ValueError("vLLM takes one page a request.")
    content = [
        {"type": "image_url", "image_url": {"url": items[0]}},
        {"type": "text", "text": "Describe the image."},
    ]
    return document | {"messages": [{"role": "user", "content": content}]}


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document).encode("ascii")


def _decode(value: str | list[str] | list[float] | list[list[float]]) -> np.ndarray:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), dtype="<f4")
    if value and isinstance(value[0], str):
        return np.stack([_decode(part) for part in value if isinstance(part, str)])
    return np.asarray(value, dtype=np.float32)
