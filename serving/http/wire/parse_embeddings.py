"""The body of `POST /v1/embeddings` to a call: all it can get wrong that can be seen without a model.

    bytes -> JSON object -> body (types) + items (inputs) -> rules across fields -> call

Pure and quick, but for base64: a body of megabytes is best parsed off the event loop. It does not know
which models, tasks and dimensions exist, and counts no tokens.
"""

from serving.http.errors import FieldError
from serving.http.wire.bodies import EmbeddingsBody
from serving.http.wire.calls import EmbeddingsCall, Format, FormatChoice
from serving.http.wire.document import checked, json_object
from serving.http.wire.item_reader import ItemReader
from serving.http.wire.items import Item, PdfItem, PdfUrlItem, TextItem, TokensItem
from serving.http.wire.limits import BodyLimits
from serving.http.wire.problems import attempt, attempt_given, invalid_all

_DEFAULT_FORMAT = FormatChoice((Format.FLOAT,), keyed=False)
_CLIENTS_OWN_FORMATS = (_DEFAULT_FORMAT, FormatChoice((Format.BASE64,), keyed=False))


def parse_embeddings(body: bytes, limits: BodyLimits) -> EmbeddingsCall:
    """The call behind `body`.

    Raises:
        HttpError: 422; names what is wrong, up to ten fields.
    """
    document = json_object(body)
    errors: list[FieldError] = []
    fields = attempt(lambda: checked(EmbeddingsBody, document), errors)
    reader = ItemReader(limits, cut=fields is not None and fields.truncate is True)
    items = attempt_given(document, "input", reader.one_or_more, errors)
    if fields is None or items is None:
        raise invalid_all(errors)
    choices = _format_choices(fields)
    errors = _conflicts(fields, items) + _format_conflicts(choices)
    if errors:
        raise invalid_all(errors)
    choice = next(iter(choices.values()), _DEFAULT_FORMAT)
    return EmbeddingsCall(
        model=fields.model,
        items=items,
        task=fields.task,
        dimensions=fields.dimensions,
        formats=choice.formats,
        keyed=choice.keyed,
        multi=bool(fields.return_multivector),
        late_chunking=bool(fields.late_chunking),
        truncate=bool(fields.truncate),
        tokenized=bool(fields.return_tokenized_input),
        normalized=fields.normalized is not False,
    )


def _conflicts(fields: EmbeddingsBody, items: tuple[Item, ...]) -> list[FieldError]:
    pdf = _first_pdf(items) if len(items) > 1 else None
    rules = (
        (
            fields.dimensions is not None and fields.return_multivector,
            "dimensions",
            "Multi-vectors have one dimension. Leave out dimensions or return_multivector.",
        ),
        (
            fields.return_tokenized_input and not fields.return_multivector,
            "return_tokenized_input",
            "Tokens are returned beside multi-vectors. Set return_multivector as well.",
        ),
        (
            fields.late_chunking
            and not all(isinstance(item, TextItem | TokensItem) for item in items),
            "late_chunking",
            "Late chunking is for texts. Send other inputs in a request without it.",
        ),
        (
            pdf is not None,
            f"input.{pdf}.pdf",
            "A PDF stands alone. Send it in a request of its own.",
        ),
    )
    return [FieldError(field, message, "conflict") for broken, field, message in rules if broken]


def _first_pdf(items: tuple[Item, ...]) -> int | None:
    places = (index for index, item in enumerate(items) if isinstance(item, PdfItem | PdfUrlItem))
    return next(places, None)


def _format_choices(fields: EmbeddingsBody) -> dict[str, FormatChoice]:
    choices = {
        "embedding_type": fields.embedding_type,
        "encoding_format": fields.encoding_format,
        "encoding_type": fields.encoding_type,
    }
    given = {name: choice for name, choice in choices.items() if choice is not None}
    if "embedding_type" in given and given.get("encoding_format") in _CLIENTS_OWN_FORMATS:
        # OpenAI's client asks for base64 where its user asked for nothing in its own words.
        del given["encoding_format"]
    return given


def _format_conflicts(choices: dict[str, FormatChoice]) -> list[FieldError]:
    names = list(choices)
    return [
        FieldError(
            name,
            f"{name} is another name of {names[0]}, and they differ. Send one of them.",
            "conflict",
        )
        for name in names[1:]
        if choices[name] != choices[names[0]]
    ]
