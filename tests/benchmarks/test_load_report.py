import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer

from benchmarks.card import Card
from benchmarks.load.client import Outcome
from benchmarks.load.connection import Answer, Failure
from benchmarks.load.cpu import CpuSeconds, cpu_seconds
from benchmarks.load.report import (
    DEFINITIONS,
    Result,
    Row,
    format_table,
    latency_of,
    make_row,
    summarise,
    to_json,
)
from benchmarks.load.requests import KINDS, Dialect, Inputs, body, vectors
from benchmarks.load.texts import TextMaker, page_pngs
from tests.paths import GOLDEN_CHECKPOINT


def test_percentiles_are_values_that_were_measured() -> None:
    latency = latency_of([float(value) for value in range(1, 101)])
    assert latency is not None
    assert (latency.p50_s, latency.p95_s, latency.p99_s, latency.max_s) == (50, 95, 99, 100)
    one = latency_of([0.5])
    assert one is not None
    assert (one.p50_s, one.p99_s, one.max_s) == (0.5, 0.5, 0.5)
    assert latency_of([]) is None


def outcome(latency_s: float, status: int | Failure = 200) -> Outcome:
    return Outcome(10.0, 10.0 + latency_s / 2, 10.0 + latency_s, Answer(status))


def row(contender: str, seconds: float, *, round_number: int = 1) -> Row:
    return make_row(
        [outcome(seconds), outcome(2 * seconds), outcome(1e-6, 503), outcome(9.0, Failure.CLOSED)],
        contender=contender,
        kind="text-8",
        mode="open",
        round_number=round_number,
        rate_per_s=3.0,
        duration_s=2.0,
        items_per_request=8,
        tokens_per_request=512,
        cpu=CpuSeconds(api=0.016, core=0.016, model=0.128),
        client_cpu_s=0.1,
    )


def test_a_row_counts_only_answers_with_200() -> None:
    made = row("vllm", 0.25)
    assert made.answers == {"200": 2, "503": 1, "closed": 1}
    assert (made.requests_per_s, made.items_per_s, made.tokens_per_s) == (1.0, 8.0, 512.0)
    assert made.latency is not None
    assert made.latency.max_s == pytest.approx(0.5)


def test_a_summary_is_the_median_of_the_rounds_and_its_processor_time_is_per_item() -> None:
    rows = [row("vllm", seconds, round_number=n) for n, seconds in enumerate([0.1, 0.4, 0.2])]
    (made,) = summarise(rows, {"text-8": 4.0})
    assert made.rounds == 3
    assert made.errors == {"503": 3, "closed": 3}
    assert made.latency is not None
    assert made.latency.p50_s == pytest.approx(0.2)
    assert made.latency.max_s == pytest.approx(0.8)
    assert made.cpu_ms == pytest.approx(10.0)
    assert made.cpu_api_ms == pytest.approx(1.0)
    assert made.cpu_over_offline_ms == pytest.approx(6.0)


def test_the_result_is_one_line_of_json_and_the_table_has_a_line_for_each_server() -> None:
    rows = [row("vllm", 0.2), row("polyvec", 0.1)]
    summaries = summarise(rows, {})
    card = Card("cpu", 2, 1, None, {"python": "3.11"}, "2026-11-23")
    line = to_json(Result(card, "mini", {}, DEFINITIONS, {}, {}, {}, summaries, rows))
    assert "\n" not in line
    document = json.loads(line)
    assert document["rows"][0]["latency"]["p99_s"] == pytest.approx(0.4)
    assert document["rows"][1]["cpu"] == {"api": 0.016, "core": 0.016, "model": 0.128}
    assert {"contender", "kind", "mode", "cpu_ms"} <= set(document["summaries"][0])
    table = format_table(summaries, "vllm").splitlines()
    assert len(table) == 4
    assert len({text.count("|") for text in table}) == 1


# Processor time


def test_processor_time_of_children_that_ended_is_counted() -> None:
    child = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        spent = cpu_seconds(process.pid)
        process.stdin.close()
    assert spent.api >= 0.2
    assert spent.model == 0.0


def test_processes_with_the_engines_name_are_the_model() -> None:
    child = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        ["VLLM::EngineCore_DP0", "-c", child],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        spent = cpu_seconds(process.pid)
        process.stdin.write(b"\n")
        process.stdin.close()
    assert spent.model >= 0.2
    assert spent.api == 0.0


# Requests


def test_texts_have_exactly_as_many_tokens_as_asked_for_and_all_differ() -> None:
    tokenizer = Tokenizer.from_file(str(GOLDEN_CHECKPOINT / "tokenizer.json"))
    maker = TextMaker(GOLDEN_CHECKPOINT, seed=1)
    for num_tokens in (8, 64):
        made = maker.texts(50, num_tokens)
        assert len(set(made)) == 50
        encoded = tokenizer.encode_batch([f"Query: {text}" for text in made])
        assert {len(item.ids) for item in encoded} == {num_tokens}


def test_pages_have_the_size_that_the_checkpoint_computes() -> None:
    import io

    (page,) = page_pngs(GOLDEN_CHECKPOINT, 1)
    with Image.open(io.BytesIO(page)) as image:
        assert image.size == (672, 868)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_server_is_sent_the_same_inputs(kind: str) -> None:
    items, again = (
        Inputs(GOLDEN_CHECKPOINT, seed=2, num_pages=1).draw(KINDS[kind], 1)[0] for _ in range(2)
    )
    assert items == again
    assert len(items) == KINDS[kind].num_items
    for dialect in (Dialect.POLYVEC, Dialect.VLLM_TOKENS):
        made = body(dialect, KINDS[kind], items)
        assert all(item in made.data.decode("ascii") for item in items)


@pytest.mark.parametrize(
    ("dialect", "item"),
    [
        (Dialect.POLYVEC, {"embedding": [1.0, 0.5]}),
        (Dialect.POLYVEC, {"embedding": "AACAPwAAAD8="}),
        (Dialect.VLLM_EMBED, {"embedding": [1.0, 0.5]}),
        (Dialect.VLLM_TOKENS, {"data": "AACAPwAAAD8="}),
    ],
)
def test_vectors_are_read_in_both_encodings(dialect: Dialect, item: dict[str, object]) -> None:
    answer = json.dumps({"data": [item], "usage": {"prompt_tokens": 5}}).encode()
    (vector,), tokens = vectors(dialect, KINDS["text-1"], answer)
    assert vector.tolist() == [1.0, 0.5]
    assert tokens == 5


def test_the_template_of_images_is_the_published_one() -> None:
    import jinja2

    path = Path(__file__).parents[2] / "benchmarks" / "load" / "image.jinja"
    content = [{"type": "image_url"}, {"type": "text", "text": "Describe the image."}]
    text = jinja2.Template(path.read_text(encoding="utf-8")).render(
        messages=[{"role": "user", "content": content}]
    )
    expected = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
    assert text == expected
