import base64
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pooling import (
    DecodeError,
    NonFiniteError,
    VectorFormat,
    decode_base64,
    decode_raw,
    encode_base64,
    encode_raw,
)
from tests.pooling.oracle import DEVICES, DTYPES, examples, normal, seeds, sizes

FORMATS = list(VectorFormat)
any_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("vector_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@examples
@given(num_tokens=sizes, dim=sizes, seed=seeds)
def test_raw_bytes_decode_to_the_values_rounded_once(
    device, vector_format, dtype, num_tokens, dim, seed
):
    vectors = normal(num_tokens, dim, seed=seed).to(device, dtype)
    data = encode_raw(vectors, vector_format)
    assert len(data) == num_tokens * dim * vector_format.value_bytes
    decoded = decode_raw(data, (num_tokens, dim), vector_format)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, vectors.cpu().to(vector_format.torch_dtype).float())
    assert encode_raw(decoded, vector_format) == data


@examples
@given(values=st.lists(any_float32, min_size=1, max_size=20))
def test_fp32_is_what_struct_packs(values):
    vectors = torch.tensor(values)
    assert encode_raw(vectors, VectorFormat.FP32) == struct.pack(f"<{len(values)}f", *values)
    assert (
        encode_base64(vectors)
        == base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    )


@examples
@given(values=st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=1))
def test_fp16_is_what_struct_packs(values):
    assert encode_raw(torch.tensor(values), VectorFormat.FP16) == struct.pack(
        f"<{len(values)}e", *values
    )


@examples
@given(bits=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20))
def test_bf16_is_the_upper_half_of_fp32(bits):
    finite = [b for b in bits if (b & 0x7F80) != 0x7F80] or [0]
    values = [struct.unpack("<f", struct.pack("<I", b << 16))[0] for b in finite]
    data = encode_raw(torch.tensor(values), VectorFormat.BF16)
    assert data == struct.pack(f"<{len(finite)}H", *finite)
    assert decode_raw(data, (len(finite),), VectorFormat.BF16).tolist() == values


@pytest.mark.parametrize("device", DEVICES)
@examples
@given(num_tokens=sizes, dim=sizes, seed=seeds)
def test_base64_decodes_to_the_same_vectors(device, num_tokens, dim, seed):
    vectors = normal(num_tokens, dim, seed=seed).to(device)
    assert torch.equal(decode_base64(encode_base64(vectors), (num_tokens, dim)), vectors.cpu())


def test_base64_is_read_by_numpy_as_clients_do():
    vectors = normal(2048, seed=0)
    decoded = np.frombuffer(base64.b64decode(encode_base64(vectors)), dtype="<f4")
    assert np.array_equal(decoded, vectors.numpy())


@pytest.mark.parametrize("vector_format", FORMATS)
def test_a_view_is_encoded_in_its_own_order(vector_format):
    vectors = normal(4, 6, seed=0)
    assert encode_raw(vectors.T, vector_format) == encode_raw(vectors.T.clone(), vector_format)
    assert encode_raw(vectors[:, ::2], vector_format) == encode_raw(
        vectors[:, ::2].clone(), vector_format
    )


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (6, 1)])
def test_shapes_of_any_rank_survive(shape):
    vectors = normal(*shape, seed=0)
    assert torch.equal(
        decode_raw(encode_raw(vectors, VectorFormat.FP32), shape, VectorFormat.FP32), vectors
    )


def test_decoded_vectors_may_be_written_to():
    data = encode_raw(torch.ones(4), VectorFormat.FP32)
    decode_raw(data, (4,), VectorFormat.FP32).zero_()
    assert decode_raw(data, (4,), VectorFormat.FP32).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("vector_format", FORMATS)
@pytest.mark.parametrize("num_bytes", [0, 7, 9, 16])
def test_a_wrong_number_of_bytes_is_refused(vector_format, num_bytes):
    expected = 3 * vector_format.value_bytes
    with pytest.raises(DecodeError, match=rf"takes {expected} bytes, got {num_bytes}\."):
        decode_raw(bytes(num_bytes), (3,), vector_format)


@pytest.mark.parametrize("shape", [(0,), (-1, 4), (3, 0)])
def test_a_shape_without_values_is_refused(shape):
    with pytest.raises(DecodeError, match="A shape counts from 1"):
        decode_raw(b"", shape, VectorFormat.FP32)


@pytest.mark.parametrize("text", ["AAA=AAA=", "AAA", "AA-_AA==", "AAAA\n", "ÄÄÄÄ"])
def test_text_that_is_not_base64_is_refused(text):
    with pytest.raises(DecodeError, match=f"got {len(text)} characters that are not"):
        decode_base64(text, (1,))


def test_base64_of_another_shape_is_refused():
    with pytest.raises(DecodeError, match=r"Shape \(4,\) in fp32 takes 16 bytes, got 12"):
        decode_base64(encode_base64(torch.ones(3)), (4,))


@pytest.mark.parametrize("vector_format", FORMATS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_do_not_leave_the_process(vector_format, bad):
    with pytest.raises(NonFiniteError, match="got 1 of 3 values NaN or infinite"):
        encode_raw(torch.tensor([0.0, bad, 1.0]), vector_format)


@pytest.mark.parametrize(
    ("vector_format", "value"), [(VectorFormat.FP16, 65_520.0), (VectorFormat.BF16, 3.4e38)]
)
def test_a_value_that_outgrows_its_format_is_refused(vector_format, value):
    with pytest.raises(NonFiniteError, match=f"outgrows {vector_format.value}"):
        encode_raw(torch.tensor([1.0, value]), vector_format)


def test_subnormal_values_survive_in_every_format_that_has_them():
    for vector_format, smallest in [
        (VectorFormat.FP32, 2.0**-149),
        (VectorFormat.FP16, 2.0**-24),
        (VectorFormat.BF16, 2.0**-133),
    ]:
        data = encode_raw(torch.tensor([smallest, -smallest]), vector_format)
        assert decode_raw(data, (2,), vector_format).tolist() == [smallest, -smallest]
