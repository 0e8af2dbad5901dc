"""Items per second of a task: polyvec, the published vLLM recipe, and transformers with unmerged adapters.

    python -m benchmarks.throughput --merged OUT --task retrieval

With the `null` shape, whose model is a lookup and nothing else, what is measured is everything but the
model: add `--null-model`.

Every contender runs alone, in a process of its own, over the same texts and pages, and goes from Python
strings and decoded images to vectors in memory. What is measured is one call over all items of a
workload, after a warm-up call, several times; the table gives medians and the distance to two limits
measured in the same run: the model's arithmetic at the speed of a large matrix product, and the processor
time of bare tokenising, or of bare resizing and normalising.
It deliberately knows nothing of polyvec's insides.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.card import Card, format_card, make_card
from benchmarks.checkpoint import dtype_name, item_tokens
from benchmarks.contenders import CONTENDERS
from benchmarks.flops import read_flops
from benchmarks.limits import bare_ms, matmul_flops_per_s, matmul_size, null_model_ms
from benchmarks.null_model import use_null_model
from benchmarks.turns import Turns, UnavailableError, read_turns, write_turns
from benchmarks.workloads import TEMPLATE_TOKENS, WORKLOADS


@dataclass(frozen=True, slots=True)
class Row:
    """One contender on one workload.

    Attributes:
        seconds: wall time of each counted call.
        items_per_s: items over the median of `seconds`.
        of_limit: arithmetic done per second over that of a bare matrix product; 0 to 1.
        cpu_ms_per_item: processor time of all processes, median.
        feeding_ms_per_item: the part of it that is not vLLM's processes', median.
        bare_ms_per_item: processor time of bare preparation.
        model_ms_per_item: processor time of the null model's own arithmetic; None of another model.
    """

    contender: str
    workload: str
    num_items: int
    tokens_per_item: int
    seconds: list[float]
    items_per_s: float
    of_limit: float
    cpu_ms_per_item: float
    feeding_ms_per_item: float
    bare_ms_per_item: float
    model_ms_per_item: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """One run of the benchmark.

    Attributes:
        unavailable: why, by contender that could not run here.
    """

    card: Card
    shape: str
    task: str
    matmul_flops_per_s: float
    matmul_dtype: str
    null_model: bool
    rows: list[Row]
    unavailable: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Floor:
    """What an item costs at least, by workload; measured before and after a contender, as machines drift."""

    bare: Mapping[str, float]
    model: Mapping[str, float]

    def mean(self, other: "_Floor") -> "_Floor":
        return _Floor(
            {name: (value + other.bare[name]) / 2 for name, value in self.bare.items()},
            {name: (value + other.model[name]) / 2 for name, value in self.model.items()},
        )


def _floor(options: argparse.Namespace) -> _Floor:
    checkpoint = options.merged / options.task
    floor = _Floor(
        bare_ms(checkpoint, options.workload),
        null_model_ms(checkpoint, options.workload) if options.null_model else {},
    )
    for kind, milliseconds in (("bare", floor.bare), ("model", floor.model)):
        for name, value in milliseconds.items():
            print(f"{kind:<12} {value:.3f} ms of one core an item, {name}", flush=True)
    return floor


def main() -> None:
    """Run every contender and print the card, the table and one line of JSON."""
    options = _parse()
    if options.child is not None:
        write_turns(options.child_out, lambda: CONTENDERS[options.child](options))
        return
    if options.null_model:
        use_null_model()
    card = make_card()
    print(format_card(card))
    checkpoint, size = options.merged / options.task, matmul_size()
    limit, dtype = matmul_flops_per_s(checkpoint), dtype_name(checkpoint)
    print(f"limit        {limit / 1e12:.3f} TFLOP/s, {dtype} matrix product of {size} x {size}")
    before = _floor(options)
    result = Result(card, options.shape, options.task, limit, dtype, options.null_model, [], {})
    for contender in options.contender:
        try:
            measured = _run(contender)
            after = _floor(options)
            rows = _rows(contender, measured, options, limit, before.mean(after))
            before = after
        except UnavailableError as reason:
            result.unavailable[contender] = str(reason)
            print(f"{contender:<22} not available here: {reason}", flush=True)
            rows = []
        result.rows.extend(rows)
        for row in rows:
            print(_line(row), flush=True)
        line = json.dumps(asdict(result))
        if options.out is not None:
            # After each, so that a run that is cut short keeps what it measured.
            options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


def _run(contender: str) -> Turns:
    with tempfile.TemporaryDirectory() as scratch:
        # Engines print what they like; the result does not stand among it.
        out = Path(scratch) / "turns.json"
        command = [sys.executable, "-m", "benchmarks.throughput", *sys.argv[1:]]
        done = subprocess.run(
            [*command, "--child", contender, "--child-out", str(out)],
            stdout=sys.stderr,
            check=False,
        )
        if done.returncode != 0:
            print(f"{contender}: failed with status {done.returncode}", file=sys.stderr)
            if not out.exists():
                return {}
            # Everything was measured: vLLM's own processes sometimes abort when the interpreter ends.
        return read_turns(out)


def _rows(
    contender: str,
    measured: Turns,
    options: argparse.Namespace,
    limit: float,
    floor: _Floor,
) -> list[Row]:
    checkpoint = options.merged / options.task
    flops = read_flops(checkpoint)
    rows = []
    for name, turns in measured.items():
        seconds = [turn.seconds for turn in turns]
        workload = WORKLOADS[name]
        num_items = workload.num_items(options.scale)
        num_tokens = item_tokens(checkpoint, workload)
        per_item = (
            flops.image(num_tokens, num_tokens - TEMPLATE_TOKENS)
            if workload.is_page
            else flops.text(num_tokens)
        )
        rate = num_items / statistics.median(seconds)
        rows.append(
            Row(
                contender,
                name,
                num_items,
                num_tokens,
                seconds,
                items_per_s=rate,
                of_limit=rate * per_item / limit,
                cpu_ms_per_item=1e3 * statistics.median(t.cpu_seconds for t in turns) / num_items,
                feeding_ms_per_item=1e3
                * statistics.median(t.feeding_seconds for t in turns)
                / num_items,
                bare_ms_per_item=floor.bare[name],
                model_ms_per_item=floor.model.get(name),
            )
        )
    return rows


def _line(row: Row) -> str:
    spread = f"{min(row.seconds):.2f}-{max(row.seconds):.2f} s"
    return (
        f"{row.contender:<22} {row.workload:<14} {row.items_per_s:>10.1f} items/s"
        f" {row.items_per_s * row.tokens_per_item:>12.0f} tokens/s"
        f" {row.of_limit:>7.1%} of the limit {row.cpu_ms_per_item:>9.3f} ms of processor an item,"
        f" {row.cpu_ms_per_item / row.bare_ms_per_item:.1f}x bare,"
        f" {row.feeding_ms_per_item:.3f} of them outside vLLM's processes   ({row.num_items} items, {spread})"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--merged", type=Path, required=True, help="what polyvec merge wrote of it")
    parser.add_argument("--task", default="retrieval")
    parser.add_argument("--shape", default="full", help="name of the shape, for the record")
    parser.add_argument("--contender", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument(
        "--null-model", action="store_true", help="the checkpoint has no layers: shape null"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="items, times this")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--child-out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
