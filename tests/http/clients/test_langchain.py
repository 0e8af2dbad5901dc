"""JinaEmbeddings of langchain-community, whose URL is a constant of its module."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from serving import Embedder
from tests.conftest import Golden
from tests.http.clients.conftest import MODEL, Served
from tests.http.clients.vectors import assert_same, data_uri

TEXTS = ["a text", "", "海滩上美丽的日落"]
Make = Callable[..., Any]


@pytest.fixture
def jina(served: Served, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes JinaEmbeddings, as a user would who wants another server."""
    # LangSmith would be told of every call.
    monkeypatch.setenv("LANGCHAIN_TRACING_V2", "false")
    assert "JINA_API_KEY" not in os.environ
    with warnings.catch_warnings():
        # Importing the package says that it is no longer developed; it is still installed everywhere.
        warnings.simplefilter("ignore", DeprecationWarning)
        from langchain_community.embeddings import jina
    monkeypatch.setattr(jina, "JINA_API_URL", f"{served.url}/v1/embeddings")

    def make(*, key: str = served.key, model: str = MODEL) -> Any:
        return jina.JinaEmbeddings(jina_api_key=key, model_name=model)

    return make


def test_documents_and_queries_are_the_python_apis(jina: Make, api: Embedder) -> None:
    expected = api.encode(TEXTS, task="text-matching")
    assert_same(jina().embed_documents(TEXTS), expected)
    assert_same([jina().embed_query(TEXTS[0])], expected[:1])


def test_who_cannot_send_a_task_names_it_in_the_model(jina: Make, api: Embedder) -> None:
    passages = jina(model=f"{MODEL}:retrieval.passage").embed_documents(TEXTS)
    assert_same(passages, api.encode_document(TEXTS, task="retrieval"))
    query = jina(model=f"{MODEL}:retrieval.query").embed_query(TEXTS[2])
    assert_same([query], api.encode_query(TEXTS[2:], task="retrieval"))


def test_images_from_files_urls_and_data_uris(
    jina: Make, api: Embedder, golden: Golden, served: Served
) -> None:
    given = [str(golden.images[0]), served.image_url, data_uri(golden.images[3])]
    expected = api.encode([golden.images[0], served.image, golden.images[3]], task="text-matching")
    assert_same(jina().embed_images(given), expected)


def test_errors_reach_the_user_as_our_words(jina: Make) -> None:
    with pytest.raises(RuntimeError, match="key"):
        jina(key="pv-wrong").embed_query("a")
    with pytest.raises(RuntimeError, match=MODEL):
        jina(model="jina-embeddings-v3").embed_documents(TEXTS)
