"""The JSON bodies of requests: their fields, types and defaults, and what the API's pages say of them.

Strict (no "5" for 5), null is absent, unknown keys are ignored. Inputs are passed through unread, and
rules across fields stand elsewhere (`parse`). It does not know limits, models or what is served.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from serving.http.wire.calls import Format, FormatChoice
from serving.http.wire.documents import InputDocument, InputDocuments, PdfAlone

FormatName = Literal["float", "base64", "binary", "ubinary", "int8"]


def _given(value: object) -> object:
    if value is None:
        raise PydanticCustomError("missing", "Field required")
    return value


def _format_choice(value: object) -> FormatChoice | None:
    match value:
        case None:
            return None
        case str():
            return FormatChoice((_format(value),), keyed=False)
        case list() if value:
            # A dict keeps the order and drops what is asked for twice.
            return FormatChoice(tuple(dict.fromkeys(map(_format, value))), keyed=True)
        case _:
            raise _not_a_format()


def _format(name: object) -> Format:
    try:
        return Format(name)
    except ValueError:
        raise _not_a_format() from None


def _not_a_format() -> PydanticCustomError:
    names = ", ".join(repr(format_.value) for format_ in Format)
    return PydanticCustomError(
        "literal_error", f"Input should be one of {names}, or a list of at least one of these"
    )


Inputs = Annotated[
    object,
    PlainValidator(_given, json_schema_input_type=InputDocument | InputDocuments | PdfAlone),
]
OneInput = Annotated[object, PlainValidator(_given, json_schema_input_type=InputDocument)]
ManyInputs = Annotated[object, PlainValidator(_given, json_schema_input_type=InputDocuments)]
EitherInputs = Annotated[
    object,
    PlainValidator(
        lambda value: value, json_schema_input_type=InputDocument | InputDocuments | None
    ),
]
Formats = Annotated[
    FormatChoice | None,
    PlainValidator(
        _format_choice,
        json_schema_input_type=FormatName | Annotated[list[FormatName], Field(min_length=1)] | None,
    ),
]
ModelName = Annotated[str, Field(min_length=1, examples=["jina-embeddings-v4"])]
# Which tasks there are depends on what was merged: names are checked against what is served.
EmbeddingTask = Annotated[
    str,
    Field(
        examples=[
            "text-matching",
            "retrieval.query",
            "retrieval.passage",
            "code.query",
            "code.passage",
        ]
    ),
]
PairTask = Annotated[str, Field(examples=["retrieval", "text-matching", "code"])]


class _Body(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class EmbeddingsBody(_Body):
    """Inputs to embed: the body of `POST /v1/embeddings`."""

    model: ModelName
    """Model to embed with."""

    input: Inputs
    """A text, `{"text"}`, `{"image"}`, a list of these in any mixture, or one `{"pdf"}` alone. A list
    of integers is one text that is tokenised already. A plain string that starts with
    `data:image/...;base64,` is an image; one that starts with `http` is a text."""

    task: EmbeddingTask | None = None
    """What the vectors are for, one of the tasks that `GET /v1/models` lists; null is the one in `model`,
    or the server's default, "text-matching" unless it says otherwise."""

    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Length of the vectors, up to the model's; shorter ones are cut (Matryoshka) and normalised again.
    Not with `return_multivector`."""

    embedding_type: Formats = None
    """How vectors are returned: "float" (the default), "base64" (little-endian float32), "ubinary"
    (one bit for each dimension, as integers 0..255, first dimension highest), "binary" (the same
    minus 128), "int8" (`value = integer * scale`, with `scale` beside the vector). For a list,
    `embedding` is an object keyed by type."""

    encoding_format: Formats = None
    """Another name of `embedding_type`; "float" and "base64", which clients send by themselves, give way to it."""

    encoding_type: Formats = None
    """Another name of `embedding_type`."""

    late_chunking: bool | None = False
    """Take all inputs as one sequence and pool each over its own part; texts only."""

    truncate: bool | None = False
    """Cut inputs that are too long; otherwise they are an error."""

    return_multivector: bool | None = False
    """Return one vector for each token."""

    return_tokenized_input: bool | None = False
    """Return the tokens as well, and for images which of them are patches; needs `return_multivector`."""

    normalized: bool | None = True
    """Scale vectors to unit length."""


class _Pairs(_Body):
    model: ModelName
    """Model to compare with."""

    task: PairTask | None = None
    """What is compared: a question with passages ("retrieval"), or with code ("code"), or like with
    like ("text-matching"); null is the task in `model`, or the server's default, "retrieval" unless it
    says otherwise."""

    truncate: bool | None = True
    """Cut inputs that are too long; false makes them an error."""

    normalized: bool | None = True
    """Divide a score by the number of the query's tokens, so that it lies within -1..1; false returns
    the sum (MaxSim as published)."""


class RerankBody(_Pairs):
    """A query and documents to rank: the body of `POST /v1/rerank`."""

    query: OneInput
    """A text or an image."""

    documents: ManyInputs
    """Texts and images, in any mixture."""

    top_n: Annotated[int, Field(ge=1)] | None = None
    """Return this many of the best; null returns all."""

    return_documents: bool | None = True
    """Repeat each text, or an image's URL, in its result; an image's bytes are never repeated."""


class ScoreBody(_Pairs):
    """Pairs to score: the body of `POST /v1/score`.

    Two lists, under one of these pairs of names: `text_1` and `text_2`, `queries` and `documents`,
    `queries` and `items`, `data_1` and `data_2`. One query is compared with every document; otherwise
    there are as many queries as documents.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["text_1", "text_2"]},
                {"required": ["queries", "documents"]},
                {"required": ["queries", "items"]},
                {"required": ["data_1", "data_2"]},
            ]
        }
    )

    text_1: EitherInputs = None
    """A text or image, or a list of them: the queries."""

    text_2: EitherInputs = None
    """A text or image, or a list of them: the documents."""

    queries: EitherInputs = None
    """Another name of `text_1`."""

    documents: EitherInputs = None
    """Another name of `text_2`."""

    items: EitherInputs = None
    """Another name of `text_2`."""

    data_1: EitherInputs = None
    """Another name of `text_1`."""

    data_2: EitherInputs = None
    """Another name of `text_2`."""
