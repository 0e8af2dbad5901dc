"""Checkpoints that several tests only read."""

from pathlib import Path

import pytest
import torch

from tests.merge.builders import copy_golden, save_qwen_base


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint that a test may damage."""
    return copy_golden(tmp_path / "mini")


@pytest.fixture(scope="session")
def qwen_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Qwen2.5-VL in bfloat16; not to be changed."""
    return save_qwen_base(tmp_path_factory.mktemp("qwen") / "base", torch.bfloat16)
