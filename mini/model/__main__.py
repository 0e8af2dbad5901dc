"""`python -m mini.model --workdir DIR --out CHECKPOINT`: what training left in DIR, as a checkpoint."""

import argparse
from pathlib import Path

import torch

from mini.model.checkpoint import write_checkpoint
from mini.training.adapters import lora_config


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m mini.model", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    said = {**lora_config().to_dict(), "base_model_name_or_path": "polyvec-mini"}
    write_checkpoint(
        torch.load(asked.workdir / "base.pt")["model"],
        torch.load(asked.workdir / "adapters.pt"),
        said,
        asked.workdir,
        asked.out,
    )


if __name__ == "__main__":
    main()
