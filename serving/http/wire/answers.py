"""The JSON of answers, for the API's documentation and for whoever checks answers against it.

Answers are written without these models (`answer`, `rankings`, `serving.http.errors`), and tests hold
the two together.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Floats = list[float]
Vector = Floats | str
"""Numbers, or base64 of little-endian float32."""


class WireAnswer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class UsageAnswer(WireAnswer):
    """Tokens that the model has run."""

    total_tokens: Count
    """All tokens."""

    prompt_tokens: Count
    """The same; there is no output."""

    image_tokens: Count | None = None
    """Those of images among them."""


class KeyedVector(WireAnswer):
    """One vector in each format that was asked for."""

    model_config = ConfigDict(populate_by_name=True)

    floats: Annotated[Floats | None, Field(alias="float")] = None
    """Numbers."""

    base64: str | None = None
    """Little-endian float32."""

    binary: list[Annotated[int, Field(ge=-128, le=127)]] | None = None
    """`ubinary` minus 128."""

    ubinary: list[Annotated[int, Field(ge=0, le=255)]] | None = None
    """One bit for each dimension, first dimension highest."""

    int8: list[Annotated[int, Field(ge=-127, le=127)]] | None = None
    """Integers that `scale` turns into the vector."""


class KeyedVectors(WireAnswer):
    """One vector for each token, in each format that was asked for."""

    model_config = ConfigDict(populate_by_name=True)

    floats: Annotated[list[Floats] | None, Field(alias="float")] = None
    """Numbers."""

    base64: list[str] | None = None
    """Little-endian float32."""

    binary: list[list[Annotated[int, Field(ge=-128, le=127)]]] | None = None
    """`ubinary` minus 128."""

    ubinary: list[list[Annotated[int, Field(ge=0, le=255)]]] | None = None
    """One bit for each dimension, first dimension highest."""

    int8: list[list[Annotated[int, Field(ge=-127, le=127)]]] | None = None
    """Integers that `scales` turn into the vectors."""


class SingleEmbedding(WireAnswer):
    """One vector for one input."""

    object: Literal["embedding"]
    """Always "embedding"."""

    index: Count
    """Place of the input in the request, or of the page in its PDF."""

    embedding: Vector | KeyedVector
    """The vector, in the format asked for."""

    scale: float | None = None
    """For "int8": `vector = integers * scale`."""

    page: Annotated[int, Field(ge=1)] | None = None
    """Number of the page, for PDFs."""


class PatchesAnswer(WireAnswer):
    """Which vectors stand for parts of an image: `rows * columns` of them, row by row, over all of it."""

    start: Count
    """The first of them, counted from 0; what stands before and after is the prompt around the image."""

    rows: Annotated[int, Field(ge=1)]
    """Rows of the grid."""

    columns: Annotated[int, Field(ge=1)]
    """Columns of the grid."""


class MultiEmbedding(WireAnswer):
    """One vector for each token of one input."""

    object: Literal["embeddings"]
    """Always "embeddings"."""

    index: Count
    """Place of the input in the request, or of the page in its PDF."""

    embeddings: list[Floats] | list[str] | KeyedVectors
    """The vectors, in the format asked for."""

    scales: Floats | None = None
    """For "int8": `vector = integers * scale`, one scale for each token."""

    tokenized_input: list[str] | None = None
    """The tokens, where they were asked for."""

    patches: PatchesAnswer | None = None
    """For an image or a page, where the tokens were asked for: which of them are its patches."""

    page: Annotated[int, Field(ge=1)] | None = None
    """Number of the page, for PDFs."""


class EmbeddingsAnswer(WireAnswer):
    """Vectors, in the order of the inputs."""

    model: str
    """The model that was asked for."""

    object: Literal["list"]
    """Always "list"."""

    usage: UsageAnswer
    """Tokens of the whole request."""

    data: list[SingleEmbedding] | list[MultiEmbedding]
    """One element for each input; for a PDF, one for each page."""


class RerankDocument(WireAnswer):
    """A document, repeated."""

    text: str | None = None
    """Its text."""

    image: str | None = None
    """The URL of its image."""


class RerankResult(WireAnswer):
    """How well one document answers the query."""

    index: Count
    """Its place in the request."""

    relevance_score: float
    """MaxSim, divided by the number of the query's tokens unless `normalized` is false."""

    document: RerankDocument | None = None
    """Its text or URL, where they were asked for."""


class ApiVersion(WireAnswer):
    """Which version of Cohere's answer this has the shape of."""

    version: str
    """Always "2"."""


class RerankMeta(WireAnswer):
    """What Cohere's clients read beside the results."""

    api_version: ApiVersion
    """Shape of this answer."""


class RerankAnswer(WireAnswer):
    """Documents, the best first."""

    model: str
    """The model that was asked for."""

    object: Literal["list"]
    """Always "list"."""

    usage: UsageAnswer
    """Tokens of the query and all documents."""

    results: list[RerankResult]
    """Sorted by score, then by index; at most `top_n`."""

    id: str
    """The request's id."""

    meta: RerankMeta
    """For Cohere's clients."""


class ScoreResult(WireAnswer):
    """The score of one pair."""

    index: Count
    """Its place in the request."""

    object: Literal["score"]
    """Always "score"."""

    score: float
    """MaxSim, divided by the number of the query's tokens unless `normalized` is false."""


class ScoreAnswer(WireAnswer):
    """Scores, in the order of the documents."""

    id: str
    """The request's id."""

    object: Literal["list"]
    """Always "list"."""

    created: Count
    """Seconds since 1970."""

    model: str
    """The model that was asked for."""

    data: list[ScoreResult]
    """One element for each pair."""

    usage: UsageAnswer
    """Tokens of all queries and documents."""


class ErrorField(WireAnswer):
    """One field that is wrong."""

    field: str
    """Where it is, as `input.3.image`."""

    message: str
    """The rule."""

    type: str
    """The rule's name."""

    input: None
    """Always null: values are not repeated."""


class OpenAiError(WireAnswer):
    """The same error, for OpenAI's clients."""

    message: str
    """As `detail`."""

    type: str
    """OpenAI's name of the kind of error."""

    param: str | None
    """The first wrong field."""

    code: str
    """As `code` outside."""


class ErrorAnswer(WireAnswer):
    """What went wrong."""

    detail: str
    """The rule, what was got, and what to do."""

    code: str
    """The error's name, such as RATE_TOKEN_LIMIT_EXCEEDED."""

    request_id: str
    """Stands in the server's log as well."""

    error: OpenAiError
    """The same, for OpenAI's clients."""

    errors: list[ErrorField] | None = None
    """Each wrong field, for 422."""
