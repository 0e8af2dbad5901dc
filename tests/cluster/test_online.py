"""A real Ray, a real HAProxy, real processes; computable engines."""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.cluster.front import front_directory
from tests.cluster.clusters import ROOT, STOP_S, Cluster, running_cluster
from tests.cluster.loads import load
from tests.http.documents import picture_pdf
from tests.http.live import MODEL, Live, live_server

TASKS = ["retrieval", "code"]
PAGE = base64.b64encode(
    (ROOT / "tests/golden/jina-v4-mini/golden/image_3.png").read_bytes()
).decode()
PDF = base64.b64encode(picture_pdf([(255, 0, 0), (0, 0, 255)])).decode()
CUT = base64.b64encode(base64.b64decode(PAGE)[:-100]).decode()

CALLS: dict[str, tuple[str, dict[str, object]]] = {
    "texts": ("embeddings", {"task": "retrieval.query", "input": ["one", "two, longer", ""]}),
    "another task": ("embeddings", {"task": "code.passage", "input": "def f(): pass"}),
    "texts, image and pdf": (
        "embeddings",
        {"task": "retrieval.passage", "input": ["text", {"image": PAGE}, {"pdf": PDF}]},
    ),
    "multi-vectors": (
        "embeddings",
        {
            "task": "retrieval.query",
            "input": ["a b c", {"image": PAGE}],
            "return_multivector": True,
        },
    ),
    "late chunking": (
        "embeddings",
        {"task": "retrieval.passage", "input": ["One.", "Two."], "late_chunking": True},
    ),
    "few dimensions": (
        "embeddings",
        {"task": "code.query", "input": ["a"], "dimensions": 16, "normalized": False},
    ),
    "more than a batch": (
        "embeddings",
        {"task": "retrieval.query", "input": [f"text {number}" for number in range(600)]},
    ),
    "ranking": ("rerank", {"query": "red", "documents": ["a red page", {"image": PAGE}, "blue"]}),
    "a damaged image": ("embeddings", {"task": "retrieval.query", "input": [{"image": CUT}]}),
    "an unknown task": ("embeddings", {"task": "text-matching", "input": ["a"]}),
}
COUNTS = {"retrieval": 2, "code": 1, "ingress": 2}
LOAD = [
    {"task": "retrieval.query", "input": ["one"]},
    {"task": "code.passage", "input": [f"text {number}" for number in range(16)]},
    {"task": "retrieval.passage", "input": ["two", {"image": PAGE}]},
]


@pytest.fixture(scope="module")
def cluster(merged_float32: Path) -> Iterator[Cluster]:
    counts = {"min_replicas": ("2", "code=1"), "ingress_replicas": 2}
    # The time to drain is less than the task with one replica is without it in an update.
    with running_cluster(
        merged_float32, "fake", TASKS, playground=True, drain_timeout_s=5, **counts
    ) as found:
        yield found


@pytest.fixture(scope="module")
def single(merged_float32: Path) -> Iterator[Live]:
    from serving.engine.fake import FakeEngine

    engines = {task: FakeEngine(merged_float32 / task) for task in TASKS}
    with live_server(merged_float32, engines=engines) as found:
        yield found


@pytest.mark.parametrize("name", CALLS)
def test_a_cluster_answers_what_a_single_process_answers(
    cluster: Cluster, single: Live, name: str
) -> None:
    path, body = CALLS[name]
    with cluster.client() as client:
        got = client.post(f"/v1/{path}", json={"model": MODEL, **body})
    wanted = single.client.post(f"/v1/{path}", json={"model": MODEL, **body})
    assert got.status_code == wanted.status_code
    assert _timeless(got) == _timeless(wanted)


def _timeless(answer: httpx.Response) -> dict[str, object]:
    return {
        name: value for name, value in answer.json().items() if name not in ("request_id", "id")
    }


def test_each_deployment_has_the_processes_that_were_asked_for(cluster: Cluster) -> None:
    for deployment, count in COUNTS.items():
        cluster.until_replicas(deployment, count)


def test_the_playground_is_the_single_processes(cluster: Cluster) -> None:
    with cluster.client() as client:
        page = client.get("/playground")
        assert page.status_code == 200
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        tasks = client.get("/playground/config").json()["tasks"]
        assert sorted(task["name"] for task in tasks) == sorted(TASKS)
        assert len(client.post("/playground/pages", json={"pdf": PDF}).json()["pages"]) == 2


def test_it_is_ready_and_names_its_tasks(cluster: Cluster) -> None:
    with cluster.client() as client:
        assert client.get("/health/ready").json() == {
            "status": "ready",
            "tasks": {"retrieval": "ready", "code": "ready"},
        }
        names = {model["id"] for model in client.get("/v1/models").json()["data"]}
    assert f"{MODEL}:code.query" in names


def test_the_metrics_of_all_ingresses_are_on_one_page(cluster: Cluster) -> None:
    for _ in range(20):
        # Connections of their own, so that both ingresses are asked.
        with cluster.client() as client:
            assert client.get("/v1/models").status_code == 200
    with cluster.client() as client:
        page = client.get("/metrics").text
    counted: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "polyvec_requests_total" and sample.labels["route"] == "/v1/models":
                counted[sample.labels["ingress"]] = sample.value
    assert len(counted) == 2
    assert sum(counted.values()) >= 20


@pytest.mark.parametrize("deployment", ["retrieval", "code", "ingress"])
def test_a_process_that_is_killed_costs_no_client_an_answer(
    cluster: Cluster, deployment: str
) -> None:
    with load(cluster.url, LOAD) as report:
        report.until_more(30)
        victim = cluster.until_replicas(deployment, COUNTS[deployment])[0]
        victim.send_signal(signal.SIGKILL)
        report.until_more(60)
        psutil.wait_procs([victim])
        found = cluster.until_replicas(deployment, COUNTS[deployment])
        report.until_more(30)
    assert victim not in found
    assert report.wrong == []


def test_an_update_of_the_checkpoints_costs_no_client_an_answer(
    cluster: Cluster, merged_float32: Path, tmp_path: Path
) -> None:
    before = {process.pid for task in TASKS for process in cluster.replicas(task)}
    ingresses = {process.pid for process in cluster.replicas("ingress")}
    models = _copy(merged_float32, tmp_path / "models")
    with ExitStack() as opened, load(cluster.url, LOAD) as report:
        report.until_more(30)
        idle = [Unhurried(cluster, opened) for _ in range(4)]
        assert [client.ask() for client in idle] == [200] * 4
        subprocess.run(
            [sys.executable, "-m", "tests.cluster.redeploy", cluster.ray_address, str(models)],
            cwd=ROOT,
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.ray_token},
            check=True,
            timeout=240,
        )
        report.until_more(30)
        after = {
            process.pid for task in TASKS for process in cluster.until_replicas(task, COUNTS[task])
        }
        cluster.until_replicas("ingress", COUNTS["ingress"])
        # What answered on their connections has ended, and they have not heard of it.
        assert not ingresses & {process.pid for process in cluster.replicas("ingress")}
        assert [client.ask() for client in idle] == [200] * 4
    assert not before & after
    assert report.wrong == []


class Unhurried:
    """A client that keeps its connection however long it does not use it."""

    def __init__(self, cluster: Cluster, opened: ExitStack) -> None:
        limits = httpx.Limits(keepalive_expiry=None)
        self._client = opened.enter_context(
            httpx.Client(base_url=cluster.url, timeout=120, trust_env=False, limits=limits)
        )

    def ask(self) -> int:
        answer = self._client.post("/v1/embeddings", json={"model": MODEL, **LOAD[0]})
        return answer.status_code


def _copy(models: Path, to: Path) -> Path:
    """The same checkpoints with another manifest: to a cluster, others."""
    for file in models.rglob("*"):
        if file.is_file():
            target = to / file.relative_to(models)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.name == "polyvec.json":
                target.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
            else:
                target.hardlink_to(file)
    return to


# The last of this file: it ends the cluster.
def test_a_cluster_that_is_told_to_stop_answers_what_it_accepted(cluster: Cluster) -> None:
    body = {"model": MODEL, "task": "retrieval.query", "input": ["text " * 50] * 200}
    processes = [process for name in (*TASKS, "ingress") for process in cluster.replicas(name)]

    def ask() -> int:
        with cluster.client() as client:
            return client.post("/v1/embeddings", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask) for _ in range(8)]
        cluster.process.send_signal(signal.SIGTERM)
        statuses = {one.result() for one in asked}
    # A request that came late is told so; none is dropped.
    assert statuses <= {200, 503, 404}
    assert 200 in statuses
    assert cluster.process.wait(STOP_S) == 0
    assert processes
    assert not [process for process in processes if process.is_running()]
    assert not front_directory(int(cluster.url.rpartition(":")[2])).exists()
