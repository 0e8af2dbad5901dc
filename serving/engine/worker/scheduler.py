"""vLLM's scheduler, which takes many texts in one message.

A message between two processes costs more than scheduling a short text does. So texts that are wanted in
the same way come as one request that says how many tokens each has, and become requests of their own here,
where vLLM queues them. It schedules, batches and answers them as any other.
"""

from copy import copy

from vllm.pooling_params import PoolingParams
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from serving.engine.worker import EXTRA
from serving.engine.worker.parcel import lengths_of, member, text_numbers


class ParcelScheduler(Scheduler):  # type: ignore[misc]
    """Takes parcels apart."""

    def add_request(self, request: Request) -> None:
        """Queue a request, or those that a parcel holds."""
        params = request.pooling_params
        numbers = {} if params is None else (params.extra_kwargs or {}).get(EXTRA, {})
        lengths = lengths_of(numbers)
        if lengths is None:
            super().add_request(request)
            return
        assert request.prompt_token_ids is not None
        # Nobody changes what a request's parameters say, so texts of one length share theirs.
        shared: dict[int, PoolingParams] = {}
        start = 0
        for index, length in enumerate(lengths):
            if length not in shared:
                shared[length] = copy(params)
                shared[length].extra_kwargs = {EXTRA: text_numbers(numbers, length)}
            super().add_request(
                Request(
                    request_id=member(request.request_id, index),
                    prompt_token_ids=request.prompt_token_ids[start : start + length],
                    sampling_params=None,
                    pooling_params=shared[length],
                    client_index=request.client_index,
                    arrival_time=request.arrival_time,
                    block_hasher=request._block_hasher,
                )
            )
            start += length
