"""The components of jina-haystack, with another base URL."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from serving import Embedder
from tests.conftest import Golden
from tests.http.clients.conftest import MODEL, Served
from tests.http.clients.vectors import assert_same
from tests.http.documents import picture_pdf

TEXTS = ["a text", "", "海滩上美丽的日落"]
Make = Callable[..., Any]


@pytest.fixture
def make(served: Served, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a component by its name."""
    # Before the first import: Haystack reports its use otherwise.
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    from haystack.utils import Secret
    from haystack_integrations.components.embedders import jina as embedders
    from haystack_integrations.components.rankers import jina as rankers

    kinds = {**vars(embedders), **vars(rankers)}

    def component(name: str, *, key: str = served.key, **options: Any) -> Any:
        path = "rerank" if name == "JinaRanker" else "embeddings"
        return kinds[name](
            api_key=Secret.from_token(key),
            base_url=f"{served.url}/v1/{path}",
            **{"model": MODEL, **options},
        )

    return component


def documents(contents: list[str]) -> list[Any]:
    from haystack import Document

    return [Document(content=content) for content in contents]


def test_a_query_is_embedded(make: Make, api: Embedder) -> None:
    answer = make("JinaTextEmbedder", task="retrieval.query", dimensions=16).run(TEXTS[0])
    expected = api.encode_query(TEXTS[:1], task="retrieval", truncate_dim=16)
    assert_same([answer["embedding"]], expected)
    assert answer["meta"]["model"] == MODEL
    assert answer["meta"]["usage"]["prompt_tokens"] == answer["meta"]["usage"]["total_tokens"] > 0


def test_documents_are_embedded_in_batches(make: Make, api: Embedder) -> None:
    embedder = make("JinaDocumentEmbedder", task="retrieval.passage", batch_size=2)
    expected = api.encode_document(TEXTS, task="retrieval")
    answer = embedder.run(documents(TEXTS))
    assert_same([document.embedding for document in answer["documents"]], expected)
    answer = asyncio.run(embedder.run_async(documents(TEXTS)))
    assert_same([document.embedding for document in answer["documents"]], expected)


def test_late_chunking_is_one_sequence(make: Make, api: Embedder) -> None:
    embedder = make("JinaDocumentEmbedder", task="retrieval.passage", late_chunking=True)
    first, second = embedder.run(documents(["first part", "second part"]))["documents"]
    assert_same([first.embedding], api.encode_document(["first part"], task="retrieval"))
    apart = api.encode_document(["second part"], task="retrieval")[0]
    assert second.embedding != pytest.approx(apart.tolist(), abs=1e-3)


def test_image_files_and_pdf_pages_are_embedded(
    make: Make, api: Embedder, golden: Golden, tmp_path: Any
) -> None:
    from haystack import Document

    pdf = tmp_path / "two.pdf"
    pdf.write_bytes(picture_pdf([(200, 0, 0), (0, 0, 200)]))
    files = [
        Document(meta={"file_path": str(golden.images[0])}),
        Document(meta={"file_path": str(pdf), "page_number": 2}),
        Document(meta={"file_path": str(golden.images[3])}),
    ]
    answer = make("JinaDocumentImageEmbedder", embedding_dimension=32).run(files)
    image, page, other = (document.embedding for document in answer["documents"])
    expected = api.encode(
        [golden.images[0], golden.images[3]], task="text-matching", truncate_dim=32
    )
    assert_same([image, other], expected)
    assert len(page) == 32


def test_documents_are_ranked_best_first(make: Make) -> None:
    contents = ["something else", "cities in Germany", "zzz"]
    ranker = make("JinaRanker", top_k=2)
    answer = ranker.run("cities in Germany", documents(contents))
    assert len(answer["documents"]) == 2
    assert answer["documents"][0].content == "cities in Germany"
    scores = [document.score for document in answer["documents"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["meta"]["usage"]["total_tokens"] > 0


def test_errors_reach_the_user_as_our_words(make: Make) -> None:
    with pytest.raises(RuntimeError, match="key"):
        make("JinaTextEmbedder", key="pv-wrong").run("a")
    with pytest.raises(RuntimeError, match="task"):
        make("JinaTextEmbedder", task="classification").run("a")
    with pytest.raises(RuntimeError, match=MODEL):
        make("JinaRanker", model="jina-reranker-v2-base-multilingual").run("a", documents(["b"]))
