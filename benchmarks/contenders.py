"""The ways to embed that throughput compares, each as one function: options in, turns of a workload out.

    polyvec            the Python API of this repository, pooling in vLLM's worker
    polyvec-external   the same, pooling outside an unmodified vLLM
    vllm-recipe        unmodified vLLM on the same merged checkpoint, ALL-token output, pooled in Python one
                       output after the other: what the publisher's vLLM checkpoints ask callers to do
    vllm-mean          unmodified vLLM with its own MEAN pooling in the worker; texts and single vectors only,
                       as its mean of a page takes the template in
    transformers       the merged weights with one more LoRA adapter of the model's rank, unmerged, batch by
                       batch: the arithmetic of the original library (base + unmerged adapter)

Each runs in a process of its own and imports what it needs.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.load.cpu import cpu_seconds
from benchmarks.workloads import WORKLOADS, Workload, pages, texts

Encode = Callable[[Workload, Sequence[Any]], int]
"""Embeds all items of a workload; returns how many vectors it made."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One call over all items of a workload.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of this process and all below it.
    """

    seconds: float
    cpu_seconds: float


Turns = dict[str, list[Turn]]
"""By workload."""

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

        return _measure(options, encode)


def vllm_recipe(options: argparse.Namespace) -> Turns:
    """The offline entry point of vLLM, pooled by the caller."""
    import torch
    from transformers import AutoTokenizer

    checkpoint = options.merged / options.task
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    llm = _llm(checkpoint, task="token_embed", pooling_type="ALL", use_activation=False)
    markers = ["<|vision_start|>", "<|vision_end|>"]
    start, end = (tokenizer.get_vocab()[marker] for marker in markers)
    template = _template()
    projector = _projector(checkpoint)

    def encode(workload: Workload, items: Sequence[Any]) -> int:
        if workload.is_page:
            prompts = [{"prompt": template, "multi_modal_data": {"image": item}} for item in items]
        else:
            ids = tokenizer([f"Query: {item}" for item in items])["input_ids"]
            prompts = [{"prompt_token_ids": row[: workload.num_tokens]} for row in ids]
        outputs = llm.encode(prompts, pooling_task="token_embed", use_tqdm=False)
        made = []
        for output in outputs:
            hidden = output.outputs.data.float()
            if workload.multi:
                vectors = torch.nn.functional.linear(hidden, *projector)
            elif start in output.prompt_token_ids:
                first = output.prompt_token_ids.index(start)
                last = output.prompt_token_ids.index(end)
                vectors = hidden[first : last + 1].mean(dim=0)
            else:
                vectors = hidden.mean(dim=0)
            made.append(torch.nn.functional.normalize(vectors, dim=-1))
        return len(made)

    return _measure(options, encode)


def vllm_mean(options: argparse.Namespace) -> Turns:
    """The offline entry point of vLLM, pooled by vLLM."""
    from transformers import AutoTokenizer

    checkpoint = options.merged / options.task
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    llm = _llm(checkpoint, task="embed", pooling_type="MEAN")

    def encode(workload: Workload, items: Sequence[Any]) -> int:
        ids = tokenizer([f"Query: {item}" for item in items])["input_ids"]
        prompts = [{"prompt_token_ids": row[: workload.num_tokens]} for row in ids]
        return len(llm.embed(prompts, use_tqdm=False))

    return _measure(options, encode, lambda workload: not (workload.is_page or workload.multi))


def transformers(options: argparse.Namespace) -> Turns:
    """Batch by batch, adapter unmerged."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    checkpoint = options.merged / options.task
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16)
    lora = LoraConfig(
        r=32,
        lora_alpha=32,
        target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        init_lora_weights=False,
    )
    model = get_peft_model(base.model, lora).to(device=device, dtype=torch.bfloat16).eval()
    processor: Any = AutoProcessor.from_pretrained(checkpoint)  # type: ignore[no-untyped-call]
    template = _template()
    projector = [part.to(device) for part in _projector(checkpoint)]

    def encode(workload: Workload, items: Sequence[Any]) -> int:
        made: list[torch.Tensor] = []
        size = _TRANSFORMERS_BATCH[workload.num_tokens]
        for at in range(0, len(items), size):
            part = list(items[at : at + size])
            if workload.is_page:
                batch = processor(
                    text=[template] * len(part), images=part, padding=True, return_tensors="pt"
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

    return _measure(options, encode)


CONTENDERS: dict[str, Callable[[argparse.Namespace], Turns]] = {
    "polyvec": polyvec,
    "polyvec-external": polyvec_external,
    "vllm-recipe": vllm_recipe,
    "vllm-mean": vllm_mean,
    "transformers": transformers,
}


def _llm(checkpoint: Path, **pooler: Any) -> Any:
    import torch
    from vllm import LLM
    from vllm.config import PoolerConfig

    return LLM(
        model=str(checkpoint),
        runner="pooling",
        pooler_config=PoolerConfig(**pooler),
        # vLLM's MEAN does not compute a prompt in several steps.
        max_model_len=8192 if pooler["pooling_type"] == "MEAN" else 32768,
        max_num_batched_tokens=8192,
        limit_mm_per_prompt={"image": 1, "video": 0},
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
        disable_log_stats=True,
        enforce_eager=not torch.cuda.is_available(),
        kv_cache_memory_bytes=None if torch.cuda.is_available() else 4 * 2**30,
    )


def _measure(
    options: argparse.Namespace,
    encode: Encode,
    can: Callable[[Workload], bool] = lambda workload: True,
) -> Turns:
    measured: Turns = {}
    for name in options.workload:
        workload = WORKLOADS[name]
        if not can(workload):
            continue
        num_items = workload.num_items(options.scale)
        items = pages(num_items) if workload.is_page else texts(workload, num_items)
        # Compiles and allocates what these shapes need.
        encode(workload, items[: max(2, num_items // 8)])
        turns = []
        for _ in range(options.repeat):
            spent = cpu_seconds(os.getpid()).total
            started = time.perf_counter()
            made = encode(workload, items)
            seconds = time.perf_counter() - started
            turns.append(Turn(seconds, cpu_seconds(os.getpid()).total - spent))
            assert made == num_items
        measured[name] = turns
    return measured


def _template() -> str:
    return (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        "Describe the image.<|im_end|>\n"
    )


def _projector(checkpoint: Path) -> Any:
    from safetensors.torch import load_file

    tensors = load_file(checkpoint / "multi_vector_projector.safetensors")
    return tensors["weight"].float(), tensors["bias"].float()
