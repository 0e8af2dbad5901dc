"""What HTTP costs: one process that embeds 64 texts a call, asked over HTTP and asked directly.

    python -m benchmarks.load.overhead --checkpoint OUT/retrieval --out overhead.json

Vectors come as floats, which is what a request that says nothing gets, and as base64, which OpenAI's own clients ask for.
The engine is the computable one, without a model, so what is compared is everything around it. The server runs in
this process and keeps its memory as `polyvec serve` does, and the client in another process. Rounds alternate;
texts per second of processor time of this process, so that the client does not count.
"""

import argparse
import asyncio
import dataclasses
import json
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from benchmarks.card import format_card, make_card
from benchmarks.load.client import Client, saturate
from benchmarks.load.in_process import InProcess, served, settle_process
from benchmarks.load.requests import KINDS, Dialect, Inputs, body

_WORKERS = 4
_DIRECT = "direct"
_KINDS = {"http": "text-64", "http-base64": "text-64-base64"}


def main() -> None:
    """Measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    card = make_card()
    print(format_card(card), flush=True)
    settle_process()
    rates = uvloop.run(_measure(options.checkpoint, options.rounds, options.seconds))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: medians[name] / medians[_DIRECT] for name in _KINDS}
    for name, values in rates.items():
        print(
            f"{name:<12} {medians[name]:9.0f} texts per second of processor time  {sorted(map(round, values))}"
        )
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} of what the same process reaches without HTTP")
    report = {
        "card": dataclasses.asdict(card),
        "texts_per_call": 64,
        "texts_per_cpu_s": rates,
        "ratio_of_medians": ratios,
    }
    line = json.dumps(report)
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


async def _measure(checkpoint: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    texts = Inputs(checkpoint, seed=7).draw(KINDS["text-64"], 64)
    rates: dict[str, list[float]] = {name: [] for name in (_DIRECT, *_KINDS)}
    async with served(checkpoint) as server:
        for number in range(rounds + 1):
            reached = {_DIRECT: await _direct(server, texts, seconds)}
            for name, kind in _KINDS.items():
                reached[name] = await _http(server.port, kind, texts, seconds)
            if number:  # the first round warms up
                for name, rate in reached.items():
                    rates[name].append(rate)
    return rates


async def _direct(server: InProcess, texts: list[list[str]], seconds: float) -> float:
    """Texts per second of processor time, as many calls at once as the client makes."""
    until = time.monotonic() + seconds
    num_texts = 0
    before = time.process_time()

    async def work(offset: int) -> None:
        nonlocal num_texts
        at = offset
        while time.monotonic() < until:
            batch = texts[at % len(texts)]
            await server.embed(batch)
            num_texts += len(batch)
            at += _WORKERS

    await asyncio.gather(*(work(offset) for offset in range(_WORKERS)))
    return num_texts / (time.process_time() - before)


async def _http(port: int, kind: str, texts: list[list[str]], seconds: float) -> float:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_client, args=(port, kind, texts, seconds, theirs))
    process.start()
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, mine.recv)  # it is about to begin
    before = time.process_time()
    num_texts = await loop.run_in_executor(None, mine.recv)
    rate = num_texts / (time.process_time() - before)
    process.join()
    return float(rate)


def _client(
    port: int,
    kind: str,
    texts: list[list[str]],
    seconds: float,
    parent: "Connection[object, object]",
) -> None:
    async def run() -> int:
        client = Client("127.0.0.1", port)
        bodies = [body(Dialect.POLYVEC, KINDS[kind], batch) for batch in texts]
        frames = [client.frame(one.path, one.data) for one in bodies]
        parent.send("begin")
        outcomes = await saturate(client, frames, _WORKERS, seconds)
        assert all(outcome.ok for outcome in outcomes), outcomes[0]
        return 64 * len(outcomes)

    parent.send(uvloop.run(run()))


if __name__ == "__main__":
    main()
