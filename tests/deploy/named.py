"""Whether what deploy/ names exists in the code: commands with their flags, variables, arguments, metrics, labels."""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import ray
import typer
import typer.main
from prometheus_client.parser import text_string_to_metric_families
from typer.core import TyperGroup

from polyvec.cli import app
from serving.http.metrics import Metrics
from serving.http.record import InputCounts, RequestRecord, TokenCounts
from serving.http.stages import Stages
from serving.settings import BatchSettings, ClusterSettings

RAY = Path(ray.__file__).parent
VARIABLES = frozenset(
    f"POLYVEC_{name.upper()}"
    for settings in (ClusterSettings, BatchSettings)
    for name in settings.model_fields
)


def unknown_variables(text: str) -> set[str]:
    """Names like settings of polyvec that are none."""
    return set(re.findall(r"\bPOLYVEC_[A-Z0-9_]+\b", text)) - VARIABLES


class UnknownCommandError(Exception):
    """There is no such command or option, or an argument is missing."""


def parse_command(words: Sequence[str]) -> Mapping[str, Any]:
    """The parameters of a command of polyvec, as its own parser reads them; it is not run.

    Raises:
        UnknownCommandError: it would be refused.
    """
    assert words[0] == "polyvec", words
    command: Any = typer.main.get_command(app)
    names, rest = [words[0]], list(words[1:])
    while isinstance(command, TyperGroup):
        names.append(rest.pop(0) if rest else "")
        command = command.commands.get(names[-1])
        if command is None:
            raise UnknownCommandError(f"there is no command {' '.join(names)}")
    try:
        return dict(command.make_context(" ".join(names), rest).params)
    except _RefusedError as error:
        raise UnknownCommandError(error.format_message()) from error


# What typer's parser raises for a command line that is not right, which has no public name.
_RefusedError: Any = typer.BadParameter.__base__


def flags() -> set[str]:
    """Every option of every command."""
    return set(_flags(typer.main.get_command(app)))


def _flags(command: Any) -> Iterable[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from _flags(inner)


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a metric in an expression."""

    metric: str
    labels: frozenset[str]


def uses_in(expression: str) -> list[Use]:
    """The metrics of a PromQL expression, each with the labels it is selected or grouped by.

    Raises:
        ValueError: it is not PromQL.
    """
    # Grafana's variables stand for a duration and for values.
    plain = expression.replace("$__rate_interval", "5m")
    uses: list[Use] = []
    _collect(promql_parser.parse(plain), frozenset(), uses)
    return uses


def _collect(node: Any, grouped: frozenset[str], uses: list[Use]) -> None:
    match node:
        case promql_parser.VectorSelector():
            named = {matcher.name for matcher in node.matchers.matchers}
            uses.append(Use(node.name, frozenset(named | grouped)))
        case promql_parser.MatrixSelector():
            _collect(node.vector_selector, grouped, uses)
        case promql_parser.AggregateExpr():
            labels = frozenset(node.modifier.labels) if node.modifier else frozenset()
            _collect(node.expr, grouped | labels, uses)
        case promql_parser.BinaryExpr():
            _collect(node.lhs, grouped, uses)
            _collect(node.rhs, grouped, uses)
        case promql_parser.Call():
            for argument in node.args:
                _collect(argument, grouped, uses)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            _collect(node.expr, grouped, uses)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            pass
        case _:
            raise ValueError(f"{type(node).__name__} is not looked into: {node}")


def samples_of_polyvec(routes: Sequence[str], tasks: Sequence[str]) -> dict[str, frozenset[str]]:
    """Each sample that a server's /metrics has, with its labels."""
    metrics = Metrics("0", routes, tasks)
    for task in tasks:
        metrics.watch_task(
            task, queued_tokens=lambda: 0, running_tokens=lambda: 0, engine_up=lambda: True
        )
        metrics.observe_batch(task, 1, 1)
    metrics.watch_bodies(lambda: 0)
    metrics.observe_request(_request(routes[0], tasks[0]))
    page, _ = metrics.render(None)
    found: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, frozenset()) | frozenset(sample.labels)
    return found


def _request(route: str, task: str) -> RequestRecord:
    return RequestRecord(
        request_id="1",
        method="POST",
        route=route,
        status=200,
        seconds=1.0,
        stages=Stages(),
        task=task,
        inputs=InputCounts(text=1),
        tokens=TokenCounts(text=1),
    )


def gauges_of_ray() -> dict[str, frozenset[str]]:
    """Each gauge that Ray makes, by the name it is exported under, with the labels that its module names."""
    found: dict[str, frozenset[str]] = {}
    consts = _strings(RAY / "dashboard" / "consts.py")
    for path in (
        RAY / "serve/_private/deployment_state.py",
        RAY / "serve/_private/application_state.py",
        RAY / "dashboard/modules/reporter/reporter_agent.py",
    ):
        strings = _strings(path) | consts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(id="Gauge") | ast.Attribute(attr="Gauge"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    found[f"ray_{name}"] = strings
    return found


def _strings(path: Path) -> frozenset[str]:
    return frozenset(
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
