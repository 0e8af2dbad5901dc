"""JSON values to items: which of its many spellings an input is, decided once for each.

It does not know which field of which route it reads, nor how JSON was parsed.
"""

from typing import NoReturn, TypeGuard, cast

from serving.http.errors import FieldError, HttpError, invalid
from serving.http.wire.encoded import (
    bytes_of,
    image_media,
    is_image_uri,
    is_url,
    pdf_media,
    url_of,
)
from serving.http.wire.items import (
    ImageItem,
    ImageUrlItem,
    Item,
    PdfItem,
    PdfUrlItem,
    TextItem,
    TokensItem,
)
from serving.http.wire.limits import BodyLimits
from serving.http.wire.problems import MAX_FIELD_ERRORS, invalid_all, json_type

MAX_TOKEN_ID = 2**31 - 1

_KINDS = ("text", "image", "image_url", "url", "bytes", "pdf")


class ItemReader:
    """Reads the inputs of one request within limits. Every error is an HttpError of 422 that names the field.

    Args:
        limits: of the request.
        cut: texts and lists of token ids that are too long end where the limit is, which is several times what is
            kept of them when their tokens are known.
    """

    def __init__(self, limits: BodyLimits, *, cut: bool = False) -> None:
        self._limits = limits
        self._cut = cut
        self._image_media = image_media(limits.max_image_bytes)
        self._pdf_media = pdf_media(limits.max_pdf_bytes)
        self._num_chars = 0

    def one_or_more(self, value: object, field: str) -> tuple[Item, ...]:
        """One input, or a list of them; a list of numbers is one input of token ids."""
        if not isinstance(value, list):
            return (self.item(value, field),)
        if value and isinstance(value[0], int | float):
            return (self._tokens(value, field),)
        return self.several(value, field)

    def several(self, value: object, field: str) -> tuple[Item, ...]:
        """A list of inputs, in order."""
        if not isinstance(value, list):
            raise invalid(
                field, f"Input should be a list of inputs, got {json_type(value)}.", "list_type"
            )
        self._check_length(value, field)
        if self._are_texts(value):
            self._num_chars += sum(map(len, value))
            self._check_chars(field)
            return tuple(map(TextItem, value))
        items: list[Item] = []
        errors: list[FieldError] = []
        for index, element in enumerate(value):
            if self._are_texts([element]):
                self._num_chars += len(element)
                items.append(TextItem(element))
                continue
            try:
                items.append(self.item(element, f"{field}.{index}"))
            except HttpError as error:
                errors.extend(error.field_errors)
                if len(errors) >= MAX_FIELD_ERRORS:
                    break
        if errors:
            raise invalid_all(errors)
        self._check_chars(field)
        return tuple(items)

    def _are_texts(self, value: list[object]) -> TypeGuard[list[str]]:
        """Whether all are texts that need no closer look, as nearly always."""
        if set(map(type, value)) != {str}:
            return False
        texts = cast("list[str]", value)
        return max(map(len, texts)) <= self._limits.max_text_chars and not any(
            map(is_image_uri, texts)
        )

    def one(self, value: object, field: str) -> tuple[Item, ...]:
        """Exactly one input."""
        return (self.item(value, field),)

    def item(self, value: object, field: str) -> Item:
        """One input."""
        match value:
            case str() if is_image_uri(value):
                return ImageItem(bytes_of(value, field, self._image_media))
            case str():
                return self._text(value, field)
            case list():
                return self._tokens(value, field)
            case dict():
                return self._document(value, field)
            case _:
                raise invalid(
                    field,
                    "An input is a string, an object or a list of token ids, "
                    f"got {json_type(value)}.",
                    "input_type",
                )

    def _document(self, document: dict[str, object], field: str) -> Item:
        kind = _only(document, (*_KINDS, "content"), field)
        if kind == "content":
            return self._part(_only_part(document, field), f"{field}.content.0")
        return self._part(document, field)

    def _part(self, part: dict[str, object], field: str) -> Item:
        kind = _only(part, _KINDS, field)
        value, field = part[kind], f"{field}.{kind}"
        match kind:
            case "text":
                return self._text(_string(value, field), field)
            case "pdf":
                return self._pdf(_string(value, field), field)
            case "image" | "bytes":
                return self._image(value, field)
            case _:
                return self._image_at(value, field)

    def _text(self, text: str, field: str) -> TextItem:
        if len(text) > self._limits.max_text_chars:
            if self._cut:
                return self._text(text[: self._limits.max_text_chars], field)
            raise invalid(
                field,
                f"A text has at most {self._limits.max_text_chars} characters, got {len(text)}. "
                "Split it, or set truncate.",
                "text_too_long",
            )
        self._num_chars += len(text)
        self._check_chars(field)
        return TextItem(text)

    def _tokens(self, value: list[object], field: str) -> TokensItem:
        if not value:
            raise invalid(field, "A list of token ids has at least one, got none.", "too_short")
        if len(value) > self._limits.max_token_ids:
            if self._cut:
                return self._tokens(value[: self._limits.max_token_ids], field)
            raise invalid(
                field,
                f"A text has at most {self._limits.max_token_ids} token ids, got {len(value)}. "
                "Split it, or set truncate.",
                "text_too_long",
            )
        # A bool is an int, and its type is not.
        if set(map(type, value)) != {int}:
            _refuse_token(value, field)
        token_ids = cast("list[int]", value)
        if min(token_ids) < 0 or max(token_ids) > MAX_TOKEN_ID:
            _refuse_token(value, field)
        return TokensItem(tuple(token_ids))

    def _image(self, value: object, field: str) -> ImageItem | ImageUrlItem:
        if isinstance(value, dict):
            kind = _only(value, ("url", "bytes"), field)
            inner = _string(value[kind], f"{field}.{kind}")
            read = self._image_at if kind == "url" else self._image
            return read(inner, f"{field}.{kind}")
        text = _string(value, field).strip()
        if is_url(text):
            return ImageUrlItem(url_of(text, field))
        return ImageItem(bytes_of(text, field, self._image_media))

    def _image_at(self, value: object, field: str) -> ImageItem | ImageUrlItem:
        """An image by URL, which may be a data URI: a string, or an object around it."""
        if isinstance(value, dict):
            value, field = value.get("url"), f"{field}.url"
        text = _string(value, field).strip()
        if is_url(text) or is_image_uri(text):
            return self._image(text, field)
        raise invalid(
            field,
            "A URL is http(s) or an image's data URI. Send base64 as {'image': ...}.",
            "url_type",
        )

    def _pdf(self, text: str, field: str) -> PdfItem | PdfUrlItem:
        text = text.strip()
        if is_url(text):
            return PdfUrlItem(url_of(text, field))
        return PdfItem(bytes_of(text, field, self._pdf_media))

    def _check_chars(self, field: str) -> None:
        if self._num_chars > self._limits.max_request_chars:
            raise invalid(
                field,
                f"The texts of a request have at most {self._limits.max_request_chars} characters "
                "together. Send several requests.",
                "request_too_long",
            )

    def _check_length(self, value: list[object], field: str) -> None:
        if not value:
            raise invalid(field, "A list has at least one input, got none.", "too_short")
        if len(value) > self._limits.max_inputs:
            raise invalid(
                field,
                f"A request has at most {self._limits.max_inputs} inputs, got {len(value)}. "
                "Send several requests.",
                "too_long",
            )


def _only(part: dict[str, object], kinds: tuple[str, ...], field: str) -> str:
    """Which of `kinds` is given; null is not."""
    given = [kind for kind in kinds if part.get(kind) is not None]
    if len(given) != 1:
        raise invalid(
            field,
            f"Exactly one of {', '.join(kinds)} is given, got {', '.join(given) or 'none'}.",
            "input_kind",
        )
    return given[0]


def _only_part(value: dict[str, object], field: str) -> dict[str, object]:
    """The part of an input that is spelled as a chat message's content."""
    content = value["content"]
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        return content[0]
    raise invalid(
        f"{field}.content",
        "content is a list of exactly one part, a text or an image. Send each part as an input.",
        "content_type",
    )


def _string(value: object, field: str) -> str:
    if isinstance(value, str):
        return value
    raise invalid(field, f"Input should be a valid string, got {json_type(value)}.", "string_type")


def _refuse_token(value: list[object], field: str) -> NoReturn:
    for index, element in enumerate(value):
        if type(element) is not int or not 0 <= element <= MAX_TOKEN_ID:
            got = "another number" if type(element) in (int, float) else json_type(element)
            raise invalid(
                f"{field}.{index}",
                f"A token id is an integer from 0 to {MAX_TOKEN_ID}, got {got}.",
                "token_id",
            )
    raise AssertionError("called without a bad token id")
