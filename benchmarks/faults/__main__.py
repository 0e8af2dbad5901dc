"""Faults against a real server: overload, slow clients, hang-ups, a killed engine, SIGTERM.

    python -m benchmarks.faults --checkpoint OUT/retrieval --out benchmarks/results/faults-cpu.json

One server is started and goes through the scenarios in this order; SIGTERM ends it. Prints figures and
rules, ends in one line of JSON, and exits with 1 if a rule does not hold.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from benchmarks.card import Card, format_card, make_card
from benchmarks.faults.engine_killed import engine_killed
from benchmarks.faults.hang_ups import hang_ups
from benchmarks.faults.overload import overload
from benchmarks.faults.scenario import Bounds, Setting, Verdict
from benchmarks.faults.slow_clients import slow_clients
from benchmarks.faults.termination import termination
from benchmarks.load import servers
from benchmarks.load.requests import Inputs
from benchmarks.load.servers import Contender, Limits, Server

SCENARIOS: dict[str, Callable[[Setting], Awaitable[Verdict]]] = {
    "overload": overload,
    "slow-clients": slow_clients,
    "hang-ups": hang_ups,
    "engine-killed": engine_killed,
    "termination": termination,
}


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    card: Card
    server: str
    bounds: Bounds
    verdicts: list[Verdict]


def run(
    contender: Contender, inputs: Inputs, bounds: Bounds, names: Sequence[str], log: Path
) -> list[Verdict]:
    """Start a server, run scenarios against it one after the other, and stop it."""
    verdicts = []
    with Server(contender, log) as server:
        server.wait_ready()
        setting = Setting(server, inputs, bounds)
        for name in names:
            verdict = uvloop.run(_one(SCENARIOS[name], setting))
            verdicts.append(verdict)
            print(format_verdict(verdict), flush=True)
            if server.exit_status is not None and name != names[-1]:
                print(f"The server has ended with {server.exit_status}.", file=sys.stderr)
                break
    return verdicts


def format_verdict(verdict: Verdict) -> str:
    """A scenario's figures and rules as lines of text."""
    lines = [f"{verdict.scenario}: {'passed' if verdict.passed else 'FAILED'}"]
    for name, value in verdict.figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        lines.append(f"    {name:<32} {shown}")
    for rule in verdict.rules:
        lines.append(f"  {'ok  ' if rule.holds else 'FAIL'} {rule.text}: {rule.got}")
    return "\n".join(lines)


def main() -> None:
    """Run the chosen scenarios."""
    options = _parse()
    card = make_card()
    print(format_card(card), flush=True)
    bounds = Bounds(seconds=options.seconds, deadline_s=options.deadline)
    contender = servers.CONTENDERS[options.server](options.checkpoint, Limits())
    if options.server == "polyvec":
        contender = dataclasses.replace(
            contender,
            environment={
                **contender.environment,
                "POLYVEC_REQUEST_TIMEOUT_S": str(bounds.deadline_s),
                "POLYVEC_UPLOAD_TIMEOUT_S": str(bounds.upload_timeout_s),
            },
        )
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        log = options.log or Path(scratch) / "server.log"
        inputs = Inputs(options.checkpoint, seed=0)
        verdicts = run(contender, inputs, bounds, options.scenario, log)
    line = json.dumps(asdict(Result(card, options.server, bounds, verdicts)))
    if options.out is not None:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)
    if not all(verdict.passed for verdict in verdicts):
        raise SystemExit(1)


async def _one(scenario: Callable[[Setting], Awaitable[Verdict]], setting: Setting) -> Verdict:
    return await scenario(setting)


def _parse() -> argparse.Namespace:
    bounds = Bounds()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="one merged task")
    parser.add_argument("--server", choices=servers.CONTENDERS, default="polyvec")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seconds", type=float, default=bounds.seconds, help="of load")
    parser.add_argument("--deadline", type=float, default=bounds.deadline_s, help="of a request")
    parser.add_argument("--log", type=Path, help="the server's output goes here")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
