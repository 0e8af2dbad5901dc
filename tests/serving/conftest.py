import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watched engines are cancelled and restarted without waiting."""
    monkeypatch.setattr("serving.life._CANCEL_TIMEOUT_S", 0.05)
    monkeypatch.setattr("serving.supervisor._MAX_BACKOFF_S", 0.01)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run_scenario(scenario: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario)

    return run_scenario
