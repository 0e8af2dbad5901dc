"""What HTTP costs: one process that embeds 64 texts a call, asked over HTTP and asked directly.

    python -m benchmarks.load.overhead --checkpoint OUT/retrieval --out overhead.json

Vectors come as floats, which is what a request that says nothing gets, and as base64, which OpenAI's own clients ask for.
The engine is the computable one, without a model, so what is compared is everything around it. The server runs in
this process and keeps its memory as `polyvec serve` does, and the client in another process. What is counted is
texts per second of processor time of this process, so that the client does not count, between two moments at which
as many calls are on their way: one, so that the client waits while the server works, and four. Rounds are short and
alternate, because machines do not stay as fast as they were; the ratio is the median of the rounds'.
"""

import argparse
import asyncio
import dataclasses
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import uvloop

from benchmarks.card import format_card, make_card
from benchmarks.load.client import Client, saturate
from benchmarks.load.in_process import InProcess, served, settle_process
from benchmarks.load.requests import KINDS, Dialect, Inputs, body

_WARM_S = 0.3
_DIRECT = "direct"
_KINDS = {"http": "text-64", "http-base64": "text-64-base64"}

_Pipe: TypeAlias = "Connection[Any, Any]"
Rates: TypeAlias = dict[str, list[float]]
"""Of each way to be asked, one for each round."""


def main() -> None:
    """Measure, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4], metavar="CALLS")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if min(options.rounds, *options.at_once) < 1:
        parser.error("--rounds and --at-once count from 1")
    card = make_card()
    print(format_card(card), flush=True)
    settle_process()
    rates = uvloop.run(
        _measure(options.checkpoint, options.at_once, options.rounds, options.seconds)
    )
    measured = {}
    for at_once, by_way in rates.items():
        quartiles = _quartiles(by_way)
        measured[at_once] = {"texts_per_cpu_s": by_way, "quartiles_of_ratios": quartiles}
        print(f"{at_once} calls at once, texts per second of processor time:")
        for way, values in by_way.items():
            print(f"  {way:<12} {statistics.median(values):8.0f}")
        for way, (low, ratio, high) in quartiles.items():
            print(
                f"  {way}: {ratio:.3f} of what the same process reaches without HTTP ({low:.3f} to {high:.3f})"
            )
    report = {
        "card": dataclasses.asdict(card),
        "texts_per_call": 64,
        "calls_at_once": measured,
    }
    line = json.dumps(report)
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def _quartiles(rates: Rates) -> dict[str, list[float]]:
    """Of each way's ratio to the direct one, round by round."""
    found: dict[str, list[float]] = {}
    for way in _KINDS:
        ratios = np.divide(rates[way], rates[_DIRECT])
        found[way] = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return found


async def _measure(
    checkpoint: Path, at_once: Sequence[int], rounds: int, seconds: float
) -> dict[int, Rates]:
    texts = Inputs(checkpoint, seed=7).draw(KINDS["text-64"], 64)
    rates: dict[int, Rates] = {count: {way: [] for way in (_DIRECT, *_KINDS)} for count in at_once}
    async with served(checkpoint) as server:
        with _client(server.port, texts) as client:
            for number in range(rounds + 1):
                for count, by_way in rates.items():
                    reached = {_DIRECT: await _direct(server, texts, count, seconds)}
                    for way, kind in _KINDS.items():
                        reached[way] = await _http(client, kind, count, seconds)
                    if number:  # the first round warms up
                        for way, rate in reached.items():
                            by_way[way].append(rate)
    return rates


async def _direct(server: InProcess, texts: list[list[str]], at_once: int, seconds: float) -> float:
    """Texts per second of processor time, with as many calls at once as the client makes."""
    num_texts, is_over = 0, False

    async def work(offset: int) -> None:
        nonlocal num_texts
        at = offset
        while not is_over:
            batch = texts[at % len(texts)]
            await server.embed(batch)
            num_texts += len(batch)
            at += at_once

    workers = [asyncio.create_task(work(offset)) for offset in range(at_once)]
    await asyncio.sleep(_WARM_S)
    before, num_before = time.process_time(), num_texts
    await asyncio.sleep(seconds)
    rate = (num_texts - num_before) / (time.process_time() - before)
    is_over = True
    await asyncio.gather(*workers)
    return rate


async def _http(client: _Pipe, kind: str, at_once: int, seconds: float) -> float:
    """The same over HTTP."""
    receive = partial(asyncio.get_running_loop().run_in_executor, None, client.recv)
    client.send((kind, at_once, seconds))
    await receive()  # it has begun
    before = time.process_time()
    await receive()  # it is over
    spent_s = time.process_time() - before
    num_texts = await receive()
    assert isinstance(num_texts, int)
    return num_texts / spent_s


@contextmanager
def _client(port: int, texts: list[list[str]]) -> Iterator[_Pipe]:
    """A process that asks as it is told.

    A kind, calls at once and seconds go in; it says when that begins and is over, and how many texts were answered in
    between.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_ask, args=(port, texts, theirs))
    process.start()
    try:
        yield mine
    finally:
        mine.send(None)
        process.join()


def _ask(port: int, texts: list[list[str]], told: _Pipe) -> None:
    client = Client("127.0.0.1", port)
    frames: dict[str, list[bytes]] = {}
    for kind in _KINDS.values():
        bodies = [body(Dialect.POLYVEC, KINDS[kind], batch) for batch in texts]
        frames[kind] = [client.frame(one.path, one.data) for one in bodies]

    async def ask(kind: str, at_once: int, seconds: float) -> int:
        outcomes = await saturate(
            client,
            frames[kind],
            at_once,
            seconds,
            warm_s=_WARM_S,
            on_start=partial(told.send, "begun"),
            on_end=partial(told.send, "over"),
        )
        assert all(outcome.ok for outcome in outcomes), outcomes[0]
        return 64 * len(outcomes)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while (order := told.recv()) is not None:
            told.send(runner.run(ask(*order)))


if __name__ == "__main__":
    main()
