"""`POST /v1/embeddings`: images, PDFs and their mixture with texts, and what they cost."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load

from tests.conftest import Golden
from tests.http.documents import picture_pdf, written_pdf
from tests.http.live import MODEL, Embed, Live
from tests.http.oracle import QUERY, Oracle, close, multi, single

TEMPLATE_TOKENS = 17
"""Tokens around an image's own, by the golden checkpoint's small tokenizer; by the published one, 11."""


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def picture(width: int, height: int, format_: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(file, format_)
    return file.getvalue()


def lengths(answer: Any) -> list[int]:
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return [len(item["embeddings"]) for item in answer["data"]]


def test_an_image_costs_its_own_tokens_and_its_templates(embed: Embed, golden: Golden) -> None:
    for number, image in enumerate(golden.images):
        answer = embed(input={"image": encoded(image.read_bytes())})
        _, height, width = golden.arrays[f"retrieval/image_{number}/grid"].reshape(-1).tolist()
        num_tokens = height * width // 4 + TEMPLATE_TOKENS
        assert num_tokens == len(golden.arrays[f"retrieval/image_{number}/ids"])
        assert answer["usage"] == {
            "total_tokens": num_tokens,
            "prompt_tokens": num_tokens,
            "image_tokens": num_tokens,
        }


def test_an_image_is_pooled_over_its_own_span(embed: Embed, golden: Golden) -> None:
    data = encoded(golden.images[0].read_bytes())
    ids = golden.arrays["retrieval/image_0/ids"].tolist()
    start, end = ids.index(1019), ids.index(1020)
    (item,) = embed(input={"image": data})["data"]
    assert close(item["embedding"], single(ids[start : end + 1]))
    (item,) = embed(input={"image": data}, dimensions=8)["data"]
    assert close(item["embedding"], single(ids[start : end + 1], 8))
    (item,) = embed(input={"image": data}, return_multivector=True)["data"]
    assert close(item["embeddings"], multi(ids))


SPELLINGS: dict[str, Callable[[str], object]] = {
    "base64": lambda data: {"image": data},
    "a data URI": lambda data: {"image": f"data:image/png;base64,{data}"},
    "bytes in image": lambda data: {"image": {"bytes": data}},
    "bytes": lambda data: {"bytes": data},
    "a data URI as URL": lambda data: {"url": f"data:image/png;base64,{data}"},
    "OpenAI's": lambda data: {"image_url": {"url": f"data:image/png;base64,{data}"}},
    "URL-safe": lambda data: {"image": data.rstrip("=").replace("+", "-").replace("/", "_")},
    "a plain data URI": lambda data: f"data:image/png;base64,{data}",
    "a message's content": lambda data: {"content": [{"type": "image", "image": data}]},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_image_is_spelled_in_many_ways(embed: Embed, golden: Golden, spelling: str) -> None:
    data = encoded(golden.images[1].read_bytes())
    plain = embed(input=[{"image": data}])
    assert embed(input=[SPELLINGS[spelling](data)]) == plain
    assert embed(input=SPELLINGS[spelling](data)) == plain


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_images_come_in_the_usual_formats(embed: Embed, format_: str) -> None:
    answer = embed(input={"image": encoded(picture(112, 56, format_))})
    assert answer["usage"]["total_tokens"] == 4 * 2 + TEMPLATE_TOKENS


def test_a_plain_string_that_starts_with_http_is_text(embed: Embed, oracle: Oracle) -> None:
    url = "http://127.0.0.1:9/image.png"
    (item,) = embed(input=[url])["data"]
    assert close(item["embedding"], single(oracle.ids(QUERY + url)))


def test_texts_and_images_mixed_keep_their_order(embed: Embed, golden: Golden) -> None:
    images = [{"image": encoded(path.read_bytes())} for path in golden.images[:4]]
    mixed = [images[3], "a", images[0], {"text": "b"}, images[1], images[2], "c"]
    answer = embed(input=mixed, task="retrieval.passage")
    alone = [embed(input=[one], task="retrieval.passage") for one in mixed]
    assert [item["index"] for item in answer["data"]] == list(range(len(mixed)))
    assert [item["embedding"] for item in answer["data"]] == [
        one["data"][0]["embedding"] for one in alone
    ]
    for name in ("total_tokens", "prompt_tokens", "image_tokens"):
        assert answer["usage"][name] == sum(one["usage"].get(name, 0) for one in alone)
    assert answer["usage"]["image_tokens"] < answer["usage"]["total_tokens"]


def test_an_image_is_the_same_for_queries_and_passages(embed: Embed, golden: Golden) -> None:
    # The prefixes are for texts.
    data = {"image": encoded(golden.images[0].read_bytes())}
    assert embed(input=data, task="retrieval.query") == embed(input=data, task="retrieval.passage")


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_pdf_gives_a_vector_for_each_page(embed: Embed, is_listed: bool) -> None:
    pdf = {"pdf": encoded(picture_pdf([(200, 0, 0), (0, 200, 0), (0, 0, 200)]))}
    answer = embed(input=[pdf] if is_listed else pdf, dimensions=16)
    assert [item["page"] for item in answer["data"]] == [1, 2, 3]
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    assert [len(item["embedding"]) for item in answer["data"]] == [16] * 3
    assert answer["usage"]["image_tokens"] == answer["usage"]["total_tokens"]


def test_pages_keep_their_order_and_their_shape(embed: Embed) -> None:
    # At 144 dpi a point is two pixels; 56 x 56 points are 4 x 4 image tokens.
    pdf = written_pdf(["0 0 56 56", "0 0 112 56", "0 0 56 28"])
    source = f"data:application/pdf;base64,{encoded(pdf)}"
    answer = embed(input={"pdf": source}, return_multivector=True)
    assert lengths(answer) == [size + TEMPLATE_TOKENS for size in (16, 32, 8)]
    assert [item["page"] for item in answer["data"]] == [1, 2, 3]


def tensors(live: Live, accept: str, **body: Any) -> Any:
    answer = live.client.post(
        "/v1/embeddings", json={"model": MODEL, **body}, headers={"Accept": accept}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    return load(answer.content)


DTYPES = {"fp32": 0.0, "fp16": 2**-11, "bf16": 2**-8}
"""Half a unit in the last place of values up to 1."""


@pytest.mark.parametrize("dtype", DTYPES)
def test_single_vectors_as_octets(live: Live, embed: Embed, dtype: str) -> None:
    texts = ["a", "", "海滩上美丽的日落"]
    found = tensors(live, f"application/octet-stream; dtype={dtype}", input=texts, dimensions=16)
    floats = np.float32([item["embedding"] for item in embed(input=texts, dimensions=16)["data"]])
    assert list(found) == ["embeddings"]
    assert found["embeddings"].shape == (3, 16)
    assert str(found["embeddings"].dtype).endswith(
        {"fp32": "float32", "fp16": ".float16", "bf16": "bfloat16"}[dtype]
    )
    assert np.abs(found["embeddings"].float().numpy() - floats).max() <= DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_multi_vectors_as_octets_are_cut_apart_by_offsets(
    live: Live, embed: Embed, golden: Golden, dtype: str
) -> None:
    mixed = ["a", {"image": encoded(golden.images[0].read_bytes())}, "", "a longer text"]
    found = tensors(
        live, f"application/octet-stream;dtype={dtype}", input=mixed, return_multivector=True
    )
    items = embed(input=mixed, return_multivector=True)["data"]
    offsets = found["offsets"].tolist()
    assert offsets == [0, *np.cumsum([len(item["embeddings"]) for item in items]).tolist()]
    for start, stop, item in zip(offsets[:-1], offsets[1:], items, strict=True):
        part = found["embeddings"][start:stop].float().numpy()
        assert np.abs(part - np.float32(item["embeddings"])).max() <= DTYPES[dtype]


def test_octets_are_float32_unless_the_header_says_otherwise(live: Live, embed: Embed) -> None:
    found = tensors(live, "application/octet-stream", input="a")
    (item,) = embed(input="a")["data"]
    assert found["embeddings"].numpy().tobytes() == np.float32([item["embedding"]]).tobytes()


@pytest.mark.parametrize(("width", "height"), [(448, 448), (300, 120), (90, 700), (20, 20)])
def test_the_patches_of_an_image_are_a_grid_over_it(embed: Embed, width: int, height: int) -> None:
    asked = {"return_multivector": True, "return_tokenized_input": True}
    (item,) = embed(input={"image": encoded(picture(width, height))}, **asked)["data"]
    patches, tokens = item["patches"], item["tokenized_input"]
    stop = patches["start"] + patches["rows"] * patches["columns"]
    assert set(tokens[patches["start"] : stop]) == {"<|image_pad|>"}
    assert tokens.count("<|image_pad|>") == stop - patches["start"]
    assert (patches["rows"] > patches["columns"]) == (height > width)


def test_patches_are_told_of_pages_and_not_of_texts_nor_where_tokens_were_not_asked_for(
    embed: Embed,
) -> None:
    asked = {"return_multivector": True, "return_tokenized_input": True}
    pdf = encoded(picture_pdf([(1, 2, 3), (4, 5, 6)], size=(56, 112)))
    pages = embed(input={"pdf": pdf}, **asked)["data"]
    assert [page["patches"]["rows"] for page in pages] == [8, 8]
    image = {"image": encoded(picture(56, 56))}
    text, mixed = embed(input=["a text", image], **asked)["data"]
    assert "patches" not in text
    assert mixed["patches"]["rows"] == 2
    (unasked,) = embed(input=image, return_multivector=True)["data"]
    assert "patches" not in unasked
