import pytest

from serving import EngineStartError
from serving.engine import start
from serving.engine.start import require_plugin


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
