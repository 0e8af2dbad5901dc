import ipaddress

import pytest

from serving import EngineSettings, SettingsError
from serving.settings import ServerSettings, load_server_settings, load_settings


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


def test_a_servers_variable_may_stand_beside_an_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_PORT", "9000")
    monkeypatch.setenv("POLYVEC_MAX_BATCH_TOKENS", "4096")
    assert load_settings(None, dtype=None).max_batch_tokens == 4096
    settings = load_server_settings({"host": "::1"})
    assert (settings.port, settings.max_batch_tokens, settings.host) == (9000, 4096, "::1")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.com"])
def test_without_keys_nothing_but_loopback_is_bound(host: str) -> None:
    with pytest.raises(SettingsError, match=r"no keys.*polyvec keys add"):
        load_server_settings({"host": host})
    assert load_server_settings({"host": host, "allow_no_keys": True}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert ServerSettings(host=host).keys is None


@pytest.mark.parametrize("value", ["a.example, *.b.example", "a.example,*.b.example,"])
def test_lists_in_the_environment_have_commas(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("POLYVEC_FETCH_HOSTS", value)
    monkeypatch.setenv("POLYVEC_FETCH_PRIVATE_NETWORKS", "10.0.0.0/8,fd00::/8")
    settings = load_server_settings({})
    assert settings.fetch_hosts == ("a.example", "*.b.example")
    assert settings.fetch_private_networks == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("fd00::/8"),
    )


def test_lists_may_be_flags_commas_or_both() -> None:
    settings = load_server_settings({"fetch_hosts": ["a.example,b.example", "c.example"]})
    assert settings.fetch_hosts == ("a.example", "b.example", "c.example")


def test_an_empty_list_in_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_FETCH_HOSTS", "")
    assert load_server_settings({}).fetch_hosts == ()


def test_a_network_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_FETCH_PRIVATE_NETWORKS", "10.0.0.0/8,intranet")
    with pytest.raises(SettingsError, match=r"POLYVEC_FETCH_PRIVATE_NETWORKS.*'intranet'"):
        load_server_settings({})


def test_a_variable_like_no_setting_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_FOO", "1")
    with pytest.raises(SettingsError, match=r"^POLYVEC_FOO in the environment .* Unset it\.$"):
        load_settings(None, dtype=None)
