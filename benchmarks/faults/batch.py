"""A batch job that is killed at random times and started again: is every row there once?

    python -m benchmarks.faults.batch --merged OUT/retrieval --out benchmarks/results/batch-faults-cpu.json

The engine has fixed service times (`benchmarks/batch_job.py`). The command is killed with SIGKILL, without warning, some
time after it has written a file that was not there before, so that every run makes progress; then the output is compared
with the input. Ends in one line of JSON, and with 1 if a rule does not hold.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.batch_job import write_corpus
from benchmarks.card import Card, format_card, make_card
from benchmarks.faults.scenario import Verdict

_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    card: Card
    num_rows: int
    num_kills: int
    verdict: Verdict


def main() -> None:
    """Kill, resume, compare; prints the card, figures and rules, and one line of JSON."""
    options = _parse()
    card = make_card()
    print(format_card(card), flush=True)
    with tempfile.TemporaryDirectory(prefix="batch-faults-") as scratch:
        verdict = killed_and_resumed(
            options.merged, Path(scratch), options.rows, options.kills, options.seed
        )
    for name, value in verdict.figures.items():
        print(f"    {name:<32} {value}")
    for rule in verdict.rules:
        print(f"  {'ok  ' if rule.holds else 'FAIL'} {rule.text}: {rule.got}")
    line = json.dumps(asdict(Result(card, options.rows, options.kills, verdict)))
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)
    if not verdict.passed:
        raise SystemExit(1)


def killed_and_resumed(
    merged: Path, scratch: Path, num_rows: int, num_kills: int, seed: int
) -> Verdict:
    """Kill a job `num_kills` times, finish it, and judge the output."""
    source, output = write_corpus(scratch / "docs.jsonl", num_rows), scratch / "out"
    # Each run has this many files to make, and then some for the last one.
    rows_per_file = max(1, num_rows // (8 * (num_kills + 1)))
    command = [
        sys.executable, "-m", "benchmarks.batch_job", str(source), "--merged", str(merged),
        "--output", str(output), "--rows-per-file", str(rows_per_file), "--text-ms", "2",
    ]  # fmt: skip
    chance = random.Random(seed)
    started = time.monotonic()
    for kill in range(num_kills):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _wait_for_file(process, output)
            time.sleep(chance.uniform(0.0, 1.0))
            process.kill()
        print(f"  kill {kill + 1}: {_num_files(output)} files", flush=True)
    resumed = _num_files(output)
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return _judge(output, num_rows, finished.returncode, resumed, time.monotonic() - started)


def _judge(output: Path, num_rows: int, status: int, num_resumed: int, seconds: float) -> Verdict:
    verdict = Verdict("killed-and-resumed")
    counts: Counter[str] = Counter()
    for path in output.glob("part-*.parquet"):
        counts.update(pq.read_table(path, columns=["id"])["id"].to_pylist())
    rejected = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in (output / "_rejected").glob("*.jsonl")
    )
    wanted = {f"row-{n}" for n in range(num_rows)}
    missing, strange = wanted - counts.keys(), counts.keys() - wanted
    twice = sum(1 for count in counts.values() if count > 1)
    staged = len(list(output.glob(".part-*")))
    verdict.figures |= {
        "seconds": seconds,
        "files_before_the_last_run": float(num_resumed),
        "files": float(_num_files(output)),
    }
    verdict.rule("the last run succeeds", status == 0, status)
    verdict.rule("no row is missing", not missing, len(missing))
    verdict.rule("no row is there twice", twice == 0, twice)
    verdict.rule("no row is there that was not in the source", not strange, len(strange))
    verdict.rule("no row is rejected", rejected == 0, rejected)
    verdict.rule("nothing half-written is left", staged == 0, staged)
    return verdict


def _wait_for_file(process: "subprocess.Popen[bytes]", output: Path) -> None:
    before, deadline = _num_files(output), time.monotonic() + _LIMIT_S
    while _num_files(output) == before:
        if process.poll() is not None:
            raise RuntimeError(f"The job ended with {process.returncode} before it was killed.")
        if time.monotonic() > deadline:
            raise RuntimeError(f"The job wrote no file within {_LIMIT_S:g} s.")
        time.sleep(0.02)


def _num_files(output: Path) -> int:
    return len(list(output.glob("part-*.parquet")))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults.batch", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--merged", type=Path, required=True, help="one merged task")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
