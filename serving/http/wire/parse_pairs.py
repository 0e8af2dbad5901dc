"""The bodies of `POST /v1/rerank` and `POST /v1/score` to calls.

As `parse_embeddings`: it does not know which models exist, and counts no tokens.
"""

from serving.http.errors import FieldError, invalid
from serving.http.wire.bodies import RerankBody, ScoreBody
from serving.http.wire.calls import RerankCall, ScoreCall
from serving.http.wire.document import JsonObject, checked, json_object
from serving.http.wire.item_reader import ItemReader
from serving.http.wire.items import Item, PdfItem, PdfUrlItem
from serving.http.wire.limits import BodyLimits
from serving.http.wire.problems import attempt, attempt_given, invalid_all

_SCORE_FIELDS = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


def parse_rerank(body: bytes, limits: BodyLimits) -> RerankCall:
    """The call behind `body`.

    Raises:
        HttpError: 422; names what is wrong, up to ten fields.
    """
    document = json_object(body)
    errors: list[FieldError] = []
    fields = attempt(lambda: checked(RerankBody, document), errors)
    reader = ItemReader(limits, cut=fields is not None and fields.truncate is not False)
    query = attempt_given(document, "query", reader.one, errors)
    documents = attempt_given(document, "documents", reader.several, errors)
    errors += _pdfs("query", query) + _pdfs("documents", documents)
    if errors or fields is None or query is None or documents is None:
        raise invalid_all(errors)
    return RerankCall(
        model=fields.model,
        query=query[0],
        documents=documents,
        top_n=fields.top_n,
        return_documents=fields.return_documents is not False,
        task=fields.task,
        truncate=fields.truncate is not False,
        normalized=fields.normalized is not False,
    )


def parse_score(body: bytes, limits: BodyLimits) -> ScoreCall:
    """The call behind `body`.

    Raises:
        HttpError: 422; names what is wrong, up to ten fields.
    """
    document = json_object(body)
    errors: list[FieldError] = []
    fields = attempt(lambda: checked(ScoreBody, document), errors)
    reader = ItemReader(limits, cut=fields is not None and fields.truncate is not False)
    names = attempt(lambda: _score_names(document), errors)
    if names is None:
        raise invalid_all(errors)
    queries_name, documents_name = names
    queries = attempt_given(document, queries_name, reader.one_or_more, errors)
    documents = attempt_given(document, documents_name, reader.one_or_more, errors)
    errors += _pdfs(queries_name, queries) + _pdfs(documents_name, documents)
    if errors or fields is None or queries is None or documents is None:
        raise invalid_all(errors)
    if len(queries) not in (1, len(documents)):
        raise invalid(
            queries_name,
            f"One query is compared with every document, or as many queries as documents in pairs, "
            f"got {len(queries)} queries and {len(documents)} documents.",
            "conflict",
        )
    return ScoreCall(
        model=fields.model,
        queries=queries,
        documents=documents,
        names=names,
        task=fields.task,
        truncate=fields.truncate is not False,
        normalized=fields.normalized is not False,
    )


def _score_names(document: JsonObject) -> tuple[str, str]:
    """Under which of their names the two sides were given."""
    known = dict.fromkeys(name for names in _SCORE_FIELDS for name in names)
    given = {name for name in known if document.get(name) is not None}
    for names in _SCORE_FIELDS:
        if given == set(names):
            return names
    pairs = ", ".join(f"{left} and {right}" for left, right in _SCORE_FIELDS)
    raise invalid(
        "body",
        f"Two sides are compared, given as one of these pairs: {pairs}; "
        f"got {', '.join(name for name in known if name in given) or 'none'}.",
        "missing",
    )


def _pdfs(field: str, items: tuple[Item, ...] | None) -> list[FieldError]:
    return [
        FieldError(
            field,
            "A PDF cannot be compared as a whole. Send its pages as images.",
            "pdf",
        )
        for item in items or ()
        if isinstance(item, PdfItem | PdfUrlItem)
    ][:1]
