"""`polyvec serve` against `vllm serve` on the same merged checkpoint: latencies, throughput, processor time.

    python -m benchmarks.load --checkpoint OUT/retrieval --out load.json

Every round starts each server alone, in turn, in changing order. A first round finds each server's
highest throughput by kind of request; its figures set the rates of the open loop (`--share` of the
slowest server's) and are not reported. Servers see the same texts and pages in the same order.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.card import Card, format_card, make_card
from benchmarks.load import servers
from benchmarks.load.measure import (
    Target,
    first_vectors,
    idle_cpu,
    measure_open_loop,
    measure_saturation,
)
from benchmarks.load.offline import offline_cpu_ms
from benchmarks.load.report import (
    DEFINITIONS,
    Result,
    Row,
    format_table,
    summarise,
    to_json,
)
from benchmarks.load.requests import KINDS, Inputs, supports
from benchmarks.load.servers import Contender, Limits, Server
from benchmarks.null_model import use_null_model

_IDLE_S = 3.0
_FIRST_SEED = 999


@dataclass(slots=True)
class Run:
    """What has been measured so far.

    Attributes:
        tokens: tokens of one request, by kind, as the first server to answer says.
        first: vectors of the first request, by kind, of the first server to answer.
        difference: the largest `1 - cos` of any server's first answer from that, by server and kind.
        most: requests a second at saturation, by kind and server, from the first round.
    """

    tokens: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[np.ndarray]] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    most: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def main() -> None:
    """Run all rounds; prints the card, a line a measurement, the table and one line of JSON."""
    options = _parse()
    if options.null_model:
        use_null_model()
    card = make_card()
    print(format_card(card), flush=True)
    limits = Limits(dtype=options.dtype, max_tokens=options.max_tokens, compile=options.compile)
    contenders = [
        servers.CONTENDERS[name](options.checkpoint, limits) for name in options.contender
    ]
    offline = (
        offline_cpu_ms(options.checkpoint, _single(options.kind), limits) if options.offline else {}
    )
    for name, cpu_ms in offline.items():
        print(f"offline {name:<18} {cpu_ms:8.3f} ms of processor time an item", flush=True)
    run = Run()
    with tempfile.TemporaryDirectory(prefix="load-") as scratch:
        for number in range(options.rounds + 1):
            # In turn, so that none is always first or last.
            turn = contenders if number % 2 == 0 else list(reversed(contenders))
            for contender in turn:
                log = Path(scratch) / f"{contender.name}-{number}.log"
                with _running(contender, log, options) as target:
                    uvloop.run(_round(run, target, number, options))
                result = _result(run, card, offline, options)
                if options.out is not None and run.rows:
                    # After each, so that a run that is cut short keeps what it measured.
                    options.out.write_text(to_json(result) + "\n", encoding="utf-8")
    print(format_table(result.summaries, options.against))
    print(to_json(result))


def _result(run: Run, card: Card, offline: dict[str, float], options: argparse.Namespace) -> Result:
    return Result(
        card=dataclasses.replace(card, versions=card.versions | _more_versions()),
        checkpoint=options.checkpoint.parent.name + "/" + options.checkpoint.name,
        options=_recorded(options),
        definitions=DEFINITIONS,
        difference=run.difference,
        idle_cpu=run.idle,
        offline_cpu_ms=offline,
        summaries=summarise(run.rows, offline),
        rows=run.rows,
    )


@contextmanager
def _running(contender: Contender, log: Path, options: argparse.Namespace) -> Iterator[Target]:
    server = Server(contender, log, options.server_cpus)
    with server:
        took_s = server.wait_ready()
        print(f"{contender.name}: ready after {took_s:.1f} s", file=sys.stderr, flush=True)
        yield Target(contender.name, contender.dialect, servers.HOST, server.port, server.pid)


async def _round(run: Run, target: Target, number: int, options: argparse.Namespace) -> None:
    for kind_name in options.kind:
        if not supports(target.dialect, KINDS[kind_name]):
            continue
        await _compare(run, target, kind_name, options.checkpoint)
        row = await measure_saturation(
            target,
            kind_name,
            Inputs(options.checkpoint, seed=number),
            duration_s=options.seconds if number else options.seconds / 2,
            tokens_per_request=run.tokens[kind_name],
            round_number=number,
        )
        if number == 0:
            run.most.setdefault(kind_name, {})[target.name] = row.requests_per_s
            print(f"trial  {_line(row)}", flush=True)
            continue
        _keep(run, row)
        rate_per_s = options.share * min(run.most[kind_name].values())
        if rate_per_s > 0:
            row = await measure_open_loop(
                target,
                kind_name,
                Inputs(options.checkpoint, seed=1000 + number),
                rate_per_s=rate_per_s,
                duration_s=options.seconds,
                tokens_per_request=run.tokens[kind_name],
                round_number=number,
                seed=number,
            )
            _keep(run, row)
    if number:
        idle = await idle_cpu(target, _IDLE_S)
        run.idle[target.name] = max(idle, run.idle.get(target.name, 0.0))


async def _compare(run: Run, target: Target, kind_name: str, checkpoint: Path) -> None:
    """Ask once, before the clock runs, and note how far the vectors are from the first server's."""
    items = Inputs(checkpoint, seed=_FIRST_SEED).draw(KINDS[kind_name], 1)[0]
    found, tokens = await first_vectors(target, kind_name, items)
    run.tokens.setdefault(kind_name, tokens)
    expected = run.first.setdefault(kind_name, found)
    if any(ours.shape != theirs.shape for ours, theirs in zip(found, expected, strict=True)):
        return
    difference = max(_one_minus_cos(a, b) for a, b in zip(found, expected, strict=True))
    name = f"{target.name} {kind_name}"
    run.difference[name] = max(difference, run.difference.get(name, 0.0))


def _one_minus_cos(ours: np.ndarray, theirs: np.ndarray) -> float:
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return float(np.max(1 - np.sum(ours * theirs, axis=-1) / norms))


def _keep(run: Run, row: Row) -> None:
    run.rows.append(row)
    print(f"round {row.round} {_line(row)}", flush=True)


def _line(row: Row) -> str:
    latency = row.latency
    times = (
        "no answers"
        if latency is None
        else f"{1e3 * latency.p50_s:8.1f} {1e3 * latency.p99_s:8.1f} ms"
    )
    cpu = (
        ""
        if row.cpu is None or not row.num_items
        else f" {1e3 * row.cpu.total / row.num_items:7.3f} ms CPU"
    )
    return (
        f"{row.contender:<12} {row.kind:<18} {row.mode:<10} {row.items_per_s:9.1f} items/s"
        f" {times}{cpu} {row.answers}"
    )


def _single(kinds: list[str]) -> list[str]:
    return [name for name in kinds if not KINDS[name].multi]


def _recorded(options: argparse.Namespace) -> dict[str, str]:
    left_out = {"out", "checkpoint"}
    return {name: str(value) for name, value in vars(options).items() if name not in left_out}


def _more_versions() -> dict[str, str]:
    import importlib.metadata

    names = ("fastapi", "uvicorn", "uvloop", "httptools", "orjson")
    return {name: importlib.metadata.version(name) for name in names}


def _cpus(value: str) -> list[int]:
    return [int(part) for part in value.split(",")]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="one merged task")
    parser.add_argument(
        "--contender", nargs="+", choices=servers.CONTENDERS, default=["polyvec", "vllm"]
    )
    parser.add_argument(
        "--kind", nargs="+", choices=KINDS, default=["text-1", "text-8", "text-64", "page"]
    )
    parser.add_argument("--rounds", type=int, default=3, help="counted ones, after the trial round")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the slowest server's most, in the open loop"
    )
    parser.add_argument("--dtype", default=Limits().dtype)
    parser.add_argument("--max-tokens", type=int, default=Limits().max_tokens)
    parser.add_argument(
        "--compile", action="store_true", help="let the engines compile, as on a GPU"
    )
    parser.add_argument(
        "--server-cpus", type=_cpus, help="cores of the servers, as 0,1; all by default"
    )
    parser.add_argument("--against", default="vllm", help="the server that ratios are to")
    parser.add_argument(
        "--offline", action="store_true", help="measure the engine without a server first"
    )
    parser.add_argument(
        "--null-model", action="store_true", help="the checkpoint has no layers: shape null"
    )
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
