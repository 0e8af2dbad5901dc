"""What an embeddings answer holds, and that it reads back."""

import base64
import json
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pooling import Int8Vectors, NonFiniteError, decode_base64, dequantise, int8
from serving.http.wire.answer import answer_chunks
from serving.http.wire.answer_parts import Embedded, Patches, Usage
from serving.http.wire.answers import EmbeddingsAnswer
from tests.http.wire.bodies import MODEL, embeddings, examples
from tests.http.wire.vectors import USAGE, answer, body, multis, seeds, singles, units

FORMATS = ["float", "base64", "binary", "ubinary", "int8"]
PUBLIC_FORMATS = FORMATS[:4]
MEGABYTE = 1024 * 1024
PUBLIC = json.loads((Path(__file__).parent / "public_types.json").read_text())

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def public_validator():
    schema = {"$ref": "#/components/schemas/EmbeddingResponse", **PUBLIC}
    return jsonschema_rs.validator_for(schema)


def own_validator():
    return jsonschema_rs.validator_for(EmbeddingsAnswer.model_json_schema())


def test_the_document_of_one_vector_is_what_the_contract_shows():
    embedded = [Embedded(0, single=torch.tensor([0.5, -0.25, 0.1]))]
    assert body(embeddings(), embedded) == (
        b'{"model":"jina-embeddings-v4","object":"list",'
        b'"usage":{"total_tokens":12,"prompt_tokens":12},'
        b'"data":[{"object":"embedding","index":0,"embedding":[0.5,-0.25,0.1]}]}'
    )


def test_the_document_of_a_multi_vector_is_what_the_contract_shows():
    call = embeddings(return_multivector=True, return_tokenized_input=True)
    embedded = [Embedded(0, multi=torch.tensor([[0.5, 1], [0, -1]]), tokens=["a", "\u0120b"])]
    assert body(call, embedded) == (
        b'{"model":"jina-embeddings-v4","object":"list",'
        b'"usage":{"total_tokens":12,"prompt_tokens":12},'
        b'"data":[{"object":"embeddings","index":0,"embeddings":[[0.5,1.0],[0.0,-1.0]],'
        b'"tokenized_input":["a","\xc4\xa0b"]}]}'
    )


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("num_inputs", [1, 2, 32, 33, 100])
def test_single_vectors_come_in_order_whatever_their_number(format_, num_inputs):
    document = answer(embeddings(embedding_type=format_), singles(units(num_inputs, 24)))
    assert [item["index"] for item in document["data"]] == list(range(num_inputs))
    assert {item["object"] for item in document["data"]} == {"embedding"}


@examples
@given(values=st.lists(finite, min_size=1, max_size=20))
def test_floats_read_back_as_the_same_float32_and_are_as_short_as_numpy_writes_them(values):
    vector = torch.tensor(values, dtype=torch.float32)
    (item,) = answer(embeddings(), [Embedded(0, single=vector)])["data"]
    assert np.array_equal(np.array(item["embedding"], dtype=np.float32), vector.numpy())
    text = body(embeddings(), [Embedded(0, single=vector)]).decode()
    for number, value in zip(
        text[text.index("[", text.index('"embedding":[')) + 1 :].split("]")[0].split(","),
        vector.numpy(),
        strict=True,
    ):
        digits = number.lstrip("-").split("e")[0].replace(".", "").strip("0")
        shortest = np.format_float_scientific(value, unique=True).lstrip("-").split("e")[0]
        assert len(digits) <= len(shortest.replace(".", "").strip("0"))


@examples
@given(seed=seeds, dim=st.integers(1, 40), num_inputs=st.integers(1, 40))
def test_base64_reads_back_as_the_same_float32(seed, dim, num_inputs):
    vectors = units(num_inputs, dim, seed=seed)
    data = answer(embeddings(embedding_type="base64"), singles(vectors))["data"]
    decoded = torch.stack([decode_base64(item["embedding"], (dim,)) for item in data])
    assert torch.equal(decoded, vectors)


def test_base64_is_little_endian_float32_as_openai_reads_it():
    vectors = units(3, 7)
    data = answer(embeddings(encoding_format="base64"), singles(vectors))["data"]
    for item, vector in zip(data, vectors, strict=True):
        decoded = np.frombuffer(base64.b64decode(item["embedding"], validate=True), dtype="<f4")
        assert np.array_equal(decoded, vector.numpy())


@examples
@given(seed=seeds, dim=st.integers(1, 40))
def test_binary_and_ubinary_are_numpys_packed_signs(seed, dim):
    vectors = units(3, dim, seed=seed)
    packed = np.packbits(vectors.numpy() > 0, axis=-1)
    data = answer(embeddings(embedding_type=["ubinary", "binary"]), singles(vectors))["data"]
    for item, row in zip(data, packed, strict=True):
        assert item["embedding"]["ubinary"] == row.tolist()
        assert item["embedding"]["binary"] == (row.astype(int) - 128).tolist()


@examples
@given(seed=seeds, dim=st.integers(1, 40))
def test_int8_times_its_scale_is_the_dequantised_vector(seed, dim):
    vectors = units(2, dim, seed=seed)
    data = answer(embeddings(embedding_type="int8"), singles(vectors))["data"]
    quantised = Int8Vectors(
        torch.tensor([item["embedding"] for item in data], dtype=torch.int8),
        torch.tensor([item["scale"] for item in data], dtype=torch.float32),
    )
    assert torch.equal(dequantise(quantised), dequantise(int8(vectors)))


@pytest.mark.parametrize("num_formats", range(1, 6))
def test_a_list_of_formats_gives_an_object_keyed_by_format_in_the_order_asked_for(num_formats):
    formats = FORMATS[:num_formats][::-1]
    vectors = units(70, 16)
    keyed = answer(embeddings(embedding_type=formats), singles(vectors))["data"]
    assert len(keyed) == 70
    for name in formats:
        alone = answer(embeddings(embedding_type=name), singles(vectors))["data"]
        assert [item["embedding"][name] for item in keyed] == [item["embedding"] for item in alone]
    assert all(list(item["embedding"]) == formats for item in keyed)
    assert all(("scale" in item) == ("int8" in formats) for item in keyed)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_multi_vector_has_the_same_rows_as_its_tokens_alone(format_):
    lengths = [1, 3, 600, 2]
    vectors = [units(length, 128, seed=length) for length in lengths]
    call = embeddings(return_multivector=True, embedding_type=format_)
    data = answer(call, multis(*vectors))["data"]
    assert [len(item["embeddings"]) for item in data] == lengths
    for item, multi in zip(data, vectors, strict=True):
        alone = answer(embeddings(embedding_type=format_), singles(multi))["data"]
        assert item["embeddings"] == [row["embedding"] for row in alone]
        if format_ == "int8":
            assert item["scales"] == [row["scale"] for row in alone]


def test_multi_vectors_are_keyed_by_format_too():
    vectors = units(5, 8)
    call = embeddings(return_multivector=True, embedding_type=["float", "int8", "base64"])
    (item,) = answer(call, multis(vectors))["data"]
    assert list(item["embeddings"]) == ["float", "int8", "base64"]
    for name in ("float", "int8", "base64"):
        alone = embeddings(return_multivector=True, embedding_type=name)
        (expected,) = answer(alone, multis(vectors))["data"]
        assert item["embeddings"][name] == expected["embeddings"]
    assert len(item["scales"]) == 5


@pytest.mark.parametrize("multi", [False, True])
def test_pages_have_their_numbers(multi):
    vectors = units(2, 4, 8)
    embedded = [
        Embedded(index, single=vector[0], multi=vector, page=index + 1)
        for index, vector in enumerate(vectors)
    ]
    data = answer(embeddings(return_multivector=multi), embedded)["data"]
    assert [(item["index"], item["page"]) for item in data] == [(0, 1), (1, 2)]


def test_usage_names_image_tokens_where_there_were_images():
    document = answer(embeddings(), singles(units(1, 4)), Usage(30, 30, 20))
    assert document["usage"] == {"total_tokens": 30, "prompt_tokens": 30, "image_tokens": 20}


def test_a_models_name_is_escaped():
    chunks = answer_chunks(embeddings(), 'a"\\\n]}', singles(units(1, 4)), USAGE)
    assert json.loads(b"".join(chunks))["model"] == 'a"\\\n]}'


@pytest.mark.parametrize("format_", FORMATS)
def test_pieces_are_bounded(format_):
    call = embeddings(embedding_type=format_)
    pieces = list(answer_chunks(call, MODEL, singles(units(70, 2048)), USAGE))
    assert max(map(len, pieces)) <= MEGABYTE
    call = embeddings(embedding_type=format_, return_multivector=True)
    pieces = list(answer_chunks(call, MODEL, multis(units(1100, 128), units(3, 128)), USAGE))
    assert max(map(len, pieces)) <= MEGABYTE


def test_nothing_is_encoded_before_it_is_asked_for():
    broken = units(70, 2048)
    broken[69, 0] = float("nan")
    chunks = answer_chunks(embeddings(), MODEL, singles(broken), USAGE)
    assert next(chunks).startswith(b'{"model"')
    with pytest.raises(NonFiniteError):
        list(chunks)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("multi", [False, True])
def test_what_is_not_finite_is_never_sent(format_, value, multi):
    vectors = units(2, 8)
    vectors[1, 3] = value
    embedded = multis(vectors) if multi else singles(vectors)
    with pytest.raises(NonFiniteError):
        body(embeddings(embedding_type=format_, return_multivector=multi), embedded)


@pytest.mark.parametrize("format_", PUBLIC_FORMATS)
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("num_inputs", [1, 3])
def test_answers_are_what_the_public_api_declares(format_, multi, num_inputs):
    vectors = units(num_inputs, 5, 16)
    embedded = multis(*vectors) if multi else singles(vectors[:, 0])
    call = embeddings(embedding_type=format_, return_multivector=multi)
    public_validator().validate(answer(call, embedded, Usage(9, 9, 3)))


def test_the_public_types_tell_answers_apart():
    document = answer(embeddings(), singles(units(1, 4)))
    del document["data"][0]["embedding"]
    assert not public_validator().is_valid(document)


@pytest.mark.parametrize("format_", [*FORMATS, FORMATS, ["int8"], ["float", "ubinary"]])
@pytest.mark.parametrize("multi", [False, True])
def test_answers_are_what_our_own_schema_declares(format_, multi):
    vectors = units(3, 5, 16)
    embedded = [
        Embedded(
            index, vector[0], vector, page=index + 1, tokens=["a"] * 5, patches=Patches(1, 1, 3)
        )
        for index, vector in enumerate(vectors)
    ]
    call = embeddings(
        embedding_type=format_, return_multivector=multi, return_tokenized_input=multi
    )
    document = answer(call, embedded, Usage(9, 9, 3))
    own_validator().validate(document)
    last = EmbeddingsAnswer.model_validate(document).data[2]
    assert last.page == 3
    assert not multi or last.patches.columns == 3
    document["data"][1]["embeddings" if multi else "embedding"] = None
    assert not own_validator().is_valid(document)
