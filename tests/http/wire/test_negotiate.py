"""What an Accept header gets."""

import pytest

from pooling import VectorFormat
from serving.http.errors import HttpError
from serving.http.wire.negotiate import Json, Octets, negotiate

OCTETS = "application/octet-stream"
FP32 = Octets(VectorFormat.FP32)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/json",
        "application/*",
        "text/html,application/xhtml+xml,*/*;q=0.8",
        "text/plain",
        "image/png",
        f"{OCTETS};q=0",
        f"{OCTETS};q=0.0, */*",
        f"{OCTETS};q=nan",
        f"{OCTETS};q=",
        f"{OCTETS};q=2",
        f"application/json, {OCTETS}",
        f"application/json;q=0.9, {OCTETS};q=0.8",
        f"{OCTETS};q=0.5, */*",
        f"{OCTETS};q=0.5, application/*;q=0.6",
        f"{OCTETS}-extended",
        ";;;,,,=;q=1",
        "," * 5000,
        "json",
    ],
)
def test_json_is_what_everyone_gets_who_does_not_ask_for_octets(accept):
    assert negotiate(accept) == Json()


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (OCTETS, FP32),
        (OCTETS.upper(), FP32),
        (f" {OCTETS} ", FP32),
        (f"{OCTETS};dtype=fp32", FP32),
        (f"{OCTETS}; dtype=fp16", Octets(VectorFormat.FP16)),
        (f'{OCTETS};dtype="bf16"', Octets(VectorFormat.BF16)),
        (f"{OCTETS}; DType = BF16 ; q=0.3", Octets(VectorFormat.BF16)),
        (f"{OCTETS}, application/json", FP32),
        (f"{OCTETS}, */*", FP32),
        (f"*/*, {OCTETS}", FP32),
        (f"application/json;q=0.5, {OCTETS};q=0.6", FP32),
        (f"application/json;q=0, */*, {OCTETS};q=0.5", FP32),
        (f"{OCTETS};dtype=fp16;q=0.5, {OCTETS};dtype=bf16", Octets(VectorFormat.BF16)),
        (f"{OCTETS};dtype=fp16, {OCTETS};dtype=bf16", Octets(VectorFormat.FP16)),
        (f"{OCTETS};charset=utf-8", FP32),
    ],
)
def test_octets_come_to_those_who_name_them(accept, expected):
    assert negotiate(accept) == expected


@pytest.mark.parametrize("dtype", ["fp8", "float32", "", "fp16 fp32"])
def test_a_dtype_that_does_not_exist_is_refused_with_those_that_do(dtype):
    with pytest.raises(HttpError) as caught:
        negotiate(f"{OCTETS};dtype={dtype}")
    assert caught.value.status == 406
    for name in ("fp32", "fp16", "bf16"):
        assert name in caught.value.detail


def test_a_dtype_is_not_looked_at_where_json_is_wanted_more():
    assert negotiate(f"application/json, {OCTETS};dtype=fp8;q=0.5") == Json()
