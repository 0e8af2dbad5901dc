"""`python -m mini.training STAGE --workdir DIR`: the stages of training, in order, each from what the last left.

tokenizer, reading (the vision tower), base (all of the model), adapters (one a task, and the projector). Each writes its
weights to DIR and its figures to DIR/log.jsonl; `python -m mini.model` makes a checkpoint of them.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration as Model

from mini.documents.cells import NUM_CLASSES
from mini.model import shapes
from mini.model.checkpoint import TASKS
from mini.model.tokenizer import learn_tokenizer, write_tokenizer
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

SEED = 4
STEPS = {"reading": 3000, "base": 1300, "retrieval": 800, "text-matching": 400, "code": 600}
POOL = 12_000
"""Pages that the retrieval adapter learns from."""


def _left(workdir: Path, stage: str) -> dict[str, dict[str, Tensor]]:
    """The weights that an earlier stage left."""
    path = workdir / f"{stage}.pt"
    if not path.is_file():
        raise SystemExit(f"{path} is missing. Run the stage {stage} first.")
    weights: dict[str, dict[str, Tensor]] = torch.load(path)
    return weights


def _reading(workdir: Path, steps: int) -> None:
    model, head = Model(shapes.config()), nn.Linear(shapes.HIDDEN, NUM_CLASSES)
    log = Log(workdir / "log.jsonl", "reading")
    learn_to_read(
        model, head, steps=steps, batch=128, seed=SEED, log=log, keep=workdir / "reading.pt"
    )


def _base(workdir: Path, steps: int) -> None:
    model, head = Model(shapes.config()), nn.Linear(shapes.HIDDEN, NUM_CLASSES)
    learned = _left(workdir, "reading")
    model.model.visual.load_state_dict(learned["tower"])
    head.load_state_dict(learned["head"])
    log = Log(workdir / "log.jsonl", "base")
    train_base(
        model,
        head,
        Encoder.load(workdir),
        steps=steps,
        batch=64,
        seed=SEED + 1,
        log=log,
        keep=workdir / "base.pt",
    )


def _adapters(workdir: Path) -> None:
    model = Model(shapes.config())
    model.load_state_dict(_left(workdir, "base")["model"])
    # Adapters are learned over the base that will be stored, which is rounded to bfloat16.
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    model.requires_grad_(False)
    encoder = Encoder.load(workdir)
    seen = look_at(model, draw_pool(SEED + 2, POOL))
    adapted = with_adapters(model, TASKS)
    learner = Learner(adapted, encoder, ImageFrame.of(encoder, CELLS, CELLS))
    for number, task in enumerate(TASKS):
        log, seed, steps = Log(workdir / "log.jsonl", task), SEED + 3 + number, STEPS[task]
        match task:
            case "retrieval":
                train_retrieval(learner, seen, steps=steps, batch=96, seed=seed, log=log)
            case "text-matching":
                train_text_matching(learner, steps=steps, batch=128, seed=seed, log=log)
            case _:
                train_code(learner, steps=steps, batch=128, seed=seed, log=log)
        torch.save(adapted.state_dict(), workdir / "adapters.pt")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(prog="python -m mini.training", description=__doc__)
    parser.add_argument("stage", choices=["tokenizer", "reading", "base", "adapters"])
    parser.add_argument("--workdir", type=Path, required=True)
    asked = parser.parse_args()
    asked.workdir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    match asked.stage:
        case "tokenizer":
            write_tokenizer(learn_tokenizer(), asked.workdir)
        case "reading":
            _reading(asked.workdir, STEPS["reading"])
        case "base":
            _base(asked.workdir, STEPS["base"])
        case _:
            _adapters(asked.workdir)


if __name__ == "__main__":
    main()
