"""Unmodified vLLM as a contender: its offline entry point on the merged checkpoint, in three ways.

    vllm_recipe   ALL-token output, pooled in Python one output after the other
    vllm_mean     its own MEAN pooling in the worker; texts and single vectors only
    vllm_lora     one more LoRA adapter at run time, on every prompt: with MEAN pooling where vllm_mean has
                  it, with ALL-token output elsewhere, so that an adapter is the one difference from them

Imports vLLM when called.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.adapter import RANK, write_adapter
from benchmarks.checkpoint import dtype_name, load_projector, text_config, weight_bytes
from benchmarks.turns import Turns, UnavailableError, measure
from benchmarks.workloads import PAGE_TEMPLATE, WORKLOADS, Workload

_STEP_TOKENS = 8192
_MAX_TOKENS = 32768


def vllm_recipe(options: argparse.Namespace) -> Turns:
    """The offline entry point of vLLM, pooled by the caller."""
    return _tokens(options)


def vllm_mean(options: argparse.Namespace) -> Turns:
    """The offline entry point of vLLM, pooled by vLLM."""
    return _mean(options)


def vllm_lora(options: argparse.Namespace) -> Turns:
    """The two above with vLLM's runtime LoRA; one engine after the other."""
    import torch

    checkpoint = options.merged / options.task
    if not torch.cuda.is_available():
        _require_memory(checkpoint, psutil.virtual_memory().available)
    with tempfile.TemporaryDirectory() as directory:
        write_adapter(checkpoint, Path(directory))
        from vllm.lora.request import LoRARequest

        adapter = LoRARequest("unmerged", 1, directory)
        means = _mean(options, adapter)
        return means | _tokens(options, adapter, lambda workload: not _has_mean(workload))


def lora_bytes_on_cpu(checkpoint: Path, num_tokens: int) -> int:
    """What vLLM's LoRA holds at least in a step on a CPU.

    Its kernels there (`vllm.lora.ops.torch_ops`) copy an adapter's matrix once for every token of a step,
    in the model's type; and the first of the two matrices once more in float32, where that is another type.
    """
    text = text_config(checkpoint)
    widest = max(text["hidden_size"], text["intermediate_size"])
    bytes_per_value = 4 if dtype_name(checkpoint) == "float32" else 2 + 4
    return int(num_tokens * RANK * widest * bytes_per_value)


def _require_memory(checkpoint: Path, available_bytes: int) -> None:
    copies = lora_bytes_on_cpu(checkpoint, _STEP_TOKENS)
    needed = copies + weight_bytes(checkpoint)
    if needed > available_bytes:
        raise UnavailableError(
            f"on a CPU vLLM copies the adapter for each of {_STEP_TOKENS} tokens of a step, "
            f"{copies / 1e9:.1f} GB; with the weights {needed / 1e9:.1f} GB, "
            f"of which {available_bytes / 1e9:.1f} are available."
        )


def _has_mean(workload: Workload) -> bool:
    return not (workload.is_page or workload.multi)


def _tokens(
    options: argparse.Namespace,
    adapter: Any = None,
    can: Callable[[Workload], bool] = lambda workload: True,
) -> Turns:
    import torch
    from transformers import AutoTokenizer

    if not any(can(WORKLOADS[name]) for name in options.workload):
        return {}
    checkpoint = options.merged / options.task
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    markers = ["<|vision_start|>", "<|vision_end|>"]
    start, end = (tokenizer.get_vocab()[marker] for marker in markers)
    projector = load_projector(checkpoint)
    pooler = {"task": "token_embed", "pooling_type": "ALL", "use_activation": False}
    with _running(checkpoint, adapter, pooler) as llm:

        def encode(workload: Workload, items: Sequence[Any]) -> int:
            prompts = (
                [{"prompt": PAGE_TEMPLATE, "multi_modal_data": {"image": item}} for item in items]
                if workload.is_page
                else _prompts(tokenizer, workload, items)
            )
            outputs = llm.encode(
                prompts, pooling_task="token_embed", lora_request=adapter, use_tqdm=False
            )
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

        return measure(options, encode, can)


def _mean(options: argparse.Namespace, adapter: Any = None) -> Turns:
    from transformers import AutoTokenizer

    if not any(_has_mean(WORKLOADS[name]) for name in options.workload):
        return {}
    checkpoint = options.merged / options.task
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with _running(checkpoint, adapter, {"task": "embed", "pooling_type": "MEAN"}) as llm:

        def encode(workload: Workload, items: Sequence[Any]) -> int:
            prompts = _prompts(tokenizer, workload, items)
            return len(llm.embed(prompts, lora_request=adapter, use_tqdm=False))

        return measure(options, encode, _has_mean)


def _prompts(tokenizer: Any, workload: Workload, items: Sequence[str]) -> list[dict[str, Any]]:
    ids = tokenizer([f"Query: {item}" for item in items])["input_ids"]
    return [{"prompt_token_ids": row[: workload.num_tokens]} for row in ids]


@contextmanager
def _running(checkpoint: Path, adapter: Any, pooler: dict[str, Any]) -> Iterator[Any]:
    import torch
    from vllm import LLM
    from vllm.config import PoolerConfig

    llm = LLM(
        model=str(checkpoint),
        runner="pooling",
        pooler_config=PoolerConfig(**pooler),
        dtype=dtype_name(checkpoint),
        # vLLM's MEAN does not compute a prompt in several steps.
        max_model_len=_STEP_TOKENS if pooler["pooling_type"] == "MEAN" else _max_tokens(checkpoint),
        max_num_batched_tokens=_STEP_TOKENS,
        limit_mm_per_prompt={"image": 1, "video": 0},
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
        disable_log_stats=True,
        enforce_eager=not torch.cuda.is_available(),
        kv_cache_memory_bytes=None if torch.cuda.is_available() else 4 * 2**30,
        **({} if adapter is None else {"enable_lora": True, "max_lora_rank": RANK}),
    )
    try:
        if adapter is not None:
            _require_effect(llm, pooler["task"], adapter)
        yield llm
    finally:
        # The next engine needs its memory.
        llm.llm_engine.engine_core.shutdown()


def _max_tokens(checkpoint: Path) -> int:
    """As many as the model has positions for: with more, vLLM does not start."""
    return min(_MAX_TOKENS, int(text_config(checkpoint)["max_position_embeddings"]))


def _require_effect(llm: Any, task: str, adapter: Any) -> None:
    """An adapter that vLLM took and left out would make it look free."""
    import torch

    prompts = [{"prompt_token_ids": list(range(1, 17))}]

    def vector(request: Any) -> Any:
        (output,) = llm.encode(prompts, pooling_task=task, lora_request=request, use_tqdm=False)
        return output.outputs.data.float().flatten()

    without, beside = vector(None), vector(adapter)
    cosine = torch.nn.functional.cosine_similarity(without, beside, dim=0).item()
    print(f"adapter: {task} vectors with and without it have a cosine of {cosine:.3f}", flush=True)
    if not cosine < 0.99:
        raise UnavailableError(
            f"vLLM's vectors are the same with the adapter (cosine {cosine:.4f})."
        )
