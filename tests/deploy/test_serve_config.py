import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serving.http.caller import Limits
from serving.http.key_file import add_key
from tests.deploy.files import manifest
from tests.deploy.operated import Operated, operated
from tests.http.redis_server import RedisServer, redis_server

SERVICE = manifest("rayservice.yaml")["spec"]
# Of two Pods with a GPU and three for ingresses, as the groups in the manifest have them.
RESOURCES = {"CPU": 2 * 3 + 3, "GPU": 2, "ingress": 3}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, password="word") as server:
        yield server


@pytest.fixture
def key(tmp_path: Path) -> str:
    """With limits, which the ingresses count together."""
    return add_key(tmp_path / "keys.json", "test", Limits(None, 1_000_000, None))


@pytest.fixture
def config(tmp_path: Path, merged_float32: Path) -> dict[str, Any]:
    """The manifest's, with what a machine without Pods and cards needs otherwise."""
    found: dict[str, Any] = yaml.safe_load(SERVICE["serveConfigV2"])
    (application,) = found["applications"]
    application["import_path"] = "tests.deploy.fake_app:build"
    application["args"] |= {
        "models": str(merged_float32),
        "keys": str(tmp_path / "keys.json"),
        "min_replicas": "1",
        "max_replicas": "2",
    }
    return found


@pytest.fixture
def environment(redis: RedisServer) -> dict[str, str]:
    """The Pods', with what they have from Secrets; and fewer connections, for the limit of files here."""
    head = SERVICE["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    (container,) = head["containers"]
    values = {v["name"]: v["value"] for v in container["env"] if "value" in v}
    assert values["RAY_SERVE_HAPROXY_MAXCONN"]
    return values | {
        "RAY_SERVE_HAPROXY_MAXCONN": "100",
        "POLYVEC_LIMITS_STORAGE": redis.uri.get_secret_value(),
    }


def embed(cluster: Operated, key: str) -> int:
    answer = httpx.post(
        f"{cluster.url}/v1/embeddings",
        headers={"Authorization": f"Bearer {key}"},
        json={"model": "jina-embeddings-v4", "task": "retrieval.query", "input": ["hello"]},
        timeout=60,
        trust_env=False,
    )
    return answer.status_code


def test_the_configuration_runs_and_another_model_costs_no_answer(
    config: dict[str, Any], environment: dict[str, str], key: str, tmp_path: Path
) -> None:
    with operated(config, environment, RESOURCES) as cluster:
        cluster.apply()
        before = cluster.until_running()
        assert {name: len(replicas) for name, replicas in before.items()} == {
            "ingress": 2,
            "retrieval": 1,
            "text-matching": 1,
            "code": 1,
        }
        assert embed(cluster, "pv-unknown") == 401
        statuses = [embed(cluster, key)]
        arguments = config["applications"][0]["args"]
        arguments["models"] = shutil.copytree(arguments["models"], str(tmp_path / "v2"))
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                statuses.append(embed(cluster, key))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            cluster.apply()
            after = cluster.until_running(without=frozenset().union(*before.values()))
        finally:
            done.set()
            asking.join()
        assert set(statuses) == {200}
        assert {name: len(r) for name, r in after.items()} == {
            name: len(r) for name, r in before.items()
        }
