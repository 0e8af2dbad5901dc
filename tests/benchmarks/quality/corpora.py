"""Small datasets whose rankings can be computed, and sources over computable engines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.quality.adapters import Choice
from benchmarks.quality.dataset import write_page_dataset, write_pairs_dataset
from benchmarks.quality.local import LocalSource
from benchmarks.quality.local_task import local_task
from benchmarks.quality.model import Measured
from benchmarks.quality.representation import Precision, Representation, Vectors
from benchmarks.quality.run import Run, run_tasks
from benchmarks.quality.source import Source
from serving import Embedder, EngineSettings
from serving.engine.fake import FakeEngine
from serving.manifest import find_tasks, read_manifest
from tests.http.oracle import PASSAGE, QUERY, Oracle

PIXELS = 602_112
"""The golden checkpoint's own bound."""

PAGES = {
    "wide": ((280, 56), ["a wide page", "total of the invoice"]),
    "tall": ((56, 280), ["a tall page"]),
    "small": ((56, 56), ["the smallest of all"]),
    "square": ((224, 224), ["total of the invoice", "a square"]),
    "nobody asks": ((140, 84), []),
}
"""Pages of different sizes, which is all that a computable engine sees of them, and their queries."""

TEXTS = {
    "d1": "The total is 454.50.",
    "d2": "A beautiful sunset over the beach",
    "d3": "def add(left, right): return left + right",
    "d4": "Monday's agenda: welcome, budget, new office",
    "d5": "sunset",
    "d6": "Sales by quarter, in thousands",
}
QUESTIONS = {
    "q1": ("What is the total?", {"d1": 1}),
    "q2": ("sunset at the sea", {"d2": 2, "d5": 1}),
    "q3": ("a function that adds", {"d3": 1}),
    "q4": ("how much was sold by quarter", {"d6": 1, "d1": 1}),
}
PAIRS = [
    ("a cat sits", "a cat sits", 5.0),
    ("a cat sits", "a dog runs", 1.5),
    ("rain in spring", "rain in the spring", 4.0),
    ("an invoice", "the beach at night", 0.0),
]


TIMES = {"date", "evaluation_time", "evaluation_phases", "kg_co2_emissions"}
"""What differs between two runs of mteb."""


@dataclass(slots=True)
class FakeLoad:
    """Stands in for real engines; remembers what was started."""

    started: list[tuple[Path, tuple[str, ...], EngineSettings]] = field(default_factory=list)

    def __call__(self, path: Path, tasks: Sequence[str], settings: EngineSettings) -> Embedder:
        self.started.append((path, tuple(tasks), settings))
        directories = find_tasks(path, tasks)
        engines = {task: FakeEngine(found, settings) for task, found in directories.items()}
        return Embedder.from_engines(directories, dict(engines))


def fake_source(models: Path, load: FakeLoad | None = None) -> LocalSource:
    return LocalSource.of(models, max_pixels=PIXELS, load=load or FakeLoad())


def measured(
    vectors: Vectors = "single",
    dimensions: int | None = None,
    precision: Precision = "float32",
    choice: Choice | None = None,
) -> Measured:
    return Measured(Representation(vectors, dimensions, precision), choice or Choice(), PIXELS)


def page(name: str) -> Image.Image:
    return Image.new("RGB", PAGES[name][0], "white")


def write_pages(directory: Path) -> Path:
    rows = [(name, page(name), queries) for name, (_, queries) in PAGES.items()]
    return write_page_dataset(directory, rows).directory


def write_texts(directory: Path) -> Path:
    """In BEIR's layout: JSONL, and qrels as a table with tabs."""
    (directory / "qrels").mkdir(parents=True)
    documents = [{"_id": id_, "title": "", "text": text} for id_, text in TEXTS.items()]
    queries = [{"_id": id_, "text": text} for id_, (text, _) in QUESTIONS.items()]
    for name, rows in {"corpus": documents, "queries": queries}.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (directory / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judged = [
        f"{query}\t{document}\t{score}\n"
        for query, (_, found) in QUESTIONS.items()
        for document, score in found.items()
    ]
    (directory / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(judged), encoding="utf-8"
    )
    return directory


def write_pairs(directory: Path) -> Path:
    return write_pairs_dataset(directory, PAIRS)


class Expected:
    """Token ids of inputs, from the tokenizer and the arithmetic of the model's processor alone."""

    def __init__(self, checkpoint: Path) -> None:
        self._oracle = Oracle(checkpoint)
        self._manifest = read_manifest(checkpoint)

    def query(self, text: str) -> list[int]:
        return self._oracle.ids(QUERY + text)

    def passage(self, text: str) -> list[int]:
        return self._oracle.ids(PASSAGE + text)

    def page(self, name: str) -> list[int]:
        """From `vision_start` to `vision_end`: a token for each 28 x 28 pixels, as no page is resized."""
        width, height = PAGES[name][0]
        special = self._manifest.special_token_ids
        pads = [special.image_pad] * ((width // 28) * (height // 28))
        return [special.vision_start, *pads, special.vision_end]

    def page_prompt(self, name: str) -> list[int]:
        """With the template around it, which multi-vectors take in."""
        before, _, after = self._manifest.image_prompt.partition("<|vision_start|>")
        behind = after.partition("<|vision_end|>")[2]
        return [*self._oracle.ids(before), *self.page(name), *self._oracle.ids(behind)]


def ndcg_at(k: int, scores: dict[str, float], relevant: dict[str, int]) -> float:
    """Straight from the definition."""
    best = sorted(scores, key=lambda id_: (scores[id_], id_), reverse=True)[:k]
    gains = [relevant.get(id_, 0) / np.log2(rank + 2) for rank, id_ in enumerate(best)]
    ideal = sorted(relevant.values(), reverse=True)[:k]
    return float(sum(gains) / sum(gain / np.log2(rank + 2) for rank, gain in enumerate(ideal)))


def result_files(
    source: Source, output: Path, what: Measured, *directories: Path
) -> dict[str, object]:
    """mteb's files of a run, by their place, without times and without what describes the model."""
    run_tasks([local_task(one) for one in directories], source, what, Run(output))
    source.close()
    files = [file for file in (output / "results").rglob("*.json") if file.stem != "model_meta"]
    return {
        file.relative_to(output).as_posix(): {
            name: value
            for name, value in json.loads(file.read_text(encoding="utf-8")).items()
            if name not in TIMES
        }
        for file in files
    }
