"""Vectors pooled in vLLM's worker against the same prompts pooled outside an unmodified vLLM.

Both engines compute 64 tokens a step, fewer than an image has, so prompts are cut into chunks. The one
that pools inside has prefix caching switched on, against all advice. The checkpoint has a language head.
"""

import asyncio
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pooling import Span
from serving import EngineSettings, InputError
from serving.engine import start
from serving.engine.protocol import Outcome, Pooled, Prompt, TextPrompt, Want
from serving.engine.start import start_engine
from serving.engine.vllm_engine import VllmEngine
from serving.inputs import PageImage, Text
from serving.prompts import Prompter
from tests.conftest import Golden

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

SETTINGS = EngineSettings(max_batch_tokens=64, max_model_tokens=2048, cpu_cache_bytes=128 << 20)
WANTS = {
    "single": Want(single=True),
    "multi": Want(multi=True),
    "both": Want(single=True, multi=True),
    "cut": Want(single=True, dim=16),
    "raw": Want(single=True, multi=True, normalized=False),
    "raw-cut": Want(single=True, normalized=False, dim=16),
}


class Pair:
    """Two engines on one checkpoint, and a loop that outlives a test."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.runner = asyncio.Runner()
        self.prompter = Prompter.load(directory)
        self.outside = self.start(directory, pooling="external")
        arguments = start._engine_args

        def with_prefix_caching(*given: Any, **options: Any) -> Any:
            made = arguments(*given, **options)
            made.enable_prefix_caching = True
            return made

        with patch.context() as patched:
            patched.setattr(start, "_engine_args", with_prefix_caching)
            self.inside = self.start(directory, multi_vector_dtype="float32")

    def start(self, directory: Path, **changes: Any) -> VllmEngine:
        settings = EngineSettings(**(SETTINGS.model_dump() | changes))
        return self.runner.run(start_engine(directory, settings))

    def one_by_one(self, engine: VllmEngine, prompts: Sequence[Prompt], want: Want) -> list[Pooled]:
        """Alone in its steps, a prompt's hidden states are the same bits in both engines."""

        async def embed() -> list[Outcome]:
            return [(await engine.embed([prompt], want))[0] for prompt in prompts]

        return all_pooled(self.runner.run(embed()))

    def close(self) -> None:
        for engine in (self.inside, self.outside):
            self.runner.run(engine.close())
        self.runner.close()


def with_language_head(source: Path, copy: Path) -> Path:
    """The checkpoint as it would be if its language head were not the embedding."""
    shutil.copytree(source, copy)
    config = json.loads((copy / "config.json").read_text())
    for section in (config, config["text_config"]):
        section["tie_word_embeddings"] = False
    (copy / "config.json").write_text(json.dumps(config))
    save_file({"lm_head.weight": torch.zeros(1024, 64)}, copy / "head.safetensors")
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    index["weight_map"]["lm_head.weight"] = "head.safetensors"
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    return copy


@pytest.fixture(scope="module")
def pair(merged_float32: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    copy = tmp_path_factory.mktemp("headed") / "retrieval"
    with pytest.MonkeyPatch.context() as patch:
        # Lets a test send a function to the engine's process.
        patch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
        made = Pair(with_language_head(merged_float32 / "retrieval", copy), patch)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module")
def prompts(pair: Pair, golden: Golden) -> list[Prompt]:
    long = "the quick brown fox jumps over the lazy dog " * 30
    texts = pair.prompter.text_prompts(
        [Text(text) for text in [*golden.texts, long]], prompt_name=None, max_length=1000
    )
    images = [
        pair.prompter.image_prompt(PageImage(path), max_pixels=200_000) for path in golden.images
    ]
    ids = texts[-1].token_ids
    chunks = TextPrompt(ids, (Span(0, 5), Span(5, 130), Span(130, len(ids))))
    return [*texts, *images, chunks]


def all_pooled(outcomes: Sequence[Outcome]) -> list[Pooled]:
    assert all(isinstance(outcome, Pooled) for outcome in outcomes), outcomes
    return list(outcomes)  # type: ignore[arg-type]


def tensors(pooled: Pooled) -> list[torch.Tensor]:
    return [vectors for vectors in (pooled.single, pooled.multi) if vectors is not None]


@pytest.mark.parametrize("want", WANTS.values(), ids=WANTS)
def test_the_worker_gives_the_same_bits(pair: Pair, prompts: list[Prompt], want: Want) -> None:
    inside = pair.one_by_one(pair.inside, prompts, want)
    outside = pair.one_by_one(pair.outside, prompts, want)
    assert any(len(pooled.token_ids) > SETTINGS.max_batch_tokens for pooled in inside)
    for got, expected in zip(inside, outside, strict=True):
        assert got.token_ids == expected.token_ids
        assert len(tensors(got)) == want.single + want.multi
        for vectors, others in zip(tensors(got), tensors(expected), strict=True):
            assert vectors.dtype == torch.float32
            assert torch.equal(vectors, others)


def test_a_batch_that_mixes_everything_gives_each_its_own(
    pair: Pair, prompts: list[Prompt]
) -> None:
    async def mixed() -> list[list[Outcome]]:
        return await asyncio.gather(*(pair.inside.embed(prompts, want) for want in WANTS.values()))

    for outcomes, want in zip(pair.runner.run(mixed()), WANTS.values(), strict=True):
        expected = pair.one_by_one(pair.outside, prompts, want)
        for got, alone in zip(all_pooled(outcomes), expected, strict=True):
            for vectors, others in zip(tensors(got), tensors(alone), strict=True):
                # Batches are summed in another order; a wrong row or span differs by far more.
                torch.testing.assert_close(vectors, others, rtol=1e-4, atol=1e-5)


def test_a_cached_prefix_changes_no_vector(pair: Pair) -> None:
    shared = tuple(5 + index % 900 for index in range(640))
    family = [TextPrompt((*shared, *range(7, 7 + tail))) for tail in (1, 40, 200)]
    want = Want(single=True, multi=True)
    first = pair.one_by_one(pair.inside, family, want)
    again = pair.one_by_one(pair.inside, family, want)
    outside = pair.one_by_one(pair.outside, family, want)
    for results in (first, again):
        for got, expected in zip(results, outside, strict=True):
            for vectors, others in zip(tensors(got), tensors(expected), strict=True):
                assert torch.equal(vectors, others)


def plain(pair: Pair, prompt: TextPrompt, **params: Any) -> torch.Tensor:
    """What a client gets that knows vLLM alone."""
    from vllm import PoolingParams
    from vllm.inputs import tokens_input

    return pair.runner.run(
        pair.inside._exchange.one(tokens_input(list(prompt.token_ids)), PoolingParams(**params))
    )


def test_a_client_of_vllm_gets_the_vectors_of_its_task(pair: Pair) -> None:
    prompt = TextPrompt(tuple(range(9, 50)))
    want = Want(single=True, multi=True)
    (expected,) = pair.one_by_one(pair.outside, [prompt], want)
    assert torch.equal(plain(pair, prompt, task="embed"), expected.single)
    assert torch.equal(plain(pair, prompt, task="token_embed"), expected.multi)
    (cut,) = pair.one_by_one(pair.outside, [prompt], Want(single=True, dim=16))
    assert torch.equal(plain(pair, prompt, task="embed", dimensions=16), cut.single)


def test_a_client_of_vllm_that_hits_the_cache_gets_no_wrong_vector(pair: Pair) -> None:
    prompt = TextPrompt(tuple(11 + index % 700 for index in range(500)))
    whole = plain(pair, prompt, task="embed", skip_reading_prefix_cache=True)
    assert bool(torch.isfinite(whole).all())
    hit = plain(pair, prompt, task="embed", skip_reading_prefix_cache=False)
    assert bool(torch.isnan(hit).all())
    assert hit.shape == whole.shape


def test_texts_that_the_model_cannot_read_fail_alone(pair: Pair) -> None:
    size = pair.inside._llm.model_config.get_vocab_size()
    good = [TextPrompt(tuple(range(9, 9 + length))) for length in (3, 40, 3, 100)]
    bad = {
        TextPrompt((5, size)): f"has token {size}; this model knows 0 to {size - 1}",
        TextPrompt((-1, 5)): "has token -1",
        TextPrompt(()): "no tokens",
        TextPrompt((5,) * 2049): "2049 tokens; this engine was loaded for at most 2048",
    }
    prompts = [prompt for pair_ in zip(bad, good, strict=True) for prompt in pair_]
    for engine in (pair.inside, pair.outside):
        expected = pair.one_by_one(engine, good, WANTS["both"])
        outcomes = pair.runner.run(engine.embed(prompts, WANTS["both"]))
        for outcome, message in zip(outcomes[::2], bad.values(), strict=True):
            assert isinstance(outcome, InputError)
            assert message in str(outcome)
        for got, alone in zip(all_pooled(outcomes[1::2]), expected, strict=True):
            for vectors, others in zip(tensors(got), tensors(alone), strict=True):
                torch.testing.assert_close(vectors, others, rtol=1e-4, atol=1e-5)


def test_more_texts_than_one_message_holds_come_back_in_order(pair: Pair) -> None:
    texts = [TextPrompt(tuple(range(9 + index, 9 + index + 1 + index % 7))) for index in range(150)]
    want = Want(single=True)
    together = all_pooled(pair.runner.run(pair.inside.embed(texts, want)))
    alone = pair.one_by_one(pair.outside, texts, want)
    for got, expected in zip(together, alone, strict=True):
        assert got.token_ids == expected.token_ids
        assert got.single is not None
        assert expected.single is not None
        torch.testing.assert_close(got.single, expected.single, rtol=1e-4, atol=1e-5)


def test_callers_of_one_moment_share_messages_and_each_gets_its_own(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def texts_of(caller: int) -> list[Prompt]:
        return [
            TextPrompt(tuple(range(9 + caller, 12 + caller + 20 * place)))
            for place in range(1 + caller % 3)
        ]

    sent: list[int] = []
    send = pair.inside._exchange._core.add_request_async

    async def count(request: Any) -> None:
        sent.append(len(request.prompt_token_ids))
        await send(request)

    monkeypatch.setattr(pair.inside._exchange._core, "add_request_async", count)
    want = Want(single=True)

    async def all_at_once() -> dict[int, list[Outcome]]:
        calls = {
            caller: asyncio.create_task(pair.inside.embed(texts_of(caller), want))
            for caller in range(60)
        }
        await asyncio.sleep(0)
        for caller in range(0, 60, 5):
            calls.pop(caller).cancel()
        await asyncio.sleep(0.01)
        for caller in range(1, 60, 5):
            calls.pop(caller).cancel()
        return {caller: await call for caller, call in calls.items()}

    came = pair.runner.run(all_at_once())
    assert len(came) == 36
    assert len(sent) <= 4
    for caller, outcomes in came.items():
        alone = pair.one_by_one(pair.outside, texts_of(caller), want)
        for got, expected in zip(all_pooled(outcomes), alone, strict=True):
            assert got.token_ids == expected.token_ids
            for vectors, others in zip(tensors(got), tensors(expected), strict=True):
                torch.testing.assert_close(vectors, others, rtol=1e-4, atol=1e-5)
    assert pair.inside._exchange.num_waiting == 0


def parameter_names(worker: Any) -> list[str]:
    return [name for name, _ in worker.get_model().named_parameters()]


def test_the_language_head_is_not_loaded(pair: Pair) -> None:
    async def names() -> list[list[str]]:
        return await pair.inside._llm.collective_rpc(parameter_names)

    (of_model,) = pair.runner.run(names())
    assert "language_model.model.embed_tokens.weight" in of_model
    assert not any("lm_head" in name for name in of_model)
