"""What HTTP costs in instructions, which are the same in every run, as times on a shared machine are not.

    python -m benchmarks.load.instructions --checkpoint OUT/retrieval --kind text-64

The same comparison as `benchmarks.load.overhead`, one call after the other, under callgrind (Debian's package
valgrind). It counts this process's instructions outside the kernel; what they take is for the processor's caches to
say. The tokenizer stays on one thread: instructions that its threads wait with are not the same in every run.
"""

import argparse
import asyncio
import dataclasses
import http.client
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from benchmarks.card import format_card, make_card
from benchmarks.load.in_process import InProcess, served, settle_process
from benchmarks.load.requests import KINDS, Dialect, Inputs, body

_NUM_BODIES = 16
_WARM_CALLS = 3
_INSIDE = "POLYVEC_IS_COUNTED"
_TEXTS = sorted(name for name, kind in KINDS.items() if kind.num_tokens and not kind.multi)


def main() -> None:
    """Count, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--kind", choices=_TEXTS, default="text-64")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if _INSIDE in os.environ:
        settle_process()
        uvloop.run(_run(options.checkpoint, options.kind, options.calls))
        return
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed; on Debian: apt-get install valgrind")
    card = make_card()
    print(format_card(card), flush=True)
    counts = {name: count / options.calls for name, count in _under_callgrind().items()}
    for name, count in counts.items():
        print(f"{name:<8} {count / 1e6:9.3f} million instructions a call of {options.kind}")
    ratio = counts["direct"] / counts["http"]
    print(f"over HTTP: {ratio:.3f} of the calls for as many instructions")
    report = {
        "card": dataclasses.asdict(card),
        "kind": options.kind,
        "calls": options.calls,
        "instructions_per_call": counts,
        "ratio": ratio,
    }
    line = json.dumps(report)
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def _under_callgrind() -> dict[str, int]:
    """Run this command again, counted; instructions by what was done."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {_INSIDE: "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"),
            f"--callgrind-out-file={folder}/counts",
            *(sys.executable, "-m", "benchmarks.load.instructions", *sys.argv[1:]),
        ]
        subprocess.run(command, env=environment, check=True)
        return read_counts(Path(folder))


def read_counts(folder: Path) -> dict[str, int]:
    """Instructions of each dump that callgrind has written into `folder`, by the name it was asked for with."""
    found = {}
    for path in folder.glob("counts.*"):
        text = path.read_text(encoding="utf-8", errors="replace")
        trigger = re.search(r"^desc: Trigger: dump (\w+)$", text, re.MULTILINE)
        summary = re.search(r"^summary: (\d+)$", text, re.MULTILINE)
        if trigger and summary:
            found[trigger[1]] = int(summary[1])
    return found


async def _run(checkpoint: Path, kind: str, calls: int) -> None:
    texts = Inputs(checkpoint, seed=7).draw(KINDS[kind], _NUM_BODIES)
    async with served(checkpoint) as server:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        client = context.Process(target=_client, args=(server.port, kind, texts, theirs))
        client.start()
        loop = asyncio.get_running_loop()

        async def over_http(number: int) -> None:
            mine.send(number)
            await loop.run_in_executor(None, mine.recv)

        await _direct(server, texts, _WARM_CALLS)
        await over_http(_WARM_CALLS)
        _control("-i", "on")
        await _direct(server, texts, 1)
        _control("-z")
        await _direct(server, texts, calls)
        _control("-d", "direct")
        await over_http(1)
        _control("-z")
        await over_http(calls)
        _control("-d", "http")
        _control("-i", "off")
        mine.send(0)
        client.join()


async def _direct(server: InProcess, texts: list[list[str]], number: int) -> None:
    for at in range(number):
        await server.embed(texts[at % len(texts)])


def _control(*arguments: str) -> None:
    subprocess.run(
        ["callgrind_control", *arguments, str(os.getpid())], check=True, stdout=subprocess.DEVNULL
    )


def _client(
    port: int, kind: str, texts: list[list[str]], parent: "Connection[object, int]"
) -> None:
    bodies = [body(Dialect.POLYVEC, KINDS[kind], batch) for batch in texts]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    while number := parent.recv():
        for at in range(number):
            one = bodies[at % len(bodies)]
            connection.request("POST", one.path, one.data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        parent.send(number)


if __name__ == "__main__":
    main()
