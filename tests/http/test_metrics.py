"""The text that Prometheus reads, parsed by Prometheus' own parser."""

from importlib.metadata import version

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from serving.http.metrics import Metrics, Rejection
from serving.http.record import InputCounts, RequestRecord, TokenCounts
from serving.http.stages import Stage, Stages

ROUTES = ("/v1/embeddings", "/metrics")
TASKS = ("retrieval", "code")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version("polyvec"), ROUTES, TASKS)


def read(metrics: Metrics) -> Samples:
    text = metrics.render(None)[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"polyvec_{name}", frozenset(labels.items())))


def record(
    *,
    route: str = "/v1/embeddings",
    status: int = 200,
    seconds: float = 0.02,
    stages: Stages | None = None,
    task: str | None = "retrieval",
    inputs: InputCounts | None = None,
    tokens: TokenCounts | None = None,
) -> RequestRecord:
    return RequestRecord(
        request_id="r",
        method="POST",
        route=route,
        status=status,
        seconds=seconds,
        stages=Stages() if stages is None else stages,
        task=task,
        inputs=inputs or InputCounts(),
        tokens=tokens or TokenCounts(),
    )


def test_an_answered_request_is_counted_by_route_status_and_task(metrics: Metrics) -> None:
    metrics.observe_request(record())
    metrics.observe_request(record())
    metrics.observe_request(record(status=422, task=None))
    samples = read(metrics)
    assert (
        value(samples, "requests_total", route="/v1/embeddings", status="200", task="retrieval")
        == 2
    )
    assert value(samples, "requests_total", route="/v1/embeddings", status="422", task="none") == 1
    assert value(samples, "request_seconds_count", route="/v1/embeddings") == 3
    assert value(samples, "request_seconds_bucket", route="/v1/embeddings", le="0.01") == 0
    assert value(samples, "request_seconds_bucket", route="/v1/embeddings", le="0.025") == 3


def test_inputs_and_tokens_are_counted_by_kind(metrics: Metrics) -> None:
    metrics.observe_request(
        record(inputs=InputCounts(3, 2, 4, 1), tokens=TokenCounts(text=30, image=200))
    )
    samples = read(metrics)
    for kind, expected in (("text", 3), ("image", 2), ("page", 4), ("tokens", 1)):
        assert value(samples, "inputs_total", task="retrieval", kind=kind) == expected
    assert value(samples, "tokens_total", task="retrieval", kind="text") == 30
    assert value(samples, "tokens_total", task="retrieval", kind="image") == 200
    assert value(samples, "request_inputs_sum") == 10


def test_each_stage_that_a_request_passed_is_observed_once(metrics: Metrics) -> None:
    stages = Stages()
    for stage in (Stage.PARSE, Stage.ENGINE, Stage.PARSE):
        with stages.measure(stage):
            pass
    metrics.observe_request(record(stages=stages))
    samples = read(metrics)
    counts = {stage: value(samples, "stage_seconds_count", stage=stage.value) for stage in Stage}
    assert counts == {stage: float(stage in (Stage.PARSE, Stage.ENGINE)) for stage in Stage}


def test_routes_and_tasks_that_are_not_served_make_no_series_of_their_own(
    metrics: Metrics,
) -> None:
    metrics.observe_request(record())
    metrics.observe_request(record(route="/a", task="b", status=404, inputs=InputCounts(text=1)))
    num_series = len(read(metrics))
    for number in range(50):
        metrics.observe_request(
            record(route=f"/{number}", task=f"t{number}", status=404, inputs=InputCounts(text=1))
        )
    samples = read(metrics)
    assert len(samples) == num_series
    assert value(samples, "requests_total", route="other", status="404", task="other") == 51


def test_queues_and_engines_are_asked_when_metrics_are_read(metrics: Metrics) -> None:
    queued, is_up, bodies_bytes = 0, False, 0
    metrics.watch_task(
        "code",
        queued_tokens=lambda: queued,
        running_tokens=lambda: 7,
        engine_up=lambda: is_up,
    )
    metrics.watch_bodies(lambda: bodies_bytes)
    queued, is_up, bodies_bytes = 12, True, 99
    samples = read(metrics)
    assert value(samples, "queued_tokens", task="code") == 12
    assert value(samples, "running_tokens", task="code") == 7
    assert value(samples, "engine_up", task="code") == 1
    assert value(samples, "bodies_bytes") == 99


def test_requests_in_progress_are_counted_until_they_end_in_whatever_way(
    metrics: Metrics,
) -> None:
    with metrics.in_progress():
        assert value(read(metrics), "requests_in_progress") == 1
        with pytest.raises(KeyError), metrics.in_progress():
            raise KeyError
        assert value(read(metrics), "requests_in_progress") == 1
    assert value(read(metrics), "requests_in_progress") == 0


def test_batches_restarts_and_rejections_are_there_at_zero_and_are_counted(
    metrics: Metrics,
) -> None:
    before = read(metrics)
    assert [value(before, "rejected_total", reason=reason.value) for reason in Rejection] == [
        0.0
    ] * len(Rejection)
    assert value(before, "engine_restarts_total", task="code") == 0
    assert value(before, "engine_batch_prompts_count", task="code") == 0
    metrics.observe_batch("code", num_prompts=64, num_tokens=1000)
    metrics.engine_restarted("code")
    metrics.reject(Rejection.QUEUE_FULL)
    after = read(metrics)
    assert value(after, "rejected_total", reason="queue_full") == 1
    assert value(after, "rejected_total", reason="bodies_full") == 0
    assert value(after, "engine_restarts_total", task="code") == 1
    assert value(after, "engine_batch_prompts_bucket", task="code", le="64.0") == 1
    assert value(after, "engine_batch_tokens_sum", task="code") == 1000


def test_the_version_and_the_process_are_described(metrics: Metrics) -> None:
    samples = read(metrics)
    assert value(samples, "build_info", version=version("polyvec")) == 1
    assert samples[("process_resident_memory_bytes", frozenset())] > 0
    assert ("python_gc_collections_total", frozenset({("generation", "0")})) in samples


def test_two_servers_in_one_process_count_apart(metrics: Metrics) -> None:
    other = Metrics("1", ROUTES, TASKS)
    other.reject(Rejection.QUEUE_FULL)
    assert value(read(metrics), "rejected_total", reason="queue_full") == 0


def test_openmetrics_is_written_for_those_who_ask_for_it(metrics: Metrics) -> None:
    metrics.observe_request(record(inputs=InputCounts(text=1)))
    prometheus = (
        "application/openmetrics-text;version=1.0.0;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    )
    body, content_type = metrics.render(prometheus)
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"# EOF\n")
    assert "polyvec_requests" in {family.name for family in parse_openmetrics(body.decode())}


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "text/html",
        "text/plain;version=x",
        "text/plain;version=1.x.0;escaping=dots",
        "application/json",
        ";;,,=",
    ],
)
def test_text_is_written_for_everyone_else(metrics: Metrics, accept: str | None) -> None:
    body, content_type = metrics.render(accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"polyvec_build_info" in body


@pytest.mark.parametrize("version_", ["x", "", "1.x", "99", "1.0.0, evil"])
def test_an_odd_version_of_openmetrics_gets_the_one_there_is(
    metrics: Metrics, version_: str
) -> None:
    content_type = metrics.render(f"application/openmetrics-text;version={version_}")[1]
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
