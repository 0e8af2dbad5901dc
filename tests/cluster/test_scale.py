"""Replicas come and go with the tokens that wait; engines that take a second for a thousand tokens."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.clusters import STOP_S, Cluster, running_cluster
from tests.cluster.loads import load
from tests.http.live import MODEL

BUSY = [{"task": "retrieval.query", "input": ["text " * 60] * 2}]


@pytest.fixture(scope="module")
def cluster(merged_float32: Path) -> Iterator[Cluster]:
    settings = {
        "min_replicas": ("1", "code=0"),
        "max_replicas": ("2", "code=1"),
        "target_queued_tokens": 200,
        "upscale_delay_s": 0,
        "downscale_delay_s": 2,
        "drain_timeout_s": 5,
    }
    with running_cluster(merged_float32, "slow", ["retrieval", "code"], **settings) as found:
        yield found


def test_a_task_at_zero_is_ready_and_the_first_call_brings_a_replica(cluster: Cluster) -> None:
    assert cluster.replicas("code") == []
    with cluster.client() as client:
        assert client.get("/health/ready").status_code == 200
        answer = client.post("/v1/embeddings", json=_body("code.query", "def f(): pass"))
        assert answer.status_code == 200, answer.text
    cluster.until_replicas("code", 0)


def test_replicas_follow_the_queue_up_and_down_without_a_failed_request(cluster: Cluster) -> None:
    assert len(cluster.replicas("retrieval")) == 1
    with load(cluster.url, BUSY, num_clients=8) as report:
        cluster.until_replicas("retrieval", 2)
        report.until_more(10)
    cluster.until_replicas("retrieval", 1)
    with load(cluster.url, BUSY, num_clients=1) as after:
        after.until_more(2)
    assert report.wrong == after.wrong == []


def test_a_client_that_hangs_up_frees_its_place_in_the_engine(cluster: Cluster) -> None:
    # A quarter of an hour of work, were it done.
    work = _body("retrieval.query", *["text " * 1000] * 900)
    with cluster.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/embeddings", json=work, timeout=3)
        answer = client.post("/v1/embeddings", json=_body("retrieval.query", "short"), timeout=60)
    assert answer.status_code == 200


def test_an_input_that_ends_engines_is_tried_no_more_than_a_few_times(cluster: Cluster) -> None:
    with cluster.client() as client:
        # A dot is the token that these engines die of.
        answer = client.post("/v1/embeddings", json=_body("retrieval.query", "."), timeout=100)
        assert answer.status_code == 503
        assert answer.json()["code"] == "SERVICE_UNAVAILABLE"
        again = client.post("/v1/embeddings", json=_body("retrieval.query", "fine"), timeout=100)
    assert again.status_code == 200


# The last of this file: it ends the cluster.
def test_a_request_that_would_outlast_the_cluster_is_told_so(cluster: Cluster) -> None:
    work = _body("retrieval.query", *["text " * 1000] * 900)
    with cluster.client() as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/v1/embeddings", json=work)
        _until_queued(cluster)
        cluster.process.send_signal(signal.SIGTERM)
        answer = asked.result()
    assert answer.status_code == 503
    assert answer.json()["code"] == "SERVICE_UNAVAILABLE"
    assert cluster.process.wait(STOP_S) == 0


def _until_queued(cluster: Cluster) -> None:
    give_up = time.monotonic() + 60
    with cluster.client() as client:
        while True:
            families = text_string_to_metric_families(client.get("/metrics").text)
            (queued,) = (family for family in families if family.name == "polyvec_queued_tokens")
            if any(sample.value for sample in queued.samples):
                return
            assert time.monotonic() < give_up
            time.sleep(0.1)


def _body(task: str, *texts: str) -> dict[str, object]:
    return {"model": MODEL, "task": task, "input": list(texts)}
