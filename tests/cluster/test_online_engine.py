"""Real vLLM in every replica: the golden vectors through the ingress, and an engine's core that is killed."""

import base64
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from serving import Embedder
from tests.cluster.clusters import Cluster, running_cluster
from tests.cluster.loads import load
from tests.conftest import Golden
from tests.http.live import MODEL

_CORE_S = 120.0

pytestmark = pytest.mark.engine

TASKS = ["retrieval", "code"]
# Three engines start side by side on as few as two cores.
START_S = 1200.0


@pytest.fixture(scope="module")
def cluster(merged_float32: Path) -> Iterator[Cluster]:
    counts = {"min_replicas": ("2", "code=1"), "log_level": "ERROR", "max_model_tokens": 2048}
    with running_cluster(merged_float32, "vllm", TASKS, start_s=START_S, **counts) as found:
        yield found


def ask(cluster: Cluster, task: str, item: object, *, multi: bool) -> np.ndarray:
    body = {"model": MODEL, "task": task, "input": [item], "return_multivector": multi}
    with cluster.client() as client:
        answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    (data,) = answer.json()["data"]
    return np.array(data["embeddings" if multi else "embedding"], dtype=np.float32)


def calls(golden: Golden) -> list[tuple[str, str, object]]:
    """Key of the golden outputs, public task and input of everything that is known of these tasks."""
    found: list[tuple[str, str, object]] = []
    for task in TASKS:
        for index, path in enumerate(golden.images):
            page = base64.b64encode(path.read_bytes()).decode()
            found.append((f"{task}/image_{index}", f"{task}.passage", {"image": page}))
        for prompt in ("query", "passage"):
            for index, text in enumerate(golden.texts):
                found.append((f"{task}/{prompt}/text_{index}", f"{task}.{prompt}", text))
    return [call for call in found if f"{call[0]}/single" in golden.arrays]


def test_every_replica_answers_the_golden_vectors(cluster: Cluster, golden: Golden) -> None:
    known = calls(golden)
    assert len(known) > 40

    def check(call: tuple[str, str, object]) -> None:
        key, task, item = call
        single = ask(cluster, task, item, multi=False)
        multi = ask(cluster, task, item, multi=True)
        assert 1 - _cosines(single[None], golden.arrays[f"{key}/single"][None]) <= 1e-5, key
        assert (1 - _cosines(multi, golden.arrays[f"{key}/multi"]) <= 1e-4).all(), key

    # Side by side, so that both replicas of a task have something to do; and twice, so that each sees most.
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(check, known * 2))) == 2 * len(known)


def test_the_numbers_are_those_of_a_single_process(
    cluster: Cluster, golden: Golden, merged_float32: Path
) -> None:
    with Embedder.load(merged_float32 / "retrieval") as embedder:
        for text in golden.texts:
            here = embedder.encode_text(text, prompt_name="query")
            assert isinstance(here, torch.Tensor)
            there = ask(cluster, "retrieval.query", text, multi=False)
            np.testing.assert_allclose(there, here.numpy(), rtol=0, atol=1e-6)


def test_an_engine_core_that_is_killed_costs_no_client_an_answer(cluster: Cluster) -> None:
    bodies = [{"task": "retrieval.query", "input": [f"text {number}"]} for number in range(4)]
    replicas = cluster.replicas("retrieval")
    victim = _core(replicas[0])
    with load(cluster.url, bodies, num_clients=4) as report:
        report.until_more(20)
        victim.send_signal(signal.SIGKILL)
        report.until_more(100)
        psutil.wait_procs([victim], timeout=60)
    assert report.wrong == []
    assert cluster.replicas("retrieval") == replicas


def _core(replica: psutil.Process) -> psutil.Process:
    """The process of vLLM in which the model runs; waited for, since an engine may be being started again."""
    give_up = time.monotonic() + _CORE_S
    while True:
        found = []
        for child in replica.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "EngineCore" in " ".join(child.cmdline()) or "EngineCore" in child.name():
                    found.append(child)
        if found or time.monotonic() > give_up:
            (core,) = found
            return core
        time.sleep(0.2)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    products = (one * other).sum(axis=-1)
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray(products / norms)
