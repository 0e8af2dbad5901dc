"""What a request asks for, checked and free of its wire form: one frozen class for each route.

It does not know JSON, nor which models, tasks and dimensions exist here.
"""

from dataclasses import dataclass
from enum import Enum

from serving.http.wire.items import Item


class Format(Enum):
    """How a vector stands in JSON."""

    FLOAT = "float"
    BASE64 = "base64"
    BINARY = "binary"
    UBINARY = "ubinary"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """Which formats were asked for.

    Attributes:
        formats: at least one, none twice.
        keyed: a list was asked for, so that vectors stand in an object keyed by format.
    """

    formats: tuple[Format, ...]
    keyed: bool


@dataclass(frozen=True, slots=True)
class EmbeddingsCall:
    """`POST /v1/embeddings`.

    Attributes:
        model: name as the caller spelled it.
        items: at least one; a PDF stands alone.
        task: as the caller named it; None is the model's, or the server's default.
        dimensions: None keeps all; the model's own bound is not checked yet.
        formats: at least one, none twice.
        keyed: vectors stand in an object keyed by format.
        multi: one vector for each token.
        late_chunking: all items, which are texts, are one sequence.
        truncate: cut what is too long instead of refusing it.
        tokenized: return the tokens beside the multi-vectors.
        normalized: scale vectors to unit length.
    """

    model: str
    items: tuple[Item, ...]
    task: str | None
    dimensions: int | None
    formats: tuple[Format, ...]
    keyed: bool
    multi: bool
    late_chunking: bool
    truncate: bool
    tokenized: bool
    normalized: bool


@dataclass(frozen=True, slots=True)
class RerankCall:
    """`POST /v1/rerank`.

    Attributes:
        model: name as the caller spelled it.
        query: never a PDF.
        documents: at least one, no PDF.
        top_n: results returned; None returns all.
        return_documents: repeat texts and URLs in the results.
        task: what the vectors are made for, as the caller named it; None is the model's, or the
            server's default.
        truncate: cut what is too long instead of refusing it.
        normalized: scores are divided by the number of the query's tokens.
    """

    model: str
    query: Item
    documents: tuple[Item, ...]
    top_n: int | None
    return_documents: bool
    task: str | None
    truncate: bool
    normalized: bool


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """`POST /v1/score`.

    Attributes:
        model: name as the caller spelled it.
        queries: one for all documents, or as many as there are documents; no PDF.
        documents: at least one, no PDF.
        names: what the body calls queries and documents, for messages.
        task: what the vectors are made for, as the caller named it; None is the model's, or the
            server's default.
        truncate: cut what is too long instead of refusing it.
        normalized: scores are divided by the number of the query's tokens.
    """

    model: str
    queries: tuple[Item, ...]
    documents: tuple[Item, ...]
    names: tuple[str, str]
    task: str | None
    truncate: bool
    normalized: bool
