"""Checkpoints that several tests only read."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.synthetic import SHAPES, build
from tests.merge.builders import copy_golden, save_qwen_base


@pytest.fixture
def default_signals() -> Iterator[None]:
    """SIGINT and SIGTERM as a new interpreter has them: Ray listens where it was started before."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    after = {number: signal.getsignal(number) for number in handlers}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == handlers


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint that a test may damage."""
    return copy_golden(tmp_path / "mini")


@pytest.fixture(scope="session")
def qwen_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Qwen2.5-VL in bfloat16; not to be changed."""
    return save_qwen_base(tmp_path_factory.mktemp("qwen") / "base", torch.bfloat16)


@pytest.fixture(scope="session")
def larger_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 MB with tensors of more than one block, in jina-embeddings-v4's layout."""
    out = tmp_path_factory.mktemp("larger") / "source"
    build(out, replace(SHAPES["small"], hidden=512, heads=4, layers=6, intermediate=1408))
    return out
