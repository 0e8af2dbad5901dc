"""`polyvec serve` as a process: what it refuses at once, how it ends, and what it says meanwhile."""

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from polyvec.cli_serve import without_secrets
from tests.cli.served import LIMIT_S, Forker, Served, forking
from tests.http.held import until

NUM_REQUESTS = 200
PATIENT = ("--drain-delay-s", "60")
BODY = {"model": "jina-embeddings-v4", "task": "text-matching", "input": ["hello"]}


@pytest.fixture(scope="module")
def forker(merged_float32: Path) -> Iterator[Forker]:
    with forking(merged_float32) as found:
        yield found


@contextmanager
def posted(served: Served, num_requests: int) -> Iterator[list["Future[httpx.Response]"]]:
    """Requests that the engine holds, each on a connection of its own."""
    served.until_printed("Ready.")
    served.touch("held")
    url = served.url
    limits = httpx.Limits(max_connections=None)
    with (
        httpx.Client(trust_env=False, timeout=LIMIT_S, limits=limits) as client,
        ThreadPoolExecutor(num_requests) as threads,
    ):
        yield [
            threads.submit(client.post, f"{url}/v1/embeddings", json=BODY)
            for _ in range(num_requests)
        ]


def num_in_progress(served: Served) -> int:
    (line,) = (
        line
        for line in served.get("/metrics").text.splitlines()
        if line.startswith("polyvec_requests_in_progress ")
    )
    return int(float(line.split()[1])) - 1  # itself


def refused(forker: Forker, directory: Path, *options: str, models: Path | None = None) -> str:
    """The one line that a server ends with which never began to load engines."""
    served = forker.serve(directory, *options, models=models)
    assert served.exit_status() == 1
    assert served.out == ""
    (line,) = served.err.splitlines()
    return line


def test_a_port_that_is_taken_is_refused(forker: Forker, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(forker, tmp_path, "--port", str(port))
    assert f"127.0.0.1:{port} cannot be bound" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "no keys"),
        (("--keys", "nowhere.json"), "nowhere.json"),
        (("--keys", "damaged.json"), "damaged.json"),
        (("--task", "poetry"), "poetry"),
        (("--default-task", "poetry"), "default_task"),
        (("--fetch-hosts", "https://example.com"), "fetch_hosts"),
        (("--cors-origins", "app.example.com"), "cors_origins"),
        (("--fetch-private-networks", "everything"), "fetch_private_networks"),
        (("--otlp-endpoint", "collector"), "otlp_endpoint"),
        (("--limits-storage", "redis://127.0.0.1:1"), "limits_storage"),
    ],
)
def test_what_cannot_work_is_refused_before_engines_load(
    forker: Forker, tmp_path: Path, options: tuple[str, str], says: str
) -> None:
    (tmp_path / "damaged.json").write_text("{", encoding="utf-8")
    assert says in refused(forker, tmp_path, *options)


def test_what_is_no_checkpoint_is_refused(forker: Forker, tmp_path: Path) -> None:
    assert "polyvec merge" in refused(forker, tmp_path, models=tmp_path)


def test_an_engine_that_does_not_start_ends_the_server(forker: Forker, tmp_path: Path) -> None:
    (tmp_path / "no-memory").touch()
    served = forker.serve(tmp_path)
    assert served.exit_status() == 1
    last = served.err.splitlines()[-1]
    assert last.startswith("polyvec: The engine of ")
    assert "There is no memory left." in last


@pytest.mark.parametrize("how", ["hangs", "hangs-in-import"])
def test_a_start_that_hangs_ends_the_server(forker: Forker, tmp_path: Path, how: str) -> None:
    (tmp_path / how).touch()
    served = forker.serve(tmp_path, "--engine-start-timeout-s", "0.2")
    assert served.exit_status() == 1
    assert "did not come up within 0.2 s" in served.err.splitlines()[-1]


def test_a_server_is_live_and_can_be_ended_while_an_import_hangs(
    forker: Forker, tmp_path: Path
) -> None:
    (tmp_path / "hangs-in-import").touch()
    served = forker.serve(tmp_path, "--drain-delay-s", "0")
    until(lambda: (tmp_path / "hanging").exists(), "an engine starts")
    assert served.get("/health/live").status_code == 200
    assert served.get("/health/ready").status_code == 503
    served.send(signal.SIGTERM)
    assert served.exit_status() == 0


def test_an_engine_that_does_not_stay_up_ends_the_server(forker: Forker, tmp_path: Path) -> None:
    served = forker.serve(tmp_path, "--max-engine-restarts", "0")
    served.until_printed("Ready.")
    served.touch("dead")
    assert served.exit_status() == 1
    assert "is given up: The core died." in served.err.splitlines()[-1]


def test_no_accepted_request_is_lost_by_a_signal(forker: Forker, tmp_path: Path) -> None:
    served = forker.serve(tmp_path)
    with posted(served, NUM_REQUESTS) as answers:
        until(lambda: num_in_progress(served) == NUM_REQUESTS, "all requests are there")
        served.send(signal.SIGTERM)
        until(lambda: served.get("/health/ready").json()["status"] == "stopping", "it drains")
        served.remove("held")
        assert [answer.result().status_code for answer in answers] == [200] * NUM_REQUESTS
    assert served.exit_status() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_and_its_status_says_that_requests_were_lost(
    forker: Forker, tmp_path: Path, number: signal.Signals
) -> None:
    served = forker.serve(tmp_path, *PATIENT)
    with posted(served, 1) as answers:
        until(lambda: num_in_progress(served) == 1, "the request is there")
        served.send(number)
        until(lambda: served.get("/health/ready").json()["status"] == "stopping", "it drains")
        served.send(number)
        assert served.exit_status() == 128 + number
        lost = answers[0].exception() or answers[0].result()
        assert isinstance(lost, httpx.TransportError) or lost.status_code == 503
    assert "unanswered" in served.err


def test_a_second_signal_that_loses_nothing_is_no_failure(forker: Forker, tmp_path: Path) -> None:
    served = forker.serve(tmp_path, *PATIENT)
    served.until_printed("Ready.")
    served.send(signal.SIGTERM)
    until(lambda: served.get("/health/ready").json()["status"] == "stopping", "it drains")
    served.send(signal.SIGTERM)
    assert served.exit_status() == 0


def test_a_server_is_ready_when_what_images_need_is_loaded_too(
    forker: Forker, tmp_path: Path
) -> None:
    (tmp_path / "loading").touch()
    served = forker.serve(tmp_path, "--drain-delay-s", "0")
    until(lambda: "still being loaded" in served.get("/health/ready").text, "engines are up")
    assert served.get("/health/ready").status_code == 503
    served.remove("loading")
    served.until_printed("Ready.")
    assert served.get("/health/ready").status_code == 200
    served.send(signal.SIGTERM)
    assert served.exit_status() == 0


def test_a_server_without_what_images_need_says_so_and_serves_texts(
    forker: Forker, tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    served = forker.serve(
        tmp_path, "--drain-delay-s", "0", "--otlp-endpoint", "http://me:secret@127.0.0.1:1/x"
    )
    served.until_printed("Ready.")
    answer = httpx.post(f"{served.url}/v1/embeddings", json=BODY, trust_env=False)
    assert answer.status_code == 200
    served.send(signal.SIGTERM)
    assert served.exit_status() == 0
    assert "What images need cannot be loaded" in served.err
    assert 'otlp_endpoint = "http://***@127.0.0.1:1/x"' in served.out
    assert "secret" not in served.out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("redis://cache:6379/3", "redis://cache:6379/3"),
        ("redis://:secret@cache:6379/3", "redis://***@cache:6379/3"),
        ("rediss://me:se@cret@[::1]:6379/3?password=secret", "rediss://***@[::1]:6379/3"),
        ("redis://me:secret/secret@cache", "redis://***"),
        ("redis://me:secret?secret@cache", "redis://***"),
        ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
    ],
)
def test_urls_are_printed_without_what_they_keep_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_settings_are_printed_as_json(forker: Forker, tmp_path: Path) -> None:
    served = forker.serve(tmp_path, "--fetch-hosts", "a.example,b.example", "--drain-delay-s", "0")
    served.until_printed("Ready.")
    served.send(signal.SIGTERM)
    assert served.exit_status() == 0
    lines = [line.strip() for line in served.out.splitlines() if " = " in line]
    printed = {name: json.loads(value) for name, _, value in (ln.partition(" = ") for ln in lines)}
    assert printed["fetch_hosts"] == ["a.example", "b.example"]
    assert printed["limits_storage"] == "memory://"


def test_a_server_with_a_playground_says_where_it_is(forker: Forker, tmp_path: Path) -> None:
    served = forker.serve(tmp_path, "--playground", "--drain-delay-s", "0")
    served.until_printed(f"Or search in a browser: {served.url}/playground\n")
    assert served.get("/playground").status_code == 200
    served.send(signal.SIGTERM)
    assert served.exit_status() == 0
