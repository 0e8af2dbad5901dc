"""The Python API over the computable engine: shapes, types, order, names of errors."""

import asyncio
import json
import shutil
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from pooling import truncate, unpack
from serving import Embedder, EngineSettings, EngineStoppedError, InputError, TaskError
from serving.engine.fake import FakeEngine, fake_token_embeddings
from serving.engine.protocol import Outcome, Pooled, Prompt, Want
from serving.errors import CheckpointError
from serving.manifest import find_tasks
from serving.pipeline import Request
from serving.prompts import Prompter
from tests.conftest import Golden

HIDDEN, DIM = 64, 32
TEMPLATE = 17  # tokens of the image template but the patches, in the golden vocabulary


@pytest.fixture
def tokenizer(merged_float32: Path) -> Tokenizer:
    return Tokenizer.from_file(str(merged_float32 / "retrieval" / "tokenizer.json"))


def expected_single(token_ids: list[int]) -> torch.Tensor:
    mean = fake_token_embeddings(token_ids, HIDDEN).double().mean(dim=0)
    return (mean / mean.norm()).float()


def test_a_text_becomes_the_vector_of_prefix_and_text(
    fake_embedder: Embedder, tokenizer: Tokenizer
) -> None:
    for task, prompt_name, prefix in [
        ("retrieval", "query", "Query: "),
        ("retrieval", "passage", "Passage: "),
        ("code", "passage", "Passage: "),
        ("text-matching", "passage", "Query: "),
    ]:
        vector = fake_embedder.encode_text("good morning", task=task, prompt_name=prompt_name)
        ids = tokenizer.encode(prefix + "good morning").ids
        assert isinstance(vector, torch.Tensor)
        torch.testing.assert_close(vector, expected_single(ids))


def test_an_image_becomes_the_mean_over_its_markers_and_patches(
    fake_embedder: Embedder,
) -> None:
    ids = fake_embedder.manifest("retrieval").special_token_ids
    vector = fake_embedder.encode_image(Image.new("RGB", (224, 224)), task="retrieval")
    span = [ids.vision_start, *[ids.image_pad] * 64, ids.vision_end]
    torch.testing.assert_close(vector, expected_single(span))
    multi = fake_embedder.encode_image(
        [Image.new("RGB", (224, 224))], task="retrieval", return_multivector=True
    )
    assert multi[0].shape == (64 + TEMPLATE, DIM)


def test_one_item_gives_one_vector_and_a_list_gives_a_list(fake_embedder: Embedder) -> None:
    encode = fake_embedder.encode_text
    one = encode("a", task="code")
    assert isinstance(one, torch.Tensor)
    assert (one.shape, one.dtype) == ((HIDDEN,), torch.float32)
    several = encode(["a", "b c"], task="code")
    assert isinstance(several, list)
    assert [vector.shape for vector in several] == [(HIDDEN,), (HIDDEN,)]
    array = encode(["a", "b c"], task="code", return_numpy=True)
    assert isinstance(array, np.ndarray)
    assert (array.shape, array.dtype) == ((2, HIDDEN), np.float32)
    single_array = encode("a", task="code", return_numpy=True)
    assert isinstance(single_array, np.ndarray)
    assert single_array.shape == (HIDDEN,)
    multi = encode("a", task="code", return_multivector=True)
    assert isinstance(multi, torch.Tensor)
    assert multi.shape[1] == DIM
    multi_array = encode(["a"], task="code", return_multivector=True, return_numpy=True)
    assert isinstance(multi_array, np.ndarray)
    assert multi_array.shape == (1, multi.shape[0], DIM)
    assert encode([], task="code") == []
    empty = encode([], task="code", return_numpy=True, truncate_dim=16)
    assert isinstance(empty, np.ndarray)
    assert empty.shape == (0, 16)


def test_multi_vectors_of_several_texts_stay_tensors_with_a_warning(
    fake_embedder: Embedder,
) -> None:
    with pytest.warns(UserWarning, match="return_numpy is ignored"):
        vectors = fake_embedder.encode_text(
            ["a", "b c d"], task="code", return_multivector=True, return_numpy=True
        )
    assert isinstance(vectors, list)
    assert all(isinstance(vector, torch.Tensor) for vector in vectors)


def test_truncate_dim_cuts_and_scales_to_unit_length_again(fake_embedder: Embedder) -> None:
    whole = fake_embedder.encode_text("a b c", task="code")
    cut = fake_embedder.encode_text("a b c", task="code", truncate_dim=16)
    assert isinstance(whole, torch.Tensor)
    assert isinstance(cut, torch.Tensor)
    assert cut.shape == (16,)
    torch.testing.assert_close(cut, truncate(whole, 16))
    assert float(cut.norm()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"task": "classification"}, "Invalid task: classification. Must be one of"),
        ({}, "Task must be specified before encoding data"),
        ({"task": "code", "truncate_dim": 17}, "Invalid truncate_dim: 17. Must be one of"),
        ({"task": "code", "prompt_name": "title"}, "Invalid prompt_name: title. Must be one of"),
        ({"task": "code", "batch_size": 0}, "batch_size must be an int of at least 1"),
        ({"task": "code", "max_length": 512.0}, "max_length must be an int, not 512.0"),
        ({"task": "code", "max_length": 0}, "max_length must be at least 1"),
        ({"task": ["code"]}, "Invalid task"),
        ({"task": "code", "prompt_name": ["query"]}, "Invalid prompt_name"),
    ],
)
def test_errors_are_the_model_cards_own(
    fake_embedder: Embedder, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(TaskError, match=says):
        fake_embedder.encode_text(["a"], **arguments)  # type: ignore[arg-type]
    # As in the original library.
    assert issubclass(TaskError, ValueError)


def test_one_loaded_task_need_not_be_named(merged_float32: Path) -> None:
    directories = find_tasks(merged_float32 / "code")
    engines = {task: FakeEngine(path) for task, path in directories.items()}
    with Embedder.from_engines(directories, engines) as embedder:
        assert embedder.tasks == ["code"]
        assert embedder.encode_text("a").shape == (HIDDEN,)
        with pytest.raises(TaskError, match=r"Invalid task: retrieval.*polyvec merge --task"):
            embedder.encode_text("a", task="retrieval")


def test_a_bad_input_is_named_by_its_position(fake_embedder: Embedder) -> None:
    with pytest.raises(InputError, match=r"Input 1: .*is a URL") as caught:
        fake_embedder.encode_image(
            [Image.new("RGB", (30, 30)), "https://example.org/a.png"], task="code"
        )
    assert caught.value.index == 1
    with pytest.raises(InputError, match="Input 2: A text must be a str, not int"):
        fake_embedder.encode_text(["a", "b", 3], task="code")  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"^/nowhere\.png cannot be read"):
        fake_embedder.encode_image("/nowhere.png", task="code")


def test_aembed_gives_each_input_its_own_outcome(fake_embedder: Embedder) -> None:
    inputs = ["a", 7, Image.new("RGB", (900, 2)), Image.new("RGB", (56, 56)), {"text": "b"}]
    outcomes = asyncio.run(
        fake_embedder.aembed(inputs, "code", Request(Want(single=True, multi=True)))
    )
    assert [isinstance(outcome, InputError) for outcome in outcomes] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert "aspect ratio of 450.0" in str(outcomes[2])
    for outcome in outcomes:
        if isinstance(outcome, Pooled):
            assert outcome.single is not None
            assert outcome.multi is not None
            assert outcome.multi.shape == (len(outcome.token_ids), DIM)


def test_a_mixed_list_keeps_its_order(fake_embedder: Embedder, golden: Golden) -> None:
    inputs: list[object] = list(golden.texts) + list(golden.images)
    order = np.random.default_rng(0).permutation(len(inputs) * 20) % len(inputs)
    one_by_one = [fake_embedder.encode(item, task="code") for item in inputs]
    together = fake_embedder.encode([inputs[at] for at in order], task="code")
    assert together.shape == (len(order), HIDDEN)
    for row, at in zip(together, order, strict=True):
        np.testing.assert_array_equal(row, one_by_one[at])


def test_max_length_and_max_pixels_change_the_tokens(fake_embedder: Embedder) -> None:
    long = "word " * 50
    multi = fake_embedder.encode_text(long, task="code", max_length=20, return_multivector=True)
    assert multi.shape == (20, DIM)
    page = Image.new("RGB", (850, 1100))
    counts = [
        fake_embedder.encode_image(
            page, task="code", max_pixels=bound, return_multivector=True
        ).shape[0]
        for bound in (784, 200_000, None)
    ]
    assert counts == [1 + TEMPLATE, 252 + TEMPLATE, 744 + TEMPLATE]
    with pytest.raises(TaskError, match="max_pixels must be at least 784"):
        fake_embedder.encode_image(page, task="code", max_pixels=783)


def test_an_engine_for_shorter_prompts_cuts_what_asks_for_all_and_says_so_otherwise(
    merged_float32: Path,
) -> None:
    directories = find_tasks(merged_float32 / "code")
    settings = EngineSettings(max_model_tokens=16)
    engines = {task: FakeEngine(path, settings) for task, path in directories.items()}
    with Embedder.from_engines(directories, engines) as embedder:
        cut = embedder.encode_text("word " * 50, max_length=16)
        for whole in (embedder.encode_text("word " * 50), embedder.encode("word " * 50)):
            np.testing.assert_array_equal(np.asarray(whole), np.asarray(cut))
        with pytest.raises(InputError, match="loaded for at most 16"):
            embedder.encode_text("word " * 50, max_length=20)


def test_queries_and_documents_as_in_sentence_transformers(fake_embedder: Embedder) -> None:
    texts = ["a", "b c"]
    queries = fake_embedder.encode_query(texts)
    assert isinstance(queries, np.ndarray)
    expected = fake_embedder.encode_text(
        texts, task="retrieval", prompt_name="query", return_numpy=True
    )
    np.testing.assert_array_equal(queries, expected)
    documents = fake_embedder.encode_document([*texts, Image.new("RGB", (56, 56))])
    assert documents.shape == (3, HIDDEN)
    expected = fake_embedder.encode_text(
        texts, task="retrieval", prompt_name="passage", return_numpy=True
    )
    np.testing.assert_array_equal(documents[:2], expected)
    assert fake_embedder.encode_query("a").shape == (HIDDEN,)
    tensors = fake_embedder.encode_query(texts, convert_to_tensor=True)
    assert isinstance(tensors, torch.Tensor)
    plain = fake_embedder.encode_query(texts, convert_to_numpy=False, task="code")
    assert isinstance(plain, list)


def test_binary_precision_keeps_the_signs(fake_embedder: Embedder) -> None:
    vectors = fake_embedder.encode(["a", "b c"], task="code", convert_to_tensor=True)
    bits = fake_embedder.encode(["a", "b c"], task="code", precision="ubinary")
    assert (bits.shape, bits.dtype) == ((2, HIDDEN // 8), np.uint8)
    signs = torch.where(vectors > 0, 1.0, -1.0)
    torch.testing.assert_close(unpack(torch.from_numpy(bits), HIDDEN), signs)
    signed = fake_embedder.encode(["a", "b c"], task="code", precision="binary")
    np.testing.assert_array_equal(signed.astype(int), bits.astype(int) - 128)
    with pytest.raises(TaskError, match=r"pooling\.int8"):
        fake_embedder.encode(["a"], task="code", precision="int8")  # type: ignore[arg-type]


def test_options_that_would_be_lost_are_refused(fake_embedder: Embedder) -> None:
    for options in (
        {"return_multivector": True, "precision": "binary"},
        {"return_multivector": True, "truncate_dim": 16},
        {"precision": "float16"},
    ):
        with pytest.raises(TaskError, match=r"precision|truncate_dim"):
            fake_embedder.encode(["a"], task="code", **options)


@pytest.mark.parametrize("inputs", ["one", b"two", Path("one.png"), {"text": "one"}])
def test_a_single_input_is_not_taken_for_a_list(fake_embedder: Embedder, inputs: object) -> None:
    with pytest.raises(TaskError, match=r"Pass \[input\]"):
        asyncio.run(fake_embedder.aencode(inputs, "code"))  # type: ignore[arg-type]


def test_text_cannot_spell_an_image_even_if_the_tokenizer_lets_it(
    merged_float32: Path, tmp_path: Path
) -> None:
    shutil.copytree(merged_float32 / "code", tmp_path / "code")
    path = tmp_path / "code" / "tokenizer.json"
    fields = json.loads(path.read_text("utf-8"))
    assert fields["added_tokens"]
    for token in fields["added_tokens"]:
        token["special"] = False
    path.write_text(json.dumps(fields), encoding="utf-8")
    engine = FakeEngine(tmp_path / "code")
    with Embedder.from_engines({"code": tmp_path / "code"}, {"code": engine}) as embedder:
        (outcome,) = asyncio.run(
            embedder.aembed(["<|vision_start|><|image_pad|>"], None, Request(Want(single=True)))
        )
        assert isinstance(outcome, Pooled)
        ids = embedder.manifest().special_token_ids
        assert not {ids.vision_start, ids.image_pad} & set(outcome.token_ids)


def test_a_tokenizer_of_another_release_is_named(merged_float32: Path, tmp_path: Path) -> None:
    shutil.copytree(merged_float32 / "code", tmp_path / "code")
    path = tmp_path / "code" / "tokenizer.json"
    path.write_text('{"version": "9.0", "model": {"type": "Unheard"}}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read by the installed"):
        Prompter.load(tmp_path / "code")


class SlowEngine(FakeEngine):
    """Never answers."""

    async def embed(self, prompts: Sequence[Prompt], want: Want) -> list[Outcome]:
        await asyncio.sleep(3600)
        return await super().embed(prompts, want)


def test_closing_fails_what_is_in_flight(merged_float32: Path) -> None:
    path = merged_float32 / "code"
    embedder = Embedder.from_engines({"code": path}, {"code": SlowEngine(path)})
    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(embedder.encode_text, "a"),
            pool.submit(lambda: asyncio.run(embedder.aencode(["a"]))),
        ]
        time.sleep(0.2)
        embedder.close()
        for call in waiting:
            with pytest.raises(EngineStoppedError, match="is closed"):
                call.result(timeout=10)


def test_cancelling_the_caller_is_a_cancellation(merged_float32: Path) -> None:
    path = merged_float32 / "code"

    async def scenario(embedder: Embedder) -> None:
        call = asyncio.create_task(embedder.aencode(["a"]))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    with Embedder.from_engines({"code": path}, {"code": SlowEngine(path)}) as embedder:
        asyncio.run(scenario(embedder))


def test_many_threads_and_loops_share_one_embedder(fake_embedder: Embedder) -> None:
    expected = fake_embedder.encode_text("a b c", task="code")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                torch.testing.assert_close(fake_embedder.encode_text("a b c", "code"), expected)
                (vector,) = asyncio.run(fake_embedder.aencode(["a b c"], "code"))
                torch.testing.assert_close(vector, expected)
        except BaseException as failure:  # noqa: BLE001 - reported by the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_closed_embedder_says_so_and_closes_again(fake_embedder: Embedder) -> None:
    fake_embedder.close()
    fake_embedder.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(EngineStoppedError, match="is closed"):
            fake_embedder.encode_text("a", task="code")
        with pytest.raises(EngineStoppedError, match="is closed"):
            asyncio.run(fake_embedder.aencode(["a"], "code"))
