"""vLLM's scheduler, which takes many texts in one message and answers them in few.

A message between two processes, or a tensor in one, costs more than scheduling a short text does. So texts
that are wanted in the same way come as one request that says how many tokens each has, and become requests
of their own here, where vLLM queues them. It schedules, batches and answers them as any other.
"""

from collections.abc import Sequence
from copy import copy

import torch
from vllm.pooling_params import PoolingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from serving.engine.worker import EXTRA
from serving.engine.worker.parcel import ParcelRecipe, member, members, places


class ParcelScheduler(Scheduler):  # type: ignore[misc]
    """Takes parcels apart, and joins their answers."""

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """The step's outputs for each client; those of neighbours in a parcel are one."""
        by_client: dict[int, EngineCoreOutputs] = super().update_from_output(
            scheduler_output, model_runner_output
        )
        for outputs in by_client.values():
            outputs.outputs = _joined(outputs.outputs)
        return by_client

    def add_request(self, request: Request) -> None:
        """Queue a request, or those that a parcel holds."""
        params = request.pooling_params
        numbers = {} if params is None else (params.extra_kwargs or {}).get(EXTRA, {})
        parcel = ParcelRecipe.from_numbers(numbers)
        if parcel is None:
            super().add_request(request)
            return
        assert request.prompt_token_ids is not None
        # What is set of a request's parameters later is the same for all, so texts of one length share theirs.
        shared: dict[int, PoolingParams] = {}
        start = 0
        for index, length in enumerate(parcel.lengths):
            if length not in shared:
                shared[length] = copy(params)
                shared[length].extra_kwargs = {EXTRA: parcel.of_text(length).to_numbers()}
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


def _joined(outputs: Sequence[EngineCoreOutput]) -> list[EngineCoreOutput]:
    """Rows of one parcel that follow each other become one output; everything else stays as it is."""
    joined: list[EngineCoreOutput] = []
    run: list[EngineCoreOutput] = []
    parcel_id, first = "", 0

    def end_run() -> None:
        if len(run) > 1:
            run[0].pooling_output = torch.cat([one.pooling_output for one in run])
            run[0].request_id = members(parcel_id, first, first + len(run) - 1)
        joined.extend(run[:1])
        run.clear()

    for output in outputs:
        message_id, found = places(output.request_id)
        row = output.pooling_output
        if found is None or row is None or row.ndim != 2 or len(row) != 1:
            end_run()
            joined.append(output)
            continue
        # All texts of a parcel are wanted in one way, so their rows are of one type and length.
        if run and (message_id, found.start) != (parcel_id, first + len(run)):
            end_run()
        if not run:
            parcel_id, first = message_id, found.start
        run.append(output)
    end_run()
    return joined
