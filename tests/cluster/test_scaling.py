import pytest
from ray.serve.config import AutoscalingContext

from serving.cluster.scaling import QUEUED_TOKENS, QueuedTokens


def context(reported: list[float], *, requests: float = 0.0) -> AutoscalingContext:
    values = {f"replica {number}": tokens for number, tokens in enumerate(reported)}
    return AutoscalingContext(
        deployment_id=None,
        deployment_name="retrieval",
        app_name="polyvec",
        current_num_replicas=len(reported),
        target_num_replicas=len(reported),
        running_replicas=list(values),
        total_num_requests=requests,
        total_queued_requests=0,
        aggregated_metrics={QUEUED_TOKENS: values} if values else {},
        raw_metrics={},
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=100,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=None,
    )


@pytest.mark.parametrize(
    ("reported", "replicas"),
    [
        ([], 0),
        ([0], 0),
        ([1], 1),
        ([1000], 1),
        ([1001], 2),
        ([900, 900, 900], 3),
        ([0, 0, 5000], 5),
    ],
)
def test_there_is_a_replica_for_every_target_of_queued_tokens(
    reported: list[float], replicas: int
) -> None:
    wanted, _ = QueuedTokens(target_tokens=1000)(context(reported))
    assert wanted == replicas


def test_a_call_that_no_replica_has_reported_keeps_one() -> None:
    wanted, _ = QueuedTokens(target_tokens=1000)(context([], requests=1))
    assert wanted == 1
