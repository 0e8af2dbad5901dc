"""`polyvec keys` as a user meets it: exit status, stdout, stderr."""

import stat
from functools import partial
from pathlib import Path

import pytest

from serving.http.key_file import list_keys
from serving.http.keys import Keyring
from tests.cli.command import Polyvec


@pytest.fixture
def keys(polyvec: Polyvec) -> Polyvec:
    return partial(polyvec, "keys")


def test_add_prints_the_key_alone_and_it_opens_the_server(keys: Polyvec, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    done = keys(
        *("add", "alice", "--keys", path, "--requests-per-minute", 60),
        *("--tokens-per-minute", 1000, "--concurrency", 2),
    )
    assert done.returncode == 0, done.stderr
    key = done.stdout.removesuffix("\n")
    assert key == key.strip()
    assert key.startswith("pv-")
    assert key not in done.stderr
    assert "only time" in done.stderr
    caller = Keyring(path).authenticate(f"Bearer {key}")
    assert (caller.limits.requests_per_minute, caller.limits.tokens_per_minute) == (60, 1000)
    assert caller.limits.concurrency == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_list_shows_names_and_limits_and_no_hash(keys: Polyvec, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = [
        keys("add", "alice", "--keys", path, "--requests-per-minute", 60).stdout.strip(),
        keys("add", "a-longer-name", "--keys", path).stdout.strip(),
    ]
    done = keys("list", "--keys", path)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert [line.split()[0] for line in lines] == ["NAME", "alice", "a-longer-name"]
    assert lines[1].split()[-3:] == ["60", "-", "-"]
    assert lines[2].split()[-3:] == ["-", "-", "-"]
    secrets = [*made, *(stored.sha256.hex() for stored in list_keys(path))]
    assert len(secrets) == 4
    assert not any(secret in done.stdout for secret in secrets)


def test_remove_takes_the_key_out(keys: Polyvec, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys("add", "alice", "--keys", path)
    assert keys("remove", "alice", "--keys", path).returncode == 0
    assert list_keys(path) == ()
    again = keys("remove", "alice", "--keys", path)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("polyvec: keys.json has no key of that name.")


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "alice"],
        ["add", "--keys", "FILE"],
        ["add", "alice", "--keys", "FILE", "--concurrency", "0"],
        ["list"],
        ["remove", "alice"],
    ],
)
def test_a_wrong_call_is_a_usage_error_and_makes_nothing(
    keys: Polyvec, tmp_path: Path, arguments: list[str]
) -> None:
    path = tmp_path / "keys.json"
    done = keys(*(str(path) if argument == "FILE" else argument for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert not path.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "a b", "--keys", "FILE"],
        ["add", "alice", "--keys", "FILE/below/keys.json"],
        ["add", "alice", "--keys", "FILE", "--concurrency", "1" + "0" * 30],
        ["list", "--keys", "FILE"],
        ["remove", "alice", "--keys", "FILE"],
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(
    keys: Polyvec, tmp_path: Path, arguments: list[str]
) -> None:
    path = tmp_path / "keys.json"
    done = keys(*(argument.replace("FILE", str(path)) for argument in arguments))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("polyvec: ")
    assert done.stderr.count("\n") == 1
    assert not path.exists()
