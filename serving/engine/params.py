"""vLLM's pooling parameters, made for one request each. Importing this module imports vLLM."""

from copy import copy
from typing import Self

from vllm import PoolingParams


class OwnedParams(PoolingParams):  # type: ignore[misc]
    """Parameters whose values nobody changes.

    vLLM copies parameters for every request, deeply, in case the caller shares them: a third of this
    process's time for a short text.
    """

    def clone(self) -> Self:
        """A copy that vLLM may set fields of."""
        return copy(self)
