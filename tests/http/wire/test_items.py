"""Every spelling of an input, and every way to get one wrong."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http.wire.items import (
    ImageItem,
    ImageUrlItem,
    PdfItem,
    PdfUrlItem,
    TextItem,
    TokensItem,
)
from tests.http.wire.bodies import embeddings, examples, items, refused

DATA = bytes(range(256))
BASE64 = base64.b64encode(DATA).decode()
IMAGE = ImageItem(DATA)
URL = "https://example.com/a.png"
IMAGE_URI = "data:image/png;base64," + BASE64

SPELLINGS = {
    "a string": ("a", TextItem("a")),
    "an empty string": ("", TextItem("")),
    "a string that starts with http": (URL, TextItem(URL)),
    "a string that is another data URI": (
        "data:text/plain;base64,QUJD",
        TextItem("data:text/plain;base64,QUJD"),
    ),
    "a string that only begins as a data URI": (
        "data:image/png,abc",
        TextItem("data:image/png,abc"),
    ),
    "a text": ({"text": "a"}, TextItem("a")),
    "a text that looks like an image": ({"text": IMAGE_URI}, TextItem(IMAGE_URI)),
    "a text with null beside it": ({"text": "a", "image": None}, TextItem("a")),
    "a text with unknown keys": ({"text": "a", "id": 7, "meta": {}}, TextItem("a")),
    "a text part": ({"type": "text", "text": "a"}, TextItem("a")),
    "a message's content": ({"content": [{"type": "text", "text": "a"}]}, TextItem("a")),
    "an image by base64": ({"image": BASE64}, IMAGE),
    "an image by data URI": ({"image": IMAGE_URI}, IMAGE),
    "an image by a data URI with parameters": (
        {"image": "data:image/svg+xml;charset=utf-8;base64," + BASE64},
        IMAGE,
    ),
    "an image by a data URI in capitals": ({"image": "DATA:IMAGE/PNG;BASE64," + BASE64}, IMAGE),
    "an image by URL": ({"image": URL}, ImageUrlItem(URL)),
    "an image by a URL in capitals": ({"image": URL.upper()}, ImageUrlItem(URL.upper())),
    "an image by a URL with space around": ({"image": f" {URL}\n"}, ImageUrlItem(URL)),
    "url": ({"url": URL}, ImageUrlItem(URL)),
    "url with a data URI": ({"url": IMAGE_URI}, IMAGE),
    "bytes": ({"bytes": BASE64}, IMAGE),
    "image with url": ({"image": {"url": URL}}, ImageUrlItem(URL)),
    "image with bytes": ({"image": {"bytes": BASE64}}, IMAGE),
    "image_url with url": (
        {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
        ImageUrlItem(URL),
    ),
    "image_url with a data URI": ({"image_url": {"url": IMAGE_URI}}, IMAGE),
    "image_url as a string": ({"image_url": URL}, ImageUrlItem(URL)),
    "content with an image": (
        {"content": [{"type": "image_url", "image_url": {"url": URL}}]},
        ImageUrlItem(URL),
    ),
    "a string that is an image's data URI": (IMAGE_URI, IMAGE),
    "a string that is an image's data URI in capitals": ("Data:Image/PNG;Base64," + BASE64, IMAGE),
    "a PDF by base64": ({"pdf": BASE64}, PdfItem(DATA)),
    "a PDF by data URI": ({"pdf": "data:application/pdf;base64," + BASE64}, PdfItem(DATA)),
    "a PDF by URL": ({"pdf": URL}, PdfUrlItem(URL)),
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("listed", [False, True])
def test_an_input_alone_and_in_a_list_is_what_the_contract_says(name, listed):
    value, expected = SPELLINGS[name]
    assert items([value] if listed else value) == (expected,)


BASE64_SPELLINGS = {
    "URL-safe": base64.urlsafe_b64encode(DATA).decode(),
    "without padding": base64.b64encode(DATA[:-1]).decode().rstrip("="),
    "URL-safe without padding": base64.urlsafe_b64encode(DATA).decode().rstrip("="),
    "in lines": base64.encodebytes(DATA).decode(),
    "in lines of CRLF": base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
    "with spaces": " ".join(BASE64),
}


@pytest.mark.parametrize("name", BASE64_SPELLINGS)
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_is_read_as_clients_write_it(name, prefix):
    decoded = DATA[:-1] if name == "without padding" else DATA
    assert items({"image": prefix + BASE64_SPELLINGS[name]}) == (ImageItem(decoded),)


@examples
@given(data=st.binary(min_size=1, max_size=200))
def test_base64_gives_back_the_bytes(data):
    assert items({"image": base64.b64encode(data).decode()}) == (ImageItem(data),)
    assert items({"bytes": base64.urlsafe_b64encode(data).decode().rstrip("=")}) == (
        ImageItem(data),
    )


def test_a_list_keeps_its_order_across_kinds():
    value = ["a", [1, 2], {"image": URL}, {"text": "b"}, IMAGE_URI, [3]]
    assert items(value) == (
        TextItem("a"),
        TokensItem((1, 2)),
        ImageUrlItem(URL),
        TextItem("b"),
        IMAGE,
        TokensItem((3,)),
    )


def test_a_list_of_numbers_is_one_input_of_token_ids():
    assert items([5, 0, 2**31 - 1]) == (TokensItem((5, 0, 2**31 - 1)),)


def test_more_token_ids_than_inputs_are_allowed_are_still_one_input():
    assert items(list(range(50))) == (TokensItem(tuple(range(50))),)


def test_more_token_ids_than_a_text_can_have_are_refused_unread():
    assert items([5] * 64) == (TokensItem((5,) * 64),)
    assert refused(input=[5] * 65) == [("input", "text_too_long")]
    assert refused(input=["a", [None] * 65]) == [("input.1", "text_too_long")]


def test_texts_are_bounded_together_too():
    longest = ["a" * 300, {"text": "b" * 300}]
    assert items(longest) == (TextItem("a" * 300), TextItem("b" * 300))
    assert refused(input=[*longest, "c"]) == [("input", "request_too_long")]
    assert refused(input=[*longest, {"text": "c"}]) == [("input.2.text", "request_too_long")]


def test_lists_of_numbers_are_one_input_each():
    assert items([[1], [2, 3]]) == (TokensItem((1,)), TokensItem((2, 3)))


def test_unicode_passes_unchanged():
    text = "naïve 文 👩‍👩‍👧 \u0000 \u202e \uffff \U0010ffff <|im_start|>"
    assert items([text]) == (TextItem(text),)


REFUSED = {
    "null": (None, [("input", "missing")]),
    "a number": (5, [("input", "input_type")]),
    "a boolean": (True, [("input", "input_type")]),
    "an empty list": ([], [("input", "too_short")]),
    "too many": (["a"] * 7, [("input", "too_long")]),
    "a boolean in a list": (["a", True], [("input.1", "input_type")]),
    "null in a list": ([None], [("input.0", "input_type")]),
    "a number after a string": (["a", 1], [("input.1", "input_type")]),
    "a string after a number": ([1, "a"], [("input.1", "token_id")]),
    "true among token ids": ([1, True], [("input.1", "token_id")]),
    "true first among token ids": ([True, 1], [("input.0", "token_id")]),
    "a float among token ids": ([1, 2.5], [("input.1", "token_id")]),
    "a negative token id": ([1, -1], [("input.1", "token_id")]),
    "a huge token id": ([2**31], [("input.0", "token_id")]),
    "a gigantic token id": ([10**300], [("input.0", "token_id")]),
    "no token ids": ([[]], [("input.0", "too_short")]),
    "a bad token id in a list of lists": ([[1], [2, -3]], [("input.1.1", "token_id")]),
    "strings in a list of lists": ([["a"]], [("input.0.0", "token_id")]),
    "lists in a list of lists": ([[[1]]], [("input.0.0", "token_id")]),
    "an empty object": ({}, [("input", "input_kind")]),
    "an unknown object": ({"audio": "QUJD"}, [("input", "input_kind")]),
    "text and image": ({"text": "a", "image": URL}, [("input", "input_kind")]),
    "text and content": ({"text": "a", "content": [{"text": "b"}]}, [("input", "input_kind")]),
    "only nulls": ({"text": None}, [("input", "input_kind")]),
    "text that is a number": ({"text": 5}, [("input.text", "string_type")]),
    "text that is a list": ({"text": ["a"]}, [("input.text", "string_type")]),
    "image that is a number": ({"image": 5}, [("input.image", "string_type")]),
    "image that is no base64": ({"image": "no base64!"}, [("input.image", "base64_invalid")]),
    "image of one character": ({"image": "A"}, [("input.image", "base64_invalid")]),
    "image with padding inside": ({"image": "QQ==QQ=="}, [("input.image", "base64_invalid")]),
    "image with half its padding": ({"image": "QQ="}, [("input.image", "base64_invalid")]),
    "image with more padding": ({"image": "QUJD===="}, [("input.image", "base64_invalid")]),
    "image in other letters": (
        {"image": "\uff31\uff35\uff2a\uff24"},
        [("input.image", "base64_invalid")],
    ),
    "image that is empty": ({"image": ""}, [("input.image", "empty")]),
    "image that is only padding": ({"image": "=="}, [("input.image", "base64_invalid")]),
    "image of an empty data URI": (
        {"image": "data:image/png;base64,"},
        [("input.image", "empty")],
    ),
    "a string that is a damaged image": (
        "data:image/png;base64,A",
        [("input", "base64_invalid")],
    ),
    "image that is another data URI": (
        {"image": "data:text/html;base64,QUJD"},
        [("input.image", "data_uri_invalid")],
    ),
    "image that is a data URI without base64": (
        {"image": "data:image/svg+xml,<svg/>"},
        [("input.image", "data_uri_invalid")],
    ),
    "image in a file": ({"image": "file:///etc/passwd"}, [("input.image", "base64_invalid")]),
    "image by FTP": ({"image": "ftp://example.com/a"}, [("input.image", "base64_invalid")]),
    "image with a long URL": (
        {"image": "http://e.com/" + "a" * 9000},
        [("input.image", "url_too_long")],
    ),
    "image that is too large": (
        {"image": base64.b64encode(bytes(1001)).decode()},
        [("input.image", "too_large")],
    ),
    "image without url and bytes": ({"image": {}}, [("input.image", "input_kind")]),
    "image with url and bytes": (
        {"image": {"url": URL, "bytes": BASE64}},
        [("input.image", "input_kind")],
    ),
    "url that is none": ({"url": "example.com/a.png"}, [("input.url", "url_type")]),
    "image_url that is none": (
        {"image_url": {"url": "a"}},
        [("input.image_url.url", "url_type")],
    ),
    "image_url without url": ({"image_url": {}}, [("input.image_url.url", "string_type")]),
    "content with two parts": (
        {"content": [{"text": "a"}, {"text": "b"}]},
        [("input.content", "content_type")],
    ),
    "content that is a string": ({"content": "a"}, [("input.content", "content_type")]),
    "content in content": (
        {"content": [{"content": [{"text": "a"}]}]},
        [("input.content.0", "input_kind")],
    ),
    "pdf that is too large": (
        {"pdf": base64.b64encode(bytes(2001)).decode()},
        [("input.pdf", "too_large")],
    ),
    "pdf that is an image's data URI": ({"pdf": IMAGE_URI}, [("input.pdf", "data_uri_invalid")]),
    "pdf that is an object": ({"pdf": {"url": URL}}, [("input.pdf", "string_type")]),
    "pdf with another input": (["a", {"pdf": URL}], [("input.1.pdf", "conflict")]),
    "two PDFs": ([{"pdf": URL}, {"pdf": URL}], [("input.0.pdf", "conflict")]),
    "a long text": ("a" * 501, [("input", "text_too_long")]),
    "a long text in a list": (["a", "b" * 501], [("input.1", "text_too_long")]),
    "a long text in an object": ({"text": "a" * 501}, [("input.text", "text_too_long")]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_input_is_refused_by_name(name):
    value, expected = REFUSED[name]
    assert refused(input=value) == expected


def test_sizes_at_their_bounds_are_taken():
    assert items({"image": base64.b64encode(bytes(1000)).decode()}) == (ImageItem(bytes(1000)),)
    assert items({"pdf": base64.b64encode(bytes(2000)).decode()}) == (PdfItem(bytes(2000)),)
    assert items("a" * 500) == (TextItem("a" * 500),)
    assert len(items(["a"] * 6)) == 6


def test_several_wrong_inputs_are_all_named():
    value = ["a", {"image": "!"}, True, {"text": 1}]
    assert refused(input=value) == [
        ("input.1.image", "base64_invalid"),
        ("input.2", "input_type"),
        ("input.3.text", "string_type"),
    ]


def test_contents_stay_out_of_a_calls_repr():
    call = embeddings(input=["secret text", [31337], {"image": URL}, {"image": BASE64}])
    shown = repr(call)
    assert "TextItem" in shown
    for content in ("secret", "31337", "example.com", str(DATA)):
        assert content not in shown


def test_a_whole_float_is_no_token_id():
    assert refused(input=[1, 2.0]) == [("input.1", "token_id")]
