"""Fixtures that are costly to make, one each for the whole run."""

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from merge_tools import merge, plan_merge, resolve_source
from serving import Embedder
from serving.engine.fake import FakeEngine
from serving.manifest import find_tasks
from tests.paths import GOLDEN_CHECKPOINT, GOLDEN_OUTPUTS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports travel between processes as UTF-8, and some tests log what has no such form."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8"))
        for name, text in report.sections
    ]
    return report


def merge_golden(out: Path, dtype: str) -> Path:
    merge(plan_merge(resolve_source(GOLDEN_CHECKPOINT), dtype=dtype), out)
    return out


@pytest.fixture(scope="session")
def merged_float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge_golden(tmp_path_factory.mktemp("merged") / "float32", "float32")


@pytest.fixture(scope="session")
def merged_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge_golden(tmp_path_factory.mktemp("merged") / "bfloat16", "bfloat16")


@dataclass(frozen=True, slots=True)
class GoldenEmbedder:
    """Real vLLM on the merged golden checkpoint, and how far it may be from the original code."""

    embedder: Embedder
    dtype: str
    single_bound: float
    token_bound: float


@pytest.fixture(scope="session", params=["float32", "bfloat16"])
def golden_embedder(request: pytest.FixtureRequest) -> Iterator[GoldenEmbedder]:
    dtype: str = request.param
    path: Path = request.getfixturevalue(f"merged_{dtype}")
    bounds = {"float32": (1e-5, 1e-4), "bfloat16": (5e-4, 5e-3)}[dtype]
    with Embedder.load(path) as embedder:
        yield GoldenEmbedder(embedder, dtype, *bounds)


@pytest.fixture
def fake_embedder(merged_float32: Path) -> Iterator[Embedder]:
    directories = find_tasks(merged_float32)
    engines = {task: FakeEngine(path) for task, path in directories.items()}
    with Embedder.from_engines(directories, engines) as embedder:
        yield embedder


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs of the golden outputs, and what the original code made of them."""

    texts: list[str]
    images: list[Path]
    arrays: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def golden() -> Golden:
    inputs = json.loads((GOLDEN_OUTPUTS / "inputs.json").read_text(encoding="utf-8"))
    with np.load(GOLDEN_OUTPUTS / "golden.npz") as arrays:
        return Golden(
            texts=inputs["texts"],
            images=[GOLDEN_OUTPUTS / name for name in inputs["images"]],
            arrays=dict(arrays),
        )
