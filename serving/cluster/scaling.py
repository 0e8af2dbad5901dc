"""How many replicas a task should have: as many as its queued tokens need.

Called by Ray Serve's controller. Replicas report the tokens (`serving.cluster.replica`); when changes are
made, after which delay and within which bounds, is Ray Serve's.
"""

import math
from typing import Any

from ray.serve.config import AutoscalingContext

QUEUED_TOKENS = "queued_tokens"
"""What replicas call the number: tokens that wait for them or run."""


class QueuedTokens:
    """A replica for every `target_tokens` that wait or run; made by Ray Serve from the deployment's config."""

    def __init__(self, target_tokens: int) -> None:
        self._target_tokens = target_tokens

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Replicas wanted; called by Ray Serve about once a second."""
        reported = (context.aggregated_metrics or {}).get(QUEUED_TOKENS, {})
        wanted = math.ceil(sum(reported.values()) / self._target_tokens)
        # A call that no replica has reported yet.
        return max(wanted, 1 if context.total_num_requests > 0 else 0), {}
