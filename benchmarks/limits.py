"""What the hardware could do at best, measured in the run that it is compared with."""

import statistics
import time

import torch


def matmul_flops_per_s(size: int = 8192) -> float:
    """Operations per second of a bf16 product of two random square matrices."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = size if device == "cuda" else size // 8
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    seconds = []
    for _ in range(13):
        _wait(device)
        start = time.perf_counter()
        torch.matmul(left, right)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[3:])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
