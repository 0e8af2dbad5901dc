"""Binary answers, read with the library that everybody has."""

import json

import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from pooling import NonFiniteError, VectorFormat, encode_raw
from serving.http.errors import HttpError
from serving.http.wire.answer_parts import Embedded, Usage
from serving.http.wire.octets import check_octets, octets
from tests.http.wire.bodies import MODEL, embeddings, examples
from tests.http.wire.vectors import USAGE, multis, seeds, singles, units

SINGLE = embeddings()
MULTI = embeddings(return_multivector=True)


def header_of(data):
    num_bytes = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + num_bytes]), data[8 + num_bytes :]


@pytest.mark.parametrize("vector_format", VectorFormat)
@examples
@given(seed=seeds, num_inputs=st.integers(1, 20), dim=st.integers(1, 40))
def test_single_vectors_read_back_rounded_once(vector_format, seed, num_inputs, dim):
    vectors = units(num_inputs, dim, seed=seed)
    data = octets(SINGLE, MODEL, singles(vectors), USAGE, vector_format)
    loaded = safetensors.torch.load(data)
    assert list(loaded) == ["embeddings"]
    assert torch.equal(loaded["embeddings"], vectors.to(vector_format.torch_dtype))
    header, values = header_of(data)
    start, stop = header["embeddings"]["data_offsets"]
    assert values[start:stop] == encode_raw(vectors, vector_format)


@pytest.mark.parametrize("vector_format", VectorFormat)
def test_multi_vectors_are_cut_apart_by_their_offsets(vector_format):
    vectors = [units(length, 16, seed=length) for length in (3, 1, 7)]
    loaded = safetensors.torch.load(octets(MULTI, MODEL, multis(*vectors), USAGE, vector_format))
    assert loaded["offsets"].dtype == torch.int64
    assert loaded["offsets"].tolist() == [0, 3, 4, 11]
    borders = loaded["offsets"].tolist()
    for index, expected in enumerate(vectors):
        rows = loaded["embeddings"][borders[index] : borders[index + 1]]
        assert torch.equal(rows, expected.to(vector_format.torch_dtype))


@pytest.mark.parametrize("vector_format", [VectorFormat.FP32, VectorFormat.FP16])
def test_numpy_reads_it_as_well(vector_format):
    vectors = units(3, 8)
    loaded = safetensors.numpy.load(octets(SINGLE, MODEL, singles(vectors), USAGE, vector_format))
    expected = vectors.to(vector_format.torch_dtype).numpy()
    assert loaded["embeddings"].dtype == expected.dtype
    assert (loaded["embeddings"] == expected).all()


def test_the_header_says_the_rest(tmp_path):
    embedded = [Embedded(i, single=v, page=i + 1) for i, v in enumerate(units(2, 4))]
    path = tmp_path / "answer.safetensors"
    path.write_bytes(octets(SINGLE, 'a "model"', embedded, Usage(9, 9, 7), VectorFormat.FP16))
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == 'a "model"'
    assert metadata["object"] == "list"
    assert json.loads(metadata["usage"]) == {
        "total_tokens": 9,
        "prompt_tokens": 9,
        "image_tokens": 7,
    }
    assert json.loads(metadata["pages"]) == [1, 2]


def test_only_pdfs_have_pages():
    header, _ = header_of(octets(SINGLE, MODEL, singles(units(1, 4)), USAGE, VectorFormat.FP32))
    assert set(header["__metadata__"]) == {"model", "object", "usage"}


@pytest.mark.parametrize("asked", ["base64", "binary", "int8", ["float", "base64"]])
def test_another_format_is_refused(asked):
    call = embeddings(encoding_format=asked)
    with pytest.raises(HttpError) as caught:
        check_octets(call)
    assert caught.value.status == 422
    assert [item.field for item in caught.value.field_errors] == ["embedding_type"]


def test_tokens_are_refused():
    with pytest.raises(HttpError) as caught:
        check_octets(embeddings(return_multivector=True, return_tokenized_input=True))
    assert [item.field for item in caught.value.field_errors] == ["return_tokenized_input"]


@pytest.mark.parametrize("asked", ["float", ["float"], None])
def test_floats_asked_for_by_name_are_what_it_holds(asked):
    check_octets(embeddings(embedding_type=asked))


def test_a_value_that_outgrows_the_format_is_the_callers_to_change():
    vectors = torch.tensor([[70000.0, 1.0]])
    with pytest.raises(HttpError) as caught:
        octets(SINGLE, MODEL, singles(vectors), USAGE, VectorFormat.FP16)
    assert caught.value.status == 422
    assert "fp16" in caught.value.detail
    loaded = safetensors.torch.load(
        octets(SINGLE, MODEL, singles(vectors), USAGE, VectorFormat.BF16)
    )
    assert torch.equal(loaded["embeddings"], vectors.bfloat16())


@pytest.mark.parametrize("vector_format", VectorFormat)
def test_what_is_not_finite_is_never_sent(vector_format):
    with pytest.raises(NonFiniteError):
        octets(SINGLE, MODEL, singles(torch.tensor([[float("nan")]])), USAGE, vector_format)
