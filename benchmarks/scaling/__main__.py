"""How far one ingress and one machine take replicas: throughput, tail and efficiency by their number.

    python -m benchmarks.scaling --checkpoint OUT/retrieval --out scaling.json

Engines are without a model and take a GPU's time (25 ms a page, 2 ms a batch of texts; `--page-ms` for slower ones, where
a machine has too few cores to feed many fast ones); everything else is real: Ray, HAProxy, ingress, replicas, HTTP clients. Efficiency is throughput divided by what that many engines could do by
their own times. The overhead of a cluster is that of one request at a time, against the single process, with engines
that take no time. It knows `serving.cluster` and `serving.http`: engines like these cannot be had otherwise.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from benchmarks.card import format_card, make_card
from benchmarks.load.requests import KINDS, Body, Dialect, Inputs, Kind, body
from benchmarks.scaling.client import Load, run_load
from benchmarks.scaling.engines import (
    PAGE_S,
    TEXT_BATCH_S,
    start_instant,
    start_timed,
)
from benchmarks.scaling.single import single_process
from serving.cluster.app import APPLICATION, cluster_application
from serving.cluster.front import apart, front_directory, front_environment
from serving.cluster.local import ray_session
from serving.cluster.replica import StartEngine
from serving.http.logs import configure_logs
from serving.http.server import bind
from serving.settings import ClusterSettings

_KINDS = {
    "page": Kind(4, None, 3, "base64"),
    "page-16": Kind(16, None, 3, "base64"),
    "text-64": dataclasses.replace(KINDS["text-64-base64"], num_workers=4),
}
_WARM_S = 3.0


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request at one number of replicas.

    Attributes:
        efficiency: items per second, divided by what the engines' own times allow.
        cpu_s: processor time of Ray, HAProxy, ingress and replicas, for each second.
    """

    kind: str
    num_replicas: int
    items_per_s: float
    efficiency: float
    cpu_s: float
    load: Load


def main() -> None:
    """Measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--kind", nargs="+", choices=_KINDS, default=["page", "text-64"])
    parser.add_argument("--page-ms", type=float, default=PAGE_S * 1000)
    parser.add_argument("--ingresses", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    card = make_card()
    print(format_card(card), flush=True)
    configure_logs("WARNING", "json")
    inputs = Inputs(options.checkpoint, seed=3)
    with single_process(options.checkpoint) as port:
        overhead = {"single process": _one_at_a_time(port, inputs, options.seconds)}
    rows: list[Row] = []
    with _cluster(max(options.replicas)) as deploy:
        port = deploy(options.checkpoint, 1, options.ingresses, start_instant)
        overhead["cluster"] = _one_at_a_time(port, inputs, options.seconds)
        for count in options.replicas:
            start = partial(start_timed, page_s=options.page_ms / 1000)
            port = deploy(options.checkpoint, count, options.ingresses, start)
            for name in options.kind:
                item_s = (
                    options.page_ms / 1000
                    if _KINDS[name].num_tokens is None
                    else TEXT_BATCH_S / _KINDS[name].num_items
                )
                rows.append(_measure(name, port, inputs, count, options.seconds, item_s))
                print(_line(rows[-1]), flush=True)
    for name, load in overhead.items():
        print(f"one text at a time, {name}: median {load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms")
    report = {
        "card": dataclasses.asdict(card) | {"ray": ray.__version__},
        "ingresses": options.ingresses,
        "page_s": options.page_ms / 1000,
        "text_batch_s": TEXT_BATCH_S,
        "rows": [dataclasses.asdict(row) for row in rows],
        "one_text_at_a_time": {name: dataclasses.asdict(load) for name, load in overhead.items()},
    }
    line = json.dumps(report)
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def _measure(
    name: str, port: int, inputs: Inputs, count: int, seconds: float, item_s: float
) -> Row:
    kind = _KINDS[name]
    bodies = _bodies(kind, inputs)
    before, started = _cluster_cpu_s(), time.monotonic()
    load = run_load(port, bodies, kind.num_workers * count, seconds, _WARM_S)
    cpu_s = (_cluster_cpu_s() - before) / (time.monotonic() - started)
    items_per_s = load.requests_per_s * kind.num_items
    return Row(name, count, items_per_s, items_per_s * item_s / count, cpu_s, load)


def _one_at_a_time(port: int, inputs: Inputs, seconds: float) -> Load:
    return run_load(port, _bodies(KINDS["text-1-base64"], inputs), 1, seconds, _WARM_S)


def _bodies(kind: Kind, inputs: Inputs) -> list[Body]:
    return [body(Dialect.POLYVEC, kind, items) for items in inputs.draw(kind, 64)]


def _line(row: Row) -> str:
    return (
        f"{row.kind:<8} {row.num_replicas:3d} replicas  {row.items_per_s:9.1f} items/s  "
        f"efficiency {row.efficiency:5.2f}  p50 {row.load.p50_ms:7.1f} ms  p99 {row.load.p99_ms:7.1f} ms  "
        f"{row.cpu_s:.2f} cores, client {row.load.client_cpu_s:.1f} s  failed {row.load.num_failed}"
    )


@contextmanager
def _cluster(most: int) -> Iterator[Callable[[Path, int, int, StartEngine], int]]:
    """Ray on this machine, with room for the most replicas."""
    settings = ClusterSettings(port=0, allow_no_keys=True)
    with bind(settings) as listener:
        port = int(listener.getsockname()[1])
    environment = front_environment(settings) | dict(apart(front_directory(port)))
    with ray_session(None, environment=environment, least_cpus=most + 8):
        serve.start(
            http_options=HTTPOptions(host="127.0.0.1", port=port),
            logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
        )

        def deploy(
            checkpoint: Path, num_replicas: int, num_ingresses: int, start: StartEngine
        ) -> int:
            wanted = ClusterSettings(
                port=port,
                min_replicas=(str(num_replicas),),
                ingress_replicas=num_ingresses,
                cpus_per_replica=0.5,
                cpus_per_ingress=0.5,
                server_log_level="WARNING",
            )
            app = cluster_application(checkpoint, None, wanted, start)
            serve.run(app, name=APPLICATION, route_prefix="/")
            return port

        try:
            yield deploy
        finally:
            serve.shutdown()


def _cluster_cpu_s() -> float:
    """Processor time of everything this process has started."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
