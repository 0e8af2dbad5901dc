"""One optimiser for every stage: AdamW, a warm-up, a constant rate, and a fall to zero at the end."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_WARM_UP = 200


class Optimiser:
    """AdamW over `parameters`; in the last part of `steps` steps, `fall`, the rate falls to zero."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, rate: float, steps: int, fall: float = 0.3
    ) -> None:
        self._parameters = [one for one in parameters if one.requires_grad]
        matrices = [one for one in self._parameters if one.ndim >= 2]
        others = [one for one in self._parameters if one.ndim < 2]
        self._adam = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
            lr=rate,
            betas=(0.9, 0.98),
        )
        self._rate, self._steps, self._fall, self._step = rate, steps, fall, 0

    def step(self, loss: Tensor) -> None:
        """Learn from `loss`."""
        self._step += 1
        falling = self._fall * self._steps
        left = (self._steps - self._step + 1) / falling if falling else 1.0
        for group in self._adam.param_groups:
            group["lr"] = self._rate * min(1.0, self._step / _WARM_UP, left)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
