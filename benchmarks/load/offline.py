"""Processor time of the engine alone: the same prompts, tokenised, in one call to vLLM without a server.

    python -m benchmarks.load.offline --checkpoint DIR --kind text-64 page --out FILE

What a server spends beyond this is spent outside the model, or on feeding it badly. Runs in a process
of its own; only the engine's processes are counted.
"""

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load.cpu import cpu_seconds
from benchmarks.load.requests import KINDS, Inputs, Kind
from benchmarks.load.servers import Limits

_NUM_TEXTS = 2048
_NUM_PAGES = 16
_TEMPLATE = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"
)


def offline_cpu_ms(checkpoint: Path, kinds: Sequence[str], limits: Limits) -> dict[str, float]:
    """Milliseconds of processor time an item, by kind; empty where the engine failed."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "cpu.json"
        command = [sys.executable, "-m", "benchmarks.load.offline", "--checkpoint", str(checkpoint)]
        command += ["--kind", *kinds, "--dtype", limits.dtype, "--out", str(out)]
        command += ["--max-tokens", str(limits.max_tokens)]
        command += ["--max-batch-tokens", str(limits.max_batch_tokens)]
        command += ["--max-batch-prompts", str(limits.max_batch_prompts)]
        done = subprocess.run(command, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            print(f"offline: failed with status {done.returncode}", file=sys.stderr)
            return {}
        measured: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
        return measured


def main() -> None:
    """Measure every kind and write one JSON object."""
    options = _parse()
    os.environ.update(VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR")
    from vllm import LLM
    from vllm.config import PoolerConfig

    llm = LLM(
        model=str(options.checkpoint),
        runner="pooling",
        pooler_config=PoolerConfig(task="embed", pooling_type="MEAN"),
        dtype=options.dtype,
        max_model_len=options.max_tokens,
        max_num_batched_tokens=options.max_batch_tokens,
        max_num_seqs=options.max_batch_prompts,
        kv_cache_memory_bytes=Limits().cache_bytes,
        limit_mm_per_prompt={"image": 1, "video": 0},
        mm_processor_cache_gb=0,
        enable_prefix_caching=False,
        enforce_eager=True,
        disable_log_stats=True,
    )
    inputs = Inputs(options.checkpoint, seed=0)
    measured = {}
    for name in options.kind:
        prompts = _prompts(options.checkpoint, inputs, KINDS[name])
        llm.embed(prompts[: len(prompts) // 4], use_tqdm=False)
        before = cpu_seconds(os.getpid())
        llm.embed(prompts, use_tqdm=False)
        spent = cpu_seconds(os.getpid()) - before
        measured[name] = 1e3 * (spent.core + spent.model) / len(prompts)
    options.out.write_text(json.dumps(measured), encoding="utf-8")


def _prompts(checkpoint: Path, inputs: Inputs, kind: Kind) -> list[Any]:
    if kind.num_tokens is None:
        from PIL import Image

        drawn = [uri for items in inputs.draw(kind, _NUM_PAGES) for uri in items]
        files = [io.BytesIO(base64.b64decode(uri.partition(",")[2])) for uri in drawn]
        return [
            {"prompt": _TEMPLATE, "multi_modal_data": {"image": Image.open(file).convert("RGB")}}
            for file in files
        ]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    texts = [text for items in inputs.draw(kind, _NUM_TEXTS // kind.num_items) for text in items]
    encoded = tokenizer.encode_batch([f"Query: {text}" for text in texts], add_special_tokens=False)
    return [{"prompt_token_ids": item.ids} for item in encoded]


def _parse() -> argparse.Namespace:
    limits = Limits()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--kind", nargs="+", choices=KINDS, required=True)
    parser.add_argument("--dtype", default=limits.dtype)
    parser.add_argument("--max-tokens", type=int, default=limits.max_tokens)
    parser.add_argument("--max-batch-tokens", type=int, default=limits.max_batch_tokens)
    parser.add_argument("--max-batch-prompts", type=int, default=limits.max_batch_prompts)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
