import itertools
from pathlib import Path

import msgspec
import pytest
import torch

from pooling import (
    EmptySpanError,
    NonFiniteError,
    Projector,
    Span,
    mean_vector,
    multi_vector,
    project,
    single_vector,
    truncate,
)
from serving.engine.fake import fake_token_embeddings
from serving.engine.protocol import ImagePrompt, TextPrompt, Want
from serving.engine.recipe import Recipe, Reduced
from serving.errors import NoVectorsError
from serving.inputs import PageImage
from serving.manifest import read_manifest

IDS = tuple(range(3, 23))
ROWS = fake_token_embeddings(IDS, 64)
PROJECTOR = Projector(weight=torch.linspace(-1, 1, 8 * 64).view(8, 64), bias=torch.ones(8))
SPANS = (Span(0, 5), Span(5, 6), Span(2, 20))
RECIPES = [
    Recipe(spans, multi, normalized, dim)
    for spans, multi, normalized, dim in itertools.product(
        [(), SPANS[:1], SPANS], [None, "float16", "float32"], [True, False], [None, 7]
    )
    if spans or multi
]


def name_of(recipe: Recipe) -> str:
    kind = "unit" if recipe.normalized else "raw"
    return f"{len(recipe.spans)}-{recipe.multi}-{kind}-{recipe.dim}"


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_what_leaves_the_worker_is_what_pooling_gives(recipe: Recipe) -> None:
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(recipe.to_numbers()))
    arrived = Recipe.from_numbers(sent, normalized=recipe.normalized, dim=recipe.dim)
    assert arrived == recipe

    packed = arrived.pack(arrived.reduce(ROWS, PROJECTOR))
    got = recipe.unpack(packed, len(IDS), 8)

    if recipe.spans:
        vector = single_vector if recipe.normalized else mean_vector
        expected = torch.stack([vector(ROWS, span) for span in recipe.spans])
        if recipe.dim is not None:
            expected = truncate(expected, 7) if recipe.normalized else expected[:, :7]
        assert got.single is not None
        assert torch.equal(got.single, expected)
    else:
        assert got.single is None
    if recipe.multi is not None:
        expected = (multi_vector if recipe.normalized else project)(ROWS, PROJECTOR)
        assert got.multi is not None
        assert got.multi.dtype == torch.float32
        assert torch.equal(got.multi, expected.to(getattr(torch, recipe.multi)).float())
    else:
        assert got.multi is None


def test_only_the_bytes_of_the_vectors_leave_the_worker() -> None:
    rows = torch.randn(744, 2048)
    projector = Projector(weight=torch.randn(128, 2048), bias=None)

    def num_bytes(recipe: Recipe) -> int:
        return recipe.pack(recipe.reduce(rows, projector)).nbytes

    whole = (Span(0, 744),)
    assert num_bytes(Recipe(whole)) == 2048 * 4
    assert num_bytes(Recipe(multi="float16")) == 744 * 128 * 2
    assert num_bytes(Recipe(whole, "float16")) == 2048 * 4 + 744 * 128 * 2
    assert num_bytes(Recipe(whole, dim=128)) == 128 * 4


def test_a_recipe_says_what_is_pooled_for_a_prompt(merged_float32: Path) -> None:
    manifest = read_manifest(merged_float32 / "code")
    ids = manifest.special_token_ids
    text, chunked = TextPrompt(IDS), TextPrompt(IDS, SPANS)
    single, both = Want(single=True), Want(single=True, multi=True)
    assert Recipe.of(text, IDS, single, manifest) == Recipe((Span(0, 20),))
    assert Recipe.of(chunked, IDS, single, manifest) == Recipe(SPANS)
    assert Recipe.of(text, IDS, both, manifest, "float16") == Recipe((Span(0, 20),), "float16")

    expanded = (1, 2, ids.vision_start, *[ids.image_pad] * 4, ids.vision_end, 5)
    image = ImagePrompt((1,), PageImage(b"").source, 1, 2)
    assert Recipe.of(image, expanded, single, manifest) == Recipe((Span(2, 8),))


def test_projections_as_they_are_may_exceed_float16(merged_float32: Path) -> None:
    manifest = read_manifest(merged_float32 / "code")
    want = Want(multi=True, normalized=False)
    recipe = Recipe.of(TextPrompt(IDS), IDS, want, manifest, "float16")
    assert recipe.multi == "float32"
    large = recipe.pack(recipe.reduce(ROWS * 1e6, PROJECTOR))
    assert float(large.max()) > 65504


def test_a_prompt_that_the_worker_could_not_pool_is_an_error() -> None:
    with pytest.raises(NoVectorsError, match="20 tokens could not be pooled"):
        Recipe(SPANS).unpack(torch.empty(0), 20, 8)


def test_single_vectors_of_no_span_are_refused_as_pooling_does() -> None:
    # A `RuntimeError` would end the worker.
    with pytest.raises(EmptySpanError, match="at least one span"):
        Recipe(()).means(ROWS)


def test_nothing_that_is_not_finite_is_handed_on() -> None:
    bad = Reduced(torch.tensor([[1.0, torch.nan]]), None)
    with pytest.raises(NonFiniteError):
        bad.of(TextPrompt(IDS), IDS)
    bad = Reduced(None, torch.tensor([[1.0, torch.inf]]))
    with pytest.raises(NonFiniteError):
        bad.of(TextPrompt(IDS), IDS)
