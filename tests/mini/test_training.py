"""Every stage takes a few steps on small batches: it learns what it should, and leaves the rest as it was."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from mini.documents.cells import NUM_CLASSES
from mini.model import shapes
from mini.model.checkpoint import TASKS
from mini.training.adapters import (
    Learner,
    draw_pool,
    look_at,
    train_code,
    train_retrieval,
    train_text_matching,
    with_adapters,
)
from mini.training.base import CELLS, train_base
from mini.training.log import Log
from mini.training.reading import learn_to_read
from mini.training.sequences import Encoder, ImageFrame
from tests.mini.paths import CHECKPOINT

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model(shapes.config())


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def _changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, now in module.named_parameters() if not torch.equal(before[name], now)}


def test_reading_trains_the_vision_tower_alone(model: Model, tmp_path: Path) -> None:
    before = _state(model)
    with torch.compiler.set_stance("force_eager"):
        learn_to_read(
            model,
            nn.Linear(shapes.HIDDEN, NUM_CLASSES),
            steps=3,
            batch=4,
            seed=1,
            log=Log(tmp_path / "log.jsonl", "reading"),
            keep=tmp_path / "reading.pt",
        )
    changed = _changed(before, model)
    assert changed
    assert all("visual" in name for name in changed)


def test_the_base_trains_all_of_the_model(model: Model, tmp_path: Path) -> None:
    before = _state(model)
    with torch.compiler.set_stance("force_eager"):
        train_base(
            model,
            nn.Linear(shapes.HIDDEN, NUM_CLASSES),
            Encoder.load(CHECKPOINT),
            steps=2,
            batch=4,
            seed=1,
            log=Log(tmp_path / "log.jsonl", "base"),
            keep=tmp_path / "base.pt",
        )
    changed = _changed(before, model)
    assert any("visual" in name for name in changed)
    assert any("language_model" in name for name in changed)


def test_each_adapter_learns_alone_and_the_base_stays(model: Model, tmp_path: Path) -> None:
    model.requires_grad_(False)
    base = _state(model)
    seen = look_at(model, draw_pool(1, 24))
    encoder = Encoder.load(CHECKPOINT)
    adapted = with_adapters(model, TASKS)
    learner = Learner(adapted, encoder, ImageFrame.of(encoder, CELLS, CELLS))
    log = Log(tmp_path / "log.jsonl", "adapters")
    for task in TASKS:
        before = _state(adapted)
        match task:
            case "retrieval":
                train_retrieval(learner, seen, steps=2, batch=4, seed=1, log=log)
            case "text-matching":
                train_text_matching(learner, steps=2, batch=4, seed=1, log=log)
            case _:
                train_code(learner, steps=2, batch=4, seed=1, log=log)
        changed = _changed(before, adapted)
        projector = {name for name in changed if "multi_vector_projector.base_layer" in name}
        assert len(projector) == (2 if task == "retrieval" else 0)
        assert all(f".{task}." in name for name in changed - projector)
        assert len(changed - projector) >= 7 * shapes.TEXT["num_hidden_layers"]
    kept = {name.replace(".base_layer", ""): value for name, value in adapted.named_parameters()}
    compared = 0
    for name, value in base.items():
        assert torch.equal(kept[f"base_model.model.{name}"], value), name
        compared += 1
    assert compared > 80


def test_the_log_of_the_committed_weights_tells_of_every_stage() -> None:
    text = (CHECKPOINT.parent / "training-log.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["stage"] for line in lines} == {"reading", "base", *TASKS}
    last = {line["stage"]: line for line in lines}
    assert last["base"]["caption"] < 0.3
    assert last["base"]["words_read"] > 0.9
