import asyncio
import io
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pooling import Span
from serving.cluster.parcel import PromptParcel, VectorParcel
from serving.engine.fake import FakeEngine
from serving.engine.protocol import ImagePrompt, Outcome, Pooled, Prompt, TextPrompt, Want
from serving.errors import ForeignInputError, InputError, NoVectorsError
from serving.inputs import PageImage, Text
from serving.prompts import Prompter

SINGLE, MULTI, BOTH = Want(single=True), Want(multi=True), Want(single=True, multi=True)

token_ids = st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple)
texts = token_ids.map(TextPrompt)
chunked = st.integers(1, 5).map(
    lambda n: TextPrompt(tuple(range(2 * n)), tuple(Span(2 * i, 2 * i + 2) for i in range(n)))
)
images = st.builds(
    ImagePrompt, token_ids, st.binary(max_size=50), st.integers(1, 10**9), st.integers(1, 10**9)
)


def sent(parcel: object) -> object:
    """As a process on the other side gets it."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(parcel, protocol=5, buffer_callback=buffers.append)
    # What Ray receives is memory that may not be written to.
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


@given(
    prompts=st.lists(texts | chunked | images, max_size=8),
    want=st.builds(
        Want, st.booleans(), st.booleans(), st.booleans(), st.none() | st.integers(1, 64)
    ),
)
def test_prompts_arrive_as_they_left(prompts: list[Prompt], want: Want) -> None:
    parcel = sent(PromptParcel.of(prompts, want, held_tokens=7))
    assert isinstance(parcel, PromptParcel)
    assert parcel.prompts() == prompts
    assert (parcel.want, parcel.held_tokens) == (want, 7)


def test_an_image_travels_as_its_file_and_a_decoded_one_without_loss(tmp_path: Path) -> None:
    picture = Image.effect_noise((9, 7), 80).convert("RGB")
    file = tmp_path / "page.png"
    picture.save(file)
    prompts = [ImagePrompt((1,), source, 2, 3) for source in (file, file.read_bytes(), picture)]
    arrived = PromptParcel.of(prompts, SINGLE, 0).prompts()
    sources = [prompt.source for prompt in arrived if isinstance(prompt, ImagePrompt)]
    assert all(isinstance(source, bytes) for source in sources)
    assert sources[0] == sources[1] == file.read_bytes()
    assert isinstance(sources[2], bytes)
    assert Image.open(io.BytesIO(sources[2])).tobytes() == picture.tobytes()


@pytest.mark.parametrize("want", [SINGLE, MULTI, BOTH, Want(single=True, normalized=False, dim=8)])
def test_vectors_arrive_bit_for_bit(merged_float32: Path, want: Want) -> None:
    directory = merged_float32 / "retrieval"
    prompter = Prompter.load(directory)
    chunks = [Text("One."), Text("Two, longer."), Text("Three.")]
    prompts: list[Prompt] = [
        *prompter.text_prompts([Text("a"), Text("b c d")], prompt_name=None, max_length=None),
        prompter.chunked_prompt(chunks, prompt_name=None),
        prompter.image_prompt(PageImage(Image.new("RGB", (60, 90))), max_pixels=None),
        ImagePrompt(
            prompter.image_prompt(PageImage(b""), max_pixels=None).token_ids, b"no image", 1, 2
        ),
    ]
    left = asyncio.run(FakeEngine(directory).embed(prompts, want))
    parcel = sent(VectorParcel.of(left, replica="r", held_tokens=3))
    assert isinstance(parcel, VectorParcel)
    assert (parcel.replica, parcel.held_tokens) == ("r", 3)
    assert_same(parcel.outcomes(), left)


def test_values_of_half_precision_travel_in_half_the_bytes_and_others_do_not() -> None:
    half = torch.randn(5, 32).half().float()
    full = torch.randn(5, 32)
    for values, num_bytes in ((half, 2), (full, 4)):
        outcome = Pooled((1, 2, 3, 4, 5), None, values)
        parcel = VectorParcel.of([outcome], replica="", held_tokens=0)
        assert parcel.multi is not None
        assert parcel.multi.nbytes == 5 * 32 * num_bytes
        assert_same(parcel.outcomes(), [outcome])


def test_refusals_keep_their_places_and_their_origin() -> None:
    left: list[Outcome] = [
        InputError("The first."),
        Pooled((1,), torch.ones(4), None),
        ForeignInputError("The third.", origin="ValueError"),
        NoVectorsError("The fourth."),
    ]
    arrived = VectorParcel.of(left, replica="", held_tokens=0).outcomes()
    assert_same(arrived, left)
    assert isinstance(arrived[2], ForeignInputError)
    assert arrived[2].origin == "ValueError"


def test_a_batch_of_nothing_but_refusals_arrives() -> None:
    left: list[Outcome] = [InputError("The only.")]
    assert_same(VectorParcel.of(left, replica="", held_tokens=0).outcomes(), left)


def assert_same(arrived: list[Outcome], left: list[Outcome]) -> None:
    assert [type(outcome) for outcome in arrived] == [type(outcome) for outcome in left]
    for one, other in zip(arrived, left, strict=True):
        if isinstance(one, InputError):
            assert isinstance(other, InputError)
            assert one.reason == other.reason
            continue
        assert isinstance(other, Pooled)
        assert one.token_ids == other.token_ids
        for mine, theirs in ((one.single, other.single), (one.multi, other.multi)):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                assert mine.dtype == theirs.dtype
                assert torch.equal(mine, theirs)
