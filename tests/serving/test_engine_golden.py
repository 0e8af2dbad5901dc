"""The whole path, merge command to vectors, in real vLLM against the original code's outputs."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from serving.engine.protocol import Pooled, Want
from serving.pipeline import Request
from tests.conftest import Golden, GoldenEmbedder

pytestmark = pytest.mark.engine

TASKS = ["retrieval", "text-matching", "code"]
BOTH = Want(single=True, multi=True)


def embed(
    golden_embedder: GoldenEmbedder, inputs: Sequence[object], task: str, request: Request
) -> list[Pooled]:
    outcomes = asyncio.run(golden_embedder.embedder.aembed(inputs, task, request))
    assert all(isinstance(outcome, Pooled) for outcome in outcomes), outcomes
    return outcomes


def assert_golden(
    golden_embedder: GoldenEmbedder, golden: Golden, keys: Sequence[str], pooled: Sequence[Pooled]
) -> None:
    assert len(keys) == len(pooled) > 0
    for key, item in zip(keys, pooled, strict=True):
        assert list(item.token_ids) == golden.arrays[f"{key}/ids"].tolist(), key
        assert item.single is not None
        assert item.multi is not None
        single, multi = golden.arrays[f"{key}/single"], golden.arrays[f"{key}/multi"]
        assert item.multi.shape == multi.shape
        cosine = float(item.single.numpy().astype(np.float64) @ single)
        token_cosines = (item.multi.numpy().astype(np.float64) * multi).sum(axis=1)
        assert 1 - cosine <= golden_embedder.single_bound, key
        assert 1 - token_cosines.min() <= golden_embedder.token_bound, key


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("prompt_name", ["query", "passage"])
def test_texts_reproduce_the_original_code(
    golden_embedder: GoldenEmbedder, golden: Golden, task: str, prompt_name: str
) -> None:
    pooled = embed(golden_embedder, golden.texts, task, Request(BOTH, prompt_name=prompt_name))
    keys = [f"{task}/{prompt_name}/text_{index}" for index in range(len(golden.texts))]
    assert_golden(golden_embedder, golden, keys, pooled)


@pytest.mark.parametrize("task", TASKS)
def test_a_text_keeps_its_first_tokens(
    golden_embedder: GoldenEmbedder, golden: Golden, task: str
) -> None:
    pooled = embed(golden_embedder, [golden.texts[9]], task, Request(BOTH, max_length=20))
    assert_golden(golden_embedder, golden, [f"{task}/query/text_9_max_length_20"], pooled)


@pytest.mark.parametrize("task", TASKS)
def test_images_reproduce_the_original_code(
    golden_embedder: GoldenEmbedder, golden: Golden, task: str
) -> None:
    pooled = embed(golden_embedder, golden.images, task, Request(BOTH))
    keys = [f"{task}/image_{index}" for index in range(len(golden.images))]
    assert_golden(golden_embedder, golden, keys, pooled)


@pytest.mark.parametrize("task", TASKS)
def test_max_pixels_belongs_to_the_request(
    golden_embedder: GoldenEmbedder, golden: Golden, task: str
) -> None:
    async def interleaved() -> list[list[Pooled]]:
        small = Request(BOTH, max_pixels=200_000)
        return await asyncio.gather(
            golden_embedder.embedder.aembed([golden.images[3]], task, small),
            golden_embedder.embedder.aembed([golden.images[3]], task, Request(BOTH)),
            golden_embedder.embedder.aembed([golden.images[3]], task, small),
        )

    first, usual, second = asyncio.run(interleaved())
    bounded = f"{task}/image_3_max_pixels_200000"
    assert_golden(golden_embedder, golden, [bounded, bounded], [*first, *second])
    assert_golden(golden_embedder, golden, [f"{task}/image_3"], usual)


def test_the_model_card_calls_give_the_same_vectors(
    golden_embedder: GoldenEmbedder, golden: Golden
) -> None:
    embedder = golden_embedder.embedder
    texts = embedder.encode_text(golden.texts, task="code", prompt_name="passage")
    images = embedder.encode_image(golden.images, task="code", return_numpy=True)
    assert len(texts) == len(golden.texts)
    for index, vector in enumerate(texts):
        expected = golden.arrays[f"code/passage/text_{index}/single"]
        assert 1 - float(vector.numpy() @ expected) <= golden_embedder.single_bound
    for index, vector in enumerate(images):
        expected = golden.arrays[f"code/image_{index}/single"]
        assert 1 - float(vector @ expected) <= golden_embedder.single_bound


def test_a_mixed_list_keeps_its_order_and_a_bad_input_fails_alone(
    golden_embedder: GoldenEmbedder, golden: Golden
) -> None:
    mixed = [golden.texts[0], golden.images[4], "", b"no image", golden.texts[1], golden.images[0]]
    outcomes = asyncio.run(golden_embedder.embedder.aembed(mixed, "retrieval", Request(BOTH)))
    assert "not an image" in str(outcomes[3])
    good = [outcomes[at] for at in (0, 1, 4, 5)]
    keys = ["query/text_0", "image_4", "query/text_1", "image_0"]
    assert_golden(golden_embedder, golden, [f"retrieval/{key}" for key in keys], good)


def test_special_tokens_in_user_text_are_plain_text(golden_embedder: GoldenEmbedder) -> None:
    ids = golden_embedder.embedder.manifest("retrieval").special_token_ids
    pooled = embed(
        golden_embedder,
        ["<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>"],
        "retrieval",
        Request(BOTH),
    )
    for item in pooled:
        assert not set(item.token_ids) & {ids.vision_start, ids.vision_end, ids.image_pad}
        assert len(item.token_ids) > 8


def test_a_text_longer_than_one_engine_step_is_pooled_whole(
    golden_embedder: GoldenEmbedder,
) -> None:
    # Longer than max_batch_tokens: the engine computes it in several steps.
    words = "the quick brown fox jumps over the lazy dog " * 400
    (whole,) = embed(golden_embedder, [words], "retrieval", Request(BOTH))
    assert len(whole.token_ids) > 8192
    assert whole.multi is not None
    assert whole.multi.shape[0] == len(whole.token_ids)
    (head,) = embed(golden_embedder, [words], "retrieval", Request(BOTH, max_length=4000))
    assert head.multi is not None
    # Attention is causal: the head's tokens do not see what was cut.
    cosines = (whole.multi[:4000] * head.multi).sum(dim=1)
    assert 1 - float(cosines.min()) <= golden_embedder.token_bound


def test_a_text_beyond_the_model_is_cut_as_the_original_does(
    golden_embedder: GoldenEmbedder,
) -> None:
    (pooled,) = embed(golden_embedder, ["word " * 100_000], "retrieval", Request(BOTH))
    assert len(pooled.token_ids) == 32768
