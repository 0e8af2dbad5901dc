"""The golden vectors through HTTP: real vLLM behind the server, equal to the Python API's in every encoding.

Equal means in every bit, of what the engine has computed once: HTTP and the Python API ask for the same
prompt, and get the same outcome. Computed twice, the last bit may differ: how a product of a few rows is
rounded depends on where they lie in memory, and vLLM's batches on what arrives together. What is computed
anew is held by the golden bounds.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL.Image import Image
from safetensors.torch import load
from torch import Tensor

from benchmarks.quality.local import LocalSource
from benchmarks.quality.server import ServerSource, png_base64
from pooling import binary, int8, ubinary
from serving import Embedder, ServerSettings
from serving.engine.protocol import Engine, Outcome, Prompt, Want
from serving.loop import LoopThread
from serving.manifest import find_tasks
from tests.benchmarks.quality.corpora import measured, result_files, write_pages, write_texts
from tests.conftest import Golden, GoldenEmbedder
from tests.http.live import live_server

pytestmark = pytest.mark.engine

MODEL = "jina-embeddings-v4"
TYPES = ["float", "base64", "binary", "ubinary", "int8"]
TASKS = {
    "retrieval.query": ("retrieval", "query"),
    "retrieval.passage": ("retrieval", "passage"),
    "text-matching": ("text-matching", "query"),
    "code.query": ("code", "query"),
    "code.passage": ("code", "passage"),
}
"""Of the public API, with the merged checkpoint and prompt that each stands for."""


@dataclass(slots=True)
class Borrowed:
    """An engine of a running embedder, for other event loops; it computes a prompt once, and is not closed.

    Attributes:
        engine: whose vectors these are.
        loop: where it lives.
        known: what it has computed.
    """

    engine: Engine
    loop: LoopThread
    known: dict[tuple[Prompt, Want], Outcome] = field(default_factory=dict)

    @property
    def max_tokens(self) -> int:
        return self.engine.max_tokens

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        new = [prompt for prompt in prompts if (prompt, want) not in self.known]
        outcomes = await self.loop.wait(self.engine.embed(new, want))
        self.known |= {(prompt, want): one for prompt, one in zip(new, outcomes, strict=True)}
        return [self.known[prompt, want] for prompt in prompts]

    async def check_health(self) -> None:
        await self.loop.wait(self.engine.check_health())

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Both:
    """The two ways to the same engines.

    Attributes:
        client: of the server.
        api: the Python API.
        engines: of each task.
        dtype: of the engines.
    """

    client: httpx.Client
    api: Embedder
    engines: dict[str, Borrowed]
    dtype: str

    @property
    def num_computed(self) -> int:
        """Prompts that the engines have computed."""
        return sum(len(engine.known) for engine in self.engines.values())

    def forget(self) -> None:
        """Let everything be computed anew."""
        for engine in self.engines.values():
            engine.known.clear()

    def post(self, accept: str = "application/json", **body: Any) -> Any:
        answer = self.client.post(
            "/v1/embeddings", json={"model": MODEL, **body}, headers={"Accept": accept}
        )
        assert answer.status_code == 200, answer.text
        return answer.json() if accept == "application/json" else load(answer.content)

    def encode(self, item: object, task: str, *, multi: bool) -> Tensor:
        """One input by the Python API."""
        name, prompt_name = TASKS[task]
        source = item.read_bytes() if isinstance(item, Path) else item
        vectors = self.api.encode(
            source,
            task=name,
            prompt_name=prompt_name,
            return_multivector=multi,
            convert_to_tensor=True,
        )
        assert isinstance(vectors, Tensor)
        return vectors


@pytest.fixture(scope="module")
def both(request: pytest.FixtureRequest, golden_embedder: GoldenEmbedder) -> Iterator[Both]:
    models: Path = request.getfixturevalue(f"merged_{golden_embedder.dtype}")
    directories = find_tasks(models)
    runner = golden_embedder.embedder._runner
    engines = {task: Borrowed(runner.pipeline(task)._engine, runner._loop) for task in directories}
    shared: dict[str, Engine] = dict(engines)
    with (
        live_server(models, ServerSettings(port=0), shared) as live,
        Embedder.from_engines(directories, shared) as api,
    ):
        yield Both(live.client, api, engines, golden_embedder.dtype)


def body_of(item: object) -> object:
    """A golden input as its body has it."""
    if isinstance(item, Path):
        return {"image": base64.b64encode(item.read_bytes()).decode("ascii")}
    return item


def key_of(golden: Golden, item: object, task: str) -> str:
    name, prompt_name = TASKS[task]
    if isinstance(item, Path):
        return f"{name}/image_{golden.images.index(item)}"
    return f"{name}/{prompt_name}/text_{golden.texts.index(str(item))}"


def assert_every_encoding(item: Any, scales: Any, expected: Tensor) -> None:
    """`expected` is [token, dim]; `item` has a list of as many vectors for each encoding."""
    assert list(item) == TYPES
    exact = expected.numpy()
    assert np.float32(item["float"]).tobytes() == exact.tobytes()
    raw = b"".join(base64.b64decode(one, validate=True) for one in item["base64"])
    assert raw == exact.astype("<f4").tobytes()
    assert item["ubinary"] == ubinary(expected).tolist()
    assert item["binary"] == binary(expected).tolist()
    quantised = int8(expected)
    assert item["int8"] == quantised.values.tolist()
    assert np.float32(scales).tobytes() == quantised.scales.numpy().tobytes()


@pytest.mark.parametrize("task", TASKS)
def test_single_vectors_are_the_python_apis_in_every_encoding(
    golden_embedder: GoldenEmbedder, golden: Golden, both: Both, task: str
) -> None:
    both.forget()
    for given in [*golden.texts, *golden.images[:5]]:
        before = both.num_computed
        expected = both.encode(given, task, multi=False)
        answer = both.post(input=[body_of(given)], task=task, embedding_type=TYPES)
        (item,) = answer["data"]
        one = {name: [value] for name, value in item["embedding"].items()}
        assert_every_encoding(one, [item["scale"]], expected[None])
        raw = both.post("application/octet-stream; dtype=fp32", input=[body_of(given)], task=task)
        assert torch.equal(raw["embeddings"], expected[None])
        assert both.num_computed == before + 1

        key = key_of(golden, given, task)
        assert answer["usage"]["total_tokens"] == len(golden.arrays[f"{key}/ids"])
        cosine = float(np.float64(item["embedding"]["float"]) @ golden.arrays[f"{key}/single"])
        assert 1 - cosine <= golden_embedder.single_bound, key


@pytest.mark.parametrize("task", TASKS)
def test_multi_vectors_are_the_python_apis_in_every_encoding(
    golden_embedder: GoldenEmbedder, golden: Golden, both: Both, task: str
) -> None:
    both.forget()
    for given in [*golden.texts, *golden.images[:3]]:
        before = both.num_computed
        expected = both.encode(given, task, multi=True)
        answer = both.post(
            input=[body_of(given)], task=task, return_multivector=True, embedding_type=TYPES
        )
        (item,) = answer["data"]
        assert_every_encoding(item["embeddings"], item["scales"], expected)
        raw = both.post(
            "application/octet-stream", input=[body_of(given)], task=task, return_multivector=True
        )
        assert torch.equal(raw["embeddings"], expected)
        assert raw["offsets"].tolist() == [0, len(expected)]
        assert both.num_computed == before + 1

        key = key_of(golden, given, task)
        cosines = (np.float64(item["embeddings"]["float"]) * golden.arrays[f"{key}/multi"]).sum(1)
        assert 1 - cosines.min() <= golden_embedder.token_bound, key


@pytest.mark.parametrize("task", TASKS)
def test_texts_and_images_in_one_request_reproduce_the_original_code(
    golden_embedder: GoldenEmbedder, golden: Golden, both: Both, task: str
) -> None:
    mixed: list[object] = [*golden.texts, *golden.images]
    mixed = mixed[::2] + mixed[1::2]
    both.forget()
    answer = both.post(input=[body_of(item) for item in mixed], task=task)
    assert [item["index"] for item in answer["data"]] == list(range(len(mixed)))
    for item, given in zip(answer["data"], mixed, strict=True):
        key = key_of(golden, given, task)
        cosine = float(np.float64(item["embedding"]) @ golden.arrays[f"{key}/single"])
        assert 1 - cosine <= golden_embedder.single_bound, key


def test_the_first_late_chunk_sees_nothing_of_the_others(
    golden_embedder: GoldenEmbedder, golden: Golden, both: Both
) -> None:
    # Attention is causal, and the prefix belongs to the first chunk.
    chunks = golden.texts[:4]
    answer = both.post(input=chunks, task="retrieval.passage", late_chunking=True)
    expected = golden.arrays["retrieval/passage/text_0/single"]
    first, second = (np.float64(item["embedding"]) for item in answer["data"][:2])
    assert 1 - float(first @ expected) <= golden_embedder.single_bound
    alone = golden.arrays["retrieval/passage/text_1/single"]
    assert 1 - float(second @ alone) > 10 * golden_embedder.single_bound


class Kept:
    """An embedder that lives on when a run of a benchmark is over.

    Its pages are the bytes that a server is sent, so that the engines compute them once, as everything here.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def encode(self, items: Sequence[object], **options: Any) -> Any:
        sent = [base64.b64decode(png_base64(i)) if isinstance(i, Image) else i for i in items]
        return self._embedder.encode(sent, **options)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("vectors", ["single", "multi"])
def test_mteb_writes_the_same_files_of_the_server_and_of_the_python_api(
    vectors: Any, request: pytest.FixtureRequest, both: Both, tmp_path: Path
) -> None:
    models: Path = request.getfixturevalue(f"merged_{both.dtype}")
    directories = [write_pages(tmp_path / "pages"), write_texts(tmp_path / "texts")]
    what = measured(vectors)
    api: Any = Kept(both.api)
    ours = LocalSource.of(models, max_pixels=what.max_pixels, load=lambda *_: api)
    theirs = ServerSource.of(str(both.client.base_url), None)
    by_api = result_files(ours, tmp_path / "api", what, *directories)
    by_server = result_files(theirs, tmp_path / "server", what, *directories)
    assert len(by_api) == 2
    assert by_server == by_api
