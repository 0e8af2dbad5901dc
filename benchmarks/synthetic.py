"""Checkpoints in jina-embeddings-v4's own layout on disk, with random weights.

    python -m benchmarks.synthetic OUT --shape full

For measuring and testing where the real weights are not at hand: the same tensor names, shapes,
dtypes, shards, adapters, ids and config fields, so that what reads the real directory reads this
one. It deliberately does not know what weights mean: its vectors rank nothing, and a number
measured on them says how fast the model runs and nothing about how well it retrieves.

Weights are normal with a standard deviation of 0.8 / sqrt(fan-in) (0.018 for hidden 2048), norms
are near one, biases small, token embeddings 0.5, and both LoRA factors differ from zero.

The target for `full` (7.5 GB, and 0.36 GB of adapters) is under 60 s on two cores in under 1.5 GB
of memory. The card printed at the end says what it took.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.synthetic_config import write_adapter_config, write_config, write_tokenizer
from benchmarks.synthetic_plan import SHAPES, Shape, plan_adapters
from benchmarks.synthetic_weights import DTYPES, Noise, write_safetensors, write_weights

__all__ = ["SHAPES", "Built", "Shape", "build"]


@dataclass(frozen=True, slots=True)
class Built:
    """What was written; the base includes the projector."""

    num_base_parameters: int
    num_adapter_parameters: int
    weight_bytes: int
    adapter_bytes: int


def build(
    out: Path,
    shape: Shape,
    *,
    seed: int = 0,
    num_shards: int = 2,
    dtype_name: str = "bfloat16",
) -> Built:
    """Writes a checkpoint to `out`, which appears whole or not at all.

    Equal arguments give equal bytes with the same release of torch.

    Raises:
        FileExistsError: `out` exists.
        ValueError: there are not enough tensors for that many shards.
    """
    if out.exists():
        raise FileExistsError(
            f"A checkpoint is written to a new directory, got {out}, which exists. "
            "Remove it or name another."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, staging, ignore_errors=True)
        built = _write(staging, shape, Noise(seed, dtype_name), num_shards)
        staging.chmod(0o755)
        staging.rename(out)
        undo.pop_all()
    return built


def _write(directory: Path, shape: Shape, noise: Noise, num_shards: int) -> Built:
    write_config(directory, shape, noise.dtype_name)
    write_tokenizer(directory, shape)
    weight_bytes = write_weights(directory, shape, noise, num_shards)
    adapters = directory / "adapters"
    adapters.mkdir()
    write_adapter_config(adapters, shape)
    adapter_bytes = write_safetensors(
        adapters / "adapter_model.safetensors", list(plan_adapters(shape)), noise
    )
    return Built(
        num_base_parameters=weight_bytes // noise.value_bytes,
        num_adapter_parameters=adapter_bytes // noise.value_bytes,
        weight_bytes=weight_bytes,
        adapter_bytes=adapter_bytes,
    )


def main() -> None:
    """Parses the command line, builds, and prints a card that ends in one line of JSON."""
    parser = argparse.ArgumentParser(
        description="Write a checkpoint in jina-embeddings-v4's layout with random weights."
    )
    parser.add_argument("out", type=Path, help="a directory that does not exist yet")
    parser.add_argument("--shape", choices=SHAPES, default="full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    options = parser.parse_args()
    start_s = time.perf_counter()
    built = build(
        options.out,
        SHAPES[options.shape],
        seed=options.seed,
        num_shards=options.shards,
        dtype_name=options.dtype,
    )
    took_s = time.perf_counter() - start_s
    # Linux counts it in KiB.
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"shape     {options.shape}, {options.dtype}, seed {options.seed}")
    print(f"base      {built.num_base_parameters:,} parameters, {built.weight_bytes / 1e9:.3f} GB")
    print(
        f"adapters  {built.num_adapter_parameters:,} parameters, {built.adapter_bytes / 1e9:.3f} GB"
    )
    print(f"took      {took_s:.1f} s, {peak_bytes / 1e9:.2f} GB of memory at most")
    print(f"written   {options.out}")
    print(
        json.dumps(
            {
                "shape": options.shape,
                "took_s": round(took_s, 2),
                "peak_bytes": peak_bytes,
                **asdict(built),
            }
        )
    )


if __name__ == "__main__":
    main()
