import pytest

from serving import EngineStartError
from serving.engine import start
from serving.engine.start import num_cpu_threads, require_plugin
from serving.settings import EngineSettings, ServerSettings


def test_the_model_is_found_where_polyvec_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    require_plugin()
    monkeypatch.setenv("VLLM_PLUGINS", "another,polyvec")
    require_plugin()


def test_plugins_that_leave_the_model_out_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    with pytest.raises(
        EngineStartError, match="Add polyvec to it, or load with pooling='external'"
    ):
        require_plugin()


def test_an_installation_older_than_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    monkeypatch.setattr(start, "entry_points", lambda **_: ())
    with pytest.raises(EngineStartError, match="Install it again"):
        require_plugin()


def test_a_model_on_a_cpu_leaves_cores_and_keeps_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert num_cpu_threads(0) == 8
    assert num_cpu_threads(1) == 7
    assert num_cpu_threads(9) == 1
    assert EngineSettings().reserved_cores == 0
    assert ServerSettings().reserved_cores == 1
