from pathlib import Path

import pytest

from tests.benchmarks.quality.corpora import Expected, write_pages, write_pairs, write_texts


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(tmp_path_factory.mktemp("datasets") / "pages")


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("datasets") / "texts")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("datasets") / "pairs")


@pytest.fixture(scope="session")
def expected(merged_float32: Path) -> Expected:
    return Expected(merged_float32 / "retrieval")
