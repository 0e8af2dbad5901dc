import pytest

from serving import EngineSettings, SettingsError
from serving.settings import load_settings


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_MAX_BATCH_TOKENS", "4096")
    assert load_settings(None, dtype=None).max_batch_tokens == 4096
    given = EngineSettings(max_batch_tokens=1024)
    assert load_settings(given, dtype="float32").max_batch_tokens == 1024
    assert load_settings(given, dtype="float32").dtype == "float32"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("POLYVEC_DTYPE", "fp16", "POLYVEC_DTYPE in the environment.*'fp16'"),
        ("POLYVEC_MAX_BATCH_TOKENS", "0", "max_batch_tokens"),
        ("POLYVEC_MAX_PIXLES", "1", "Did you mean POLYVEC_MAX_PIXELS"),
    ],
)
def test_a_bad_or_unknown_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=says):
        load_settings(None, dtype=None)


def test_a_dtype_that_vllm_would_guess_is_refused() -> None:
    with pytest.raises(SettingsError, match="dtype"):
        load_settings(None, dtype="auto")  # type: ignore[arg-type]
