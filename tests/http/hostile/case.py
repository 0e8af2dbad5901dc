"""One hostile request, and the answer it must get."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

EMBEDDINGS, RERANK, SCORE = "/v1/embeddings", "/v1/rerank", "/v1/score"

MARK = "zq7MARKzq7"
"""Stands in what is sent wherever it can; no answer and no log may hold it."""

JSON_HEAD = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Http:
    """A request that an ordinary client can send."""

    content: Callable[[], bytes] = field(repr=False)
    path: str = EMBEDDINGS
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_HEAD)


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that no client would send."""

    data: Callable[[], bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent, and what must come back.

    Attributes:
        name: unique.
        sent: the request.
        status: of the answer.
        code: of the error; None where it is the status's usual one, or there is no error.
        field: the first field that is named, for 422; None names none in particular.
    """

    name: str
    sent: Http | Raw
    status: int
    code: str | None = None
    field: str | None = None


def posted(
    name: str,
    status: int,
    body: Mapping[str, object] | bytes | Callable[[], bytes],
    *,
    path: str = EMBEDDINGS,
    code: str | None = None,
    field: str | None = None,
    headers: Mapping[str, str] = JSON_HEAD,
) -> Case:
    """A body, as an object or as it is."""
    if isinstance(body, bytes):
        raw = body
        make = lambda: raw  # noqa: E731
    elif callable(body):
        make = body
    else:
        document = body
        make = lambda: json.dumps(document).encode()  # noqa: E731
    return Case(name, Http(make, path, headers), status, code, field)


def embed(name: str, status: int, **fields: object) -> Case:
    """A body of `/v1/embeddings` with these fields; `where` is the field that must be named."""
    where = fields.pop("where", None)
    code = fields.pop("code", None)
    document = {"model": "jina-embeddings-v4", "input": MARK} | fields
    return posted(name, status, document, code=code, field=where)  # type: ignore[arg-type]


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
