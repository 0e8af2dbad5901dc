"""Vectors for the tests, and answers read back."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from serving.http.wire.answer import answer_chunks
from serving.http.wire.answer_parts import Embedded, Usage
from serving.http.wire.calls import EmbeddingsCall
from tests.http.wire.bodies import MODEL

USAGE = Usage(total_tokens=12, prompt_tokens=12)

seeds = st.integers(0, 2**31)


def units(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def singles(vectors: Tensor) -> list[Embedded]:
    return [Embedded(index, single=vector) for index, vector in enumerate(vectors)]


def multis(*vectors: Tensor) -> list[Embedded]:
    return [Embedded(index, multi=vector) for index, vector in enumerate(vectors)]


def body(call: EmbeddingsCall, embedded: Sequence[Embedded], usage: Usage = USAGE) -> bytes:
    return b"".join(answer_chunks(call, MODEL, embedded, usage))


def answer(call: EmbeddingsCall, embedded: Sequence[Embedded], usage: Usage = USAGE) -> Any:
    return json.loads(body(call, embedded, usage))
