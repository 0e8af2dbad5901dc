import sys
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import SCENARIOS, format_verdict, run
from benchmarks.faults.scenario import Bounds, Verdict
from benchmarks.load.requests import Dialect, Inputs
from benchmarks.load.servers import Contender
from tests.paths import GOLDEN_CHECKPOINT

STUB = Path(__file__).with_name("stub_server.py")

BOUNDS = Bounds(
    seconds=0.6,
    deadline_s=10.0,
    upload_timeout_s=0.2,
    slack_s=0.3,
    exit_s=15.0,
    notice_s=5.0,
    recover_s=10.0,
    drain_s=5.0,
    num_clients=30,
    num_slow=8,
)


def stub(*options: str) -> Contender:
    command = [sys.executable, str(STUB), "--port", "{port}", *options]
    return Contender("stub", Dialect.POLYVEC, command, "/health/ready")


def verdicts(tmp_path: Path, *names: str, options: tuple[str, ...] = ()) -> dict[str, Verdict]:
    inputs = Inputs(GOLDEN_CHECKPOINT, seed=0)
    found = run(stub(*options), inputs, BOUNDS, names, tmp_path / "log")
    return dict(zip(names, found, strict=True))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """All scenarios against a stub that does as it should, but never cuts off who sends slowly."""
    return verdicts(tmp_path_factory.mktemp("faults"), *SCENARIOS)


def failed(verdict: Verdict) -> list[str]:
    return [rule.text for rule in verdict.rules if not rule.holds]


def test_a_server_that_drains_loses_nothing(sound: dict[str, Verdict]) -> None:
    # On a busy machine the stub's short queue may be full just then, and it says 503; lost is nothing.
    assert set(failed(sound["termination"])) <= {
        "requests on their way at SIGTERM are answered with 200"
    }


@pytest.mark.parametrize("name", ["overload", "hang-ups", "engine-killed"])
def test_a_server_that_does_as_it_should_passes(sound: dict[str, Verdict], name: str) -> None:
    assert failed(sound[name]) == []
    assert sound[name].passed


def test_overload_is_refused_and_what_was_accepted_is_measured(sound: dict[str, Verdict]) -> None:
    answers = sound["overload"].figures["answers"]
    assert isinstance(answers, dict)
    assert answers["503"] > 0
    assert answers["200"] > 0
    assert "accepted_p99_s" in sound["overload"].figures


def test_a_server_that_keeps_slow_connections_fails_by_that_rule(
    sound: dict[str, Verdict],
) -> None:
    # Others' latencies are a rule of it too, which a busy machine may break.
    assert any(
        text.startswith("slow connections are cut off") for text in failed(sound["slow-clients"])
    )
    assert sound["slow-clients"].figures["left_open"] == BOUNDS.num_slow


def test_an_engine_was_killed_and_came_back(sound: dict[str, Verdict]) -> None:
    figures = sound["engine-killed"].figures
    assert figures["killed_processes"] == 1
    assert isinstance(figures["vectors_checked"], int)
    assert figures["vectors_checked"] > 0
    assert "vectors_after_s" in figures


def test_a_wrong_vector_fails(tmp_path: Path) -> None:
    # Wrong from the first restart on.
    found = verdicts(tmp_path, "engine-killed", options=("--wrong-after-restart",))
    assert failed(found["engine-killed"]) == ["no vector differs by more than 0.0001"]


def test_a_server_that_ends_at_once_on_sigterm_fails(tmp_path: Path) -> None:
    found = verdicts(tmp_path, "termination", options=("--abrupt", "--seconds", "0.05"))
    assert "requests on their way at SIGTERM are answered with 200" in failed(found["termination"])
    assert "its exit status is 0" in failed(found["termination"])


def test_a_verdict_is_printed_with_what_was_seen() -> None:
    verdict = Verdict("overload", figures={"rate_per_s": 12.3456, "answers": {"200": 3}})
    verdict.rule("it answers", False, 503)
    assert format_verdict(verdict).splitlines() == [
        "overload: FAILED",
        "    rate_per_s                       12.35",
        "    answers                          {'200': 3}",
        "  FAIL it answers: 503",
    ]
