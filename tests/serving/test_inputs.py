import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from serving import InputError, PageImage, Text
from serving.inputs import as_image, as_input, as_text


def png(width: int = 4, height: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "text",
    ["", "plain", "https://example.org/a.png", "/etc/passwd", "data: a word", "data:text/plain,x"],
)
def test_a_string_is_text_whatever_it_looks_like(text: str) -> None:
    assert as_input(text) == Text(text)
    assert as_input({"text": text}) == Text(text)


def test_every_form_of_an_image_is_an_image() -> None:
    image, data = Image.new("RGB", (4, 4)), png()
    assert as_input(image) == PageImage(image)
    assert as_input(Path("a.png")) == PageImage(Path("a.png"))
    for value in (data, bytearray(data), memoryview(data), io.BytesIO(data), data_uri(data)):
        assert as_input(value) == PageImage(data)
        assert as_image(value) == PageImage(data)
        assert as_input({"image": value}) == PageImage(data)


def test_encode_image_takes_a_string_as_a_path() -> None:
    assert as_image("page.png") == PageImage(Path("page.png"))


@pytest.mark.parametrize(
    "url", ["http://a/b.png", "HTTPS://a/b.png", "s3://a/b", "file:///etc/passwd"]
)
def test_a_url_is_refused_and_not_fetched(url: str) -> None:
    with pytest.raises(InputError, match=r"is a URL.*Download it"):
        as_image(url)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (7, "not int"),
        (None, "not NoneType"),
        ({"text": "a", "image": b""}, "exactly one key"),
        ({"pdf": "a"}, "exactly one key"),
        ("data:image/png;base64,!!!", "not valid base64"),
        ({"image": "data:text/plain,x"}, "not an image's data URI"),
        ({"text": 7}, "must be a str, not int"),
        ({"image": ""}, "must be a path or a data URI"),
        ({"image": "A" * 5000}, "not 5000 characters. Base64 needs"),
        ("\ud800 alone", "lone surrogate at character 0"),
    ],
)
def test_what_is_neither_is_refused_by_name(value: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        as_input(value)


def test_a_text_must_be_a_string() -> None:
    with pytest.raises(InputError, match="must be a str, not bytes"):
        as_text(b"bytes")
