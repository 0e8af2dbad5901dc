"""What the hardware could do at best, measured in the run that it is compared with."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.checkpoint import (
    dtype_name,
    item_tokens,
    load_projector,
    page_grid,
    page_pixels,
    vision_config,
)
from benchmarks.workloads import WORKLOADS, pages, texts


def matmul_size() -> int:
    """Rows and columns of the product that is the limit: enough to fill the device, done within seconds."""
    return 8192 if torch.cuda.is_available() else 1024


def matmul_flops_per_s(checkpoint: Path) -> float:
    """Operations per second of a product of two random square matrices in the type of the weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, dtype = matmul_size(), getattr(torch, dtype_name(checkpoint))
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(13):
        _wait(device)
        start = time.perf_counter()
        torch.matmul(left, right)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[3:])


def bare_ms(checkpoint: Path, workloads: Sequence[str]) -> dict[str, float]:
    """Milliseconds of one core that preparing an item takes at least.

    A text: `tokenizers` over 64 at once. A page: resized to what the model sees, to float32, normalised and
    cut into patches, by torchvision and torch, decoded already.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: _bare_ms(checkpoint, name) for name in workloads}
    finally:
        torch.set_num_threads(threads)


def null_model_ms(checkpoint: Path, workloads: Sequence[str]) -> dict[str, float]:
    """Milliseconds of one core that the null model itself takes for an item: its matrix products.

    Of a page the projection of its patches and the two layers of the merger, in the checkpoint's shapes and type; of
    multi-vectors the projector, in float32. The lookup of a text's tokens counts as nothing.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dtype = dtype_name(checkpoint)
        projector, _ = load_projector(checkpoint)
        return {
            name: _products_ms(_page_shapes(checkpoint) if WORKLOADS[name].is_page else [], dtype)
            + _products_ms(
                [(item_tokens(checkpoint, WORKLOADS[name]), *reversed(projector.shape))]
                if WORKLOADS[name].multi
                else [],
                "float32",
            )
            for name in workloads
        }
    finally:
        torch.set_num_threads(threads)


def _page_shapes(checkpoint: Path) -> list[tuple[int, ...]]:
    """Rows, inner and outer columns of each product of a page."""
    vision = vision_config(checkpoint)
    hidden, out = vision["hidden_size"], vision["out_hidden_size"]
    patch = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    merged = hidden * vision["spatial_merge_size"] ** 2
    num_tokens = math.prod(page_grid(checkpoint))
    num_patches = num_tokens * vision["spatial_merge_size"] ** 2
    return [(num_patches, patch, hidden), (num_tokens, merged, merged), (num_tokens, merged, out)]


def _products_ms(shapes: Sequence[tuple[int, ...]], dtype: str) -> float:
    operands = [
        (
            torch.randn(rows, inner).to(getattr(torch, dtype)),
            torch.randn(inner, columns).to(getattr(torch, dtype)),
        )
        for rows, inner, columns in shapes
    ]

    def multiply() -> None:
        for left, right in operands:
            torch.matmul(left, right)

    return _cpu_ms(multiply, 10) if shapes else 0.0


def _bare_ms(checkpoint: Path, name: str) -> float:
    workload = WORKLOADS[name]
    if workload.is_page:
        from torchvision.transforms.v2 import functional  # type: ignore[import-untyped]

        (page,) = pages(1)
        height, width = page_pixels(checkpoint)

        def prepare() -> None:
            tensor = functional.pil_to_tensor(page)
            small = functional.resize(
                tensor, [height, width], functional.InterpolationMode.BICUBIC, antialias=True
            )
            values = (small.to(torch.float32) / 255 - 0.5) / 0.25
            values.view(3, height // 14, 14, width // 14, 14).permute(1, 3, 0, 2, 4).contiguous()

        return _cpu_ms(prepare, 10)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    batch = texts(workload, 64)
    return _cpu_ms(lambda: tokenizer.encode_batch_fast(batch), 20) / 64


def _cpu_ms(call: Callable[[], object], times: int) -> float:
    call()
    spent = []
    for _ in range(times):
        started = time.process_time()
        call()
        spent.append(time.process_time() - started)
    return 1e3 * statistics.median(spent)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
