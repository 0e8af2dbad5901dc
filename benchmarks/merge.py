"""How fast and in how much memory three adapters are merged, beside cp, PEFT and the floor.

    python -m benchmarks.merge --workdir DIR [--shape full] [--rounds 3]

Builds a synthetic checkpoint under DIR (full: 8 GB, and 23 GB more while it runs), then lets the
contestants take turns in every round, each with the base in the page cache, then each with it
dropped. A contestant is a process of its own; its time is what it says of its own work, after
imports, and ends when everything is on disk. What each does is written in merge_contestants.
Deliberately knows nothing of vectors; nothing here says whether a merge is right.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.card import format_card, make_card
from benchmarks.synthetic import SHAPES, build

RESULTS = Path(__file__).parent / "results"
TASKS = 3
PEFT_TASKS = 1

LABELS = {
    "ours": "polyvec merge, three tasks",
    "cp": "cp of the base's weights, three times, and sync",
    "floor": "copy only: the merge's reads, writes and links",
    "ours-cold": "polyvec merge, three tasks, base not in the page cache",
    "cp-cold": "cp three times and sync, base not in the page cache",
    "peft": "PEFT merge_and_unload and save_pretrained, one task",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One contestant's turn."""

    seconds: float
    process_s: float
    bytes_written: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """A contestant's turns: medians, and the least time."""

    name: str
    median_s: float
    least_s: float
    median_process_s: float
    gb_written: float
    peak_gb: float
    turns_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio and the bound it should stay under, or reach."""

    name: str
    value: float
    bound: float
    is_met: bool


def measure(name: str, source: Path, workdir: Path) -> Run:
    """Gives one contestant its turn and clears up after it."""
    out = workdir / "out"
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    _fill_page_cache(source)
    if name.endswith("-cold"):
        _empty_page_cache(source)
    contestant = name.removesuffix("-cold")
    command = [sys.executable, "-m", "benchmarks.merge_contestants", contestant]
    result = subprocess.run(
        [*command, str(source), str(out)], check=True, stdout=subprocess.PIPE, text=True
    )
    run = Run(**json.loads(result.stdout.splitlines()[-1]))
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    return run


def _fill_page_cache(source: Path) -> None:
    for path in sorted(source.rglob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            memory = bytearray(16 << 20)
            while file.readinto(memory):
                pass


def _empty_page_cache(source: Path) -> None:
    """Drops the source's own pages, which needs no privilege."""
    os.sync()
    for path in sorted(source.rglob("*.safetensors")):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def row(name: str, runs: list[Run]) -> Row:
    """The table's line for one contestant."""
    return Row(
        name=name,
        median_s=round(statistics.median(run.seconds for run in runs), 2),
        least_s=round(min(run.seconds for run in runs), 2),
        median_process_s=round(statistics.median(run.process_s for run in runs), 2),
        gb_written=round(runs[0].bytes_written / 1e9, 2),
        peak_gb=round(max(run.peak_bytes for run in runs) / 1e9, 2),
        turns_s=tuple(round(run.seconds, 2) for run in runs),
    )


def goals(rows: dict[str, Row]) -> list[Goal]:
    """Distance to what was set out to be reached."""
    ours, cold = rows["ours"].median_s, rows["ours-cold"].median_s
    peft_s = TASKS / PEFT_TASKS * rows["peft"].median_s if "peft" in rows else None
    found = [
        _at_most("time / cp", ours / rows["cp"].median_s, 0.75),
        _at_most("time / cp, cold", cold / rows["cp-cold"].median_s, 0.5),
        _at_most("peak GB", max(rows["ours"].peak_gb, rows["ours-cold"].peak_gb), 1.0),
    ]
    if peft_s is not None:
        faster = round(peft_s / ours, 2)
        found.append(Goal("times faster than PEFT, three tasks", faster, 8.0, faster >= 8.0))
    return found


def _at_most(name: str, value: float, bound: float) -> Goal:
    return Goal(name, round(value, 3), bound, value <= bound)


def show(rows: dict[str, Row], reached: list[Goal]) -> None:
    """Prints the table and the distances."""
    print(f"\n{'':58} median s  least s  process s  GB written  peak GB")
    for each in rows.values():
        print(
            f"{LABELS[each.name]:58} {each.median_s:8.2f} {each.least_s:8.2f} "
            f"{each.median_process_s:10.2f} {each.gb_written:11.2f} {each.peak_gb:8.2f}"
        )
    if "peft" in rows:
        extrapolated = TASKS / PEFT_TASKS * rows["peft"].median_s
        print(f"{'PEFT, three tasks (three times the above, not run)':58} {extrapolated:8.2f}")
    over = rows["ours"].median_s / rows["floor"].median_s
    print(f"\nours / floor {over:.2f}")
    for goal in reached:
        state = "met" if goal.is_met else "NOT met"
        print(f"{goal.name}: {goal.value:g}, goal {goal.bound:g}: {state}")


def main() -> None:
    """Builds, measures, prints, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="for inputs and outputs")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-peft", action="store_true", help="leave the slowest out")
    arguments = parser.parse_args()

    source = arguments.workdir / f"synthetic-{arguments.shape}"
    if not source.exists():
        build(source, SHAPES[arguments.shape])
    card = make_card()
    print(format_card(card))
    print(f"shape        {arguments.shape}\nrounds       {arguments.rounds}, contestants in turn")
    # One turn of no account: the first to touch idle memory pays for everybody.
    measure("ours", source, arguments.workdir)
    runs: dict[str, list[Run]] = {}
    for number in range(arguments.rounds):
        for name in ("cp", "ours", "floor", "cp-cold", "ours-cold"):
            run = measure(name, source, arguments.workdir)
            runs.setdefault(name, []).append(run)
            print(f"round {number + 1}  {name:10} {run.seconds:7.2f} s", flush=True)
    if not arguments.without_peft:
        runs["peft"] = [measure("peft", source, arguments.workdir)]
    rows = {name: row(name, runs[name]) for name in LABELS if name in runs}
    reached = goals(rows)
    show(rows, reached)
    result = {
        "benchmark": "merge",
        "shape": arguments.shape,
        "rounds": arguments.rounds,
        "card": asdict(card),
        "rows": [asdict(each) for each in rows.values()],
        "goals": [asdict(goal) for goal in reached],
    }
    text = json.dumps(result)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"merge-{arguments.shape}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
