"""The check for NaN and infinity, and where it is made.

Pooling itself (`single`, `multi`, `matryoshka`, `maxsim`) does not check: NaN and infinity in give
NaN out, in the vectors they touch and in no other, and nothing waits for the device. The check
stands where a NaN would vanish or leave the process: in `quantise` and `encoding`. There a CUDA
tensor costs one synchronisation, where its bytes are about to be copied anyway.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pooling.errors import NonFiniteError


def require_finite(embeddings: Float[Tensor, "..."]) -> None:
    """Waits for the device and refuses NaN and infinity.

    Raises:
        NonFiniteError: at least one value is NaN or infinite.
    """
    num_bad = _count_bad(embeddings)
    if num_bad:
        raise NonFiniteError(
            f"Embeddings are finite, got {num_bad} of {embeddings.numel()} values NaN or infinite "
            f"in shape {tuple(embeddings.shape)}, {embeddings.dtype}. "
            "Look for an overflow in the model's dtype (float32 has none) or for a damaged checkpoint."
        )


def _count_bad(embeddings: Tensor) -> int:
    if embeddings.device.type == "cpu" and embeddings.dtype != torch.bfloat16:
        # torch would wake all its threads for 64 vectors, which takes longer than looking at them.
        values = embeddings.detach().numpy()
        # One NaN or infinity makes the sum one; so may large values, which are then looked at one by one.
        if values.dtype == np.float32:
            with np.errstate(over="ignore", invalid="ignore"):
                total = np.add.reduce(values, axis=None)
            if math.isfinite(total):
                return 0
        return int(values.size - np.count_nonzero(np.isfinite(values)))
    return int(torch.count_nonzero(~torch.isfinite(embeddings)))
