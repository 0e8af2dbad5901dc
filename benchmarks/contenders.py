"""The ways to embed that throughput compares, each as one function: options in, turns of a workload out.

    polyvec            the Python API of this repository, pooling in vLLM's worker
    polyvec-external   the same, pooling outside an unmodified vLLM
    vllm-recipe        unmodified vLLM on the same merged checkpoint, ALL-token output, pooled in Python one
                       output after the other: what the publisher's vLLM checkpoints ask callers to do
    vllm-mean          unmodified vLLM with its own MEAN pooling in the worker; texts and single vectors only,
                       as its mean of a page takes the template in
    vllm-lora          both of these with one more LoRA adapter of the model's rank, unmerged, at run time
    transformers       the merged weights with that adapter, unmerged, batch by batch: the arithmetic of the
                       original library (base + unmerged adapter)

Each runs in a process of its own and imports what it needs.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.adapter import write_adapter
from benchmarks.checkpoint import dtype_name, load_projector
from benchmarks.contenders_vllm import vllm_lora, vllm_mean, vllm_recipe
from benchmarks.turns import Turns, measure
from benchmarks.workloads import PAGE_TEMPLATE, Workload

_TRANSFORMERS_BATCH = {8: 256, 64: 64, 512: 16, 755: 8, 8192: 1}


def polyvec(options: argparse.Namespace) -> Turns:
    """The Python API."""
    return _polyvec(options, pooling="engine")


def polyvec_external(options: argparse.Namespace) -> Turns:
    """The Python API, pooling outside."""
    return _polyvec(options, pooling="external")


def _polyvec(options: argparse.Namespace, pooling: Literal["engine", "external"]) -> Turns:
    from serving import Embedder, EngineSettings

    settings = EngineSettings(pooling=pooling)
    with Embedder.load(options.merged / options.task, settings=settings) as embedder:

        def encode(workload: Workload, items: Sequence[Any]) -> int:
            if workload.is_page:
                made = embedder.encode_image(list(items), return_multivector=workload.multi)
            else:
                made = embedder.encode_text(
                    list(items),
                    max_length=workload.num_tokens,
                    return_multivector=workload.multi,
                )
            return len(made)

        return measure(options, encode)


def transformers(options: argparse.Namespace) -> Turns:
    """Batch by batch, adapter unmerged."""
    import torch
    from peft import PeftModel
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    checkpoint = options.merged / options.task
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, dtype_name(checkpoint))
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype)
    with tempfile.TemporaryDirectory() as directory:
        write_adapter(checkpoint, Path(directory))
        # Its layers take the places of the base's own.
        PeftModel.from_pretrained(base, directory)
    model = base.model.to(device=device, dtype=dtype).eval()
    processor: Any = AutoProcessor.from_pretrained(checkpoint)  # type: ignore[no-untyped-call]
    projector = [part.to(device) for part in load_projector(checkpoint)]

    def encode(workload: Workload, items: Sequence[Any]) -> int:
        made: list[torch.Tensor] = []
        size = _TRANSFORMERS_BATCH[workload.num_tokens]
        for at in range(0, len(items), size):
            part = list(items[at : at + size])
            if workload.is_page:
                batch = processor(
                    text=[PAGE_TEMPLATE] * len(part), images=part, padding=True, return_tensors="pt"
                )
            else:
                batch = processor.tokenizer(
                    [f"Query: {item}" for item in part],
                    padding=True,
                    truncation=True,
                    max_length=workload.num_tokens,
                    return_tensors="pt",
                )
            with torch.inference_mode():
                hidden = model(**batch.to(device)).last_hidden_state.float()
            vectors = (
                torch.nn.functional.linear(hidden, *projector)
                if workload.multi
                else hidden.mean(dim=1)
            )
            made += list(torch.nn.functional.normalize(vectors, dim=-1).cpu())
        return len(made)

    return measure(options, encode)


CONTENDERS: dict[str, Callable[[argparse.Namespace], Turns]] = {
    "polyvec": polyvec,
    "polyvec-external": polyvec_external,
    "vllm-recipe": vllm_recipe,
    "vllm-mean": vllm_mean,
    "vllm-lora": vllm_lora,
    "transformers": transformers,
}
