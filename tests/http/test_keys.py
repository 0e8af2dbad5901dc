import base64
import hmac
import json
import multiprocessing
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import serving.http.keys
from serving.errors import SettingsError
from serving.http.caller import ANONYMOUS, UNLIMITED, Limits
from serving.http.errors import HttpError, body_of
from serving.http.key_file import add_key, list_keys, remove_key
from serving.http.keys import Keyring, OpenDoor, open_door


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def refused(keyring: Keyring, authorization: str | None) -> HttpError:
    with pytest.raises(HttpError) as caught:
        keyring.authenticate(authorization)
    assert caught.value.status == 401
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
    return caught.value


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_key_lets_its_holder_in_under_its_name_and_limits(path: Path) -> None:
    limits = Limits(requests_per_minute=60, tokens_per_minute=None, concurrency=4)
    alice, bob = add_key(path, "alice", limits), add_key(path, "bob", UNLIMITED)
    keyring = Keyring(path)
    assert keyring.authenticate(f"Bearer {alice}").name == "alice"
    assert keyring.authenticate(f"bEARER   {alice} ").limits == limits
    assert keyring.authenticate(f"Bearer {bob}").limits == UNLIMITED


def test_a_browser_gives_the_key_as_password(path: Path) -> None:
    key = add_key(path, "alice", UNLIMITED)
    keyring = Keyring(path)
    assert keyring.authenticate(basic("anyone", key)).name == "alice"
    assert keyring.authenticate(basic("", key)).name == "alice"
    assert refused(keyring, basic(key, "")).code == "AUTH_INVALID_FORMAT"


def test_keys_differ_and_are_long(path: Path) -> None:
    keys = {add_key(path, f"key{index}", UNLIMITED) for index in range(3)}
    assert len(keys) == 3
    assert all(key.startswith("pv-") and len(key) >= 35 for key in keys)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "AUTH_MISSING_API_KEY"),
        ("", "AUTH_MISSING_API_KEY"),
        ("  ", "AUTH_MISSING_API_KEY"),
        ("Bearer", "AUTH_INVALID_FORMAT"),
        ("Bearer ", "AUTH_INVALID_FORMAT"),
        ("Digest username=x", "AUTH_INVALID_FORMAT"),
        ("pv-without-a-scheme", "AUTH_INVALID_FORMAT"),
        ("Basic", "AUTH_INVALID_FORMAT"),
        ("Basic not*base64", "AUTH_INVALID_FORMAT"),
        ("Basic " + base64.b64encode(b"nocolon").decode(), "AUTH_INVALID_FORMAT"),
        ("Basic " + base64.b64encode(b"a:\xff\xfe").decode(), "AUTH_INVALID_FORMAT"),
        (basic("a", "ключ"), "AUTH_INVALID_API_KEY"),
        ("Bearer ключ", "AUTH_INVALID_FORMAT"),
        ("Bearer a\0b", "AUTH_INVALID_FORMAT"),
        ("Bearer \ud800", "AUTH_INVALID_FORMAT"),
        ("Bearer " + "x" * 1_000_000, "AUTH_INVALID_FORMAT"),
        ("Bearer pv-unknown", "AUTH_INVALID_API_KEY"),
        ("Bearer two words", "AUTH_INVALID_API_KEY"),
    ],
)
def test_every_other_header_is_401_with_its_code(
    path: Path, authorization: str | None, code: str
) -> None:
    add_key(path, "alice", UNLIMITED)
    assert refused(Keyring(path), authorization).code == code


@settings(deadline=None)
@given(authorization=st.text())
def test_no_header_gets_in_or_breaks_the_check(
    authorization: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed-keys.json"
    if not path.exists():
        add_key(path, "alice", UNLIMITED)
    refused(Keyring(path), authorization)
    refused(Keyring(path), f"Bearer {authorization}")


def test_a_key_is_in_no_answer_and_in_no_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    add_key(path, "alice", UNLIMITED)
    keyring = Keyring(path)
    for authorization in ("Bearer pv-secret", "Token pv-secret", basic("u", "pv-secret")):
        assert b"pv-secret" not in body_of(refused(keyring, authorization), "id")
    assert "pv-secret" not in caplog.text


def test_the_file_holds_hashes_and_no_keys(path: Path) -> None:
    key = add_key(path, "alice", Limits(tokens_per_minute=5))
    text = path.read_text("utf-8")
    assert key not in text
    assert key.removeprefix("pv-") not in text
    document = json.loads(text)
    assert document["version"] == 1
    assert document["keys"][0]["limits"] == {
        "requests_per_minute": None,
        "tokens_per_minute": 5,
        "concurrency": None,
    }


def test_a_key_is_compared_with_every_hash_wherever_it_stands(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [add_key(path, f"key{index}", UNLIMITED) for index in range(5)]
    keyring = Keyring(path)
    compared = 0
    compare = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        nonlocal compared
        compared += 1
        return compare(one, other)

    monkeypatch.setattr(serving.http.keys.hmac, "compare_digest", counting)
    for key in (keys[0], keys[4]):
        compared = 0
        keyring.authenticate(f"Bearer {key}")
        assert compared == 5
    compared = 0
    refused(keyring, "Bearer pv-unknown")
    assert compared == 5


def test_the_file_is_for_its_owner_alone_and_stays_stricter_if_it_was(path: Path) -> None:
    add_key(path, "first", UNLIMITED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    add_key(path, "second", UNLIMITED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o400)
    remove_key(path, "first")
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


def test_a_link_stays_a_link_when_its_file_changes(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    add_key(target, "first", UNLIMITED)
    path.symlink_to(target)
    add_key(path, "second", UNLIMITED)
    assert path.is_symlink()
    assert [key.name for key in list_keys(target)] == ["first", "second"]


def _add_some(path: Path, process: int) -> None:
    for index in range(8):
        add_key(path, f"key{process}-{index}", UNLIMITED)


def test_processes_that_add_at_once_lose_nothing(path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_add_some, args=(path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    expected = {f"key{process}-{index}" for process in range(3) for index in range(8)}
    assert {key.name for key in list_keys(path)} == expected


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b", "a\n", "x" * 65, "a\0"])
def test_a_name_that_could_not_be_logged_is_refused(path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="1 to 64"):
        add_key(path, name, UNLIMITED)
    assert not path.exists()


def test_a_name_is_given_once(path: Path) -> None:
    add_key(path, "alice", UNLIMITED)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="already"):
        add_key(path, "alice", UNLIMITED)
    assert path.read_bytes() == before


@pytest.mark.parametrize("limit", [0, -1, 10**30])
def test_a_limit_that_cannot_be_counted_is_refused(path: Path, limit: int) -> None:
    with pytest.raises(SettingsError, match="whole number"):
        add_key(path, "alice", Limits(tokens_per_minute=limit))
    assert not path.exists()


def test_a_directory_that_is_missing_is_named_as_the_trouble(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Create it first"):
        add_key(tmp_path / "no" / "keys.json", "alice", UNLIMITED)


def test_removing_takes_one_key_and_refuses_an_unknown_name(path: Path) -> None:
    add_key(path, "alice", UNLIMITED)
    add_key(path, "bob", UNLIMITED)
    remove_key(path, "alice")
    assert [key.name for key in list_keys(path)] == ["bob"]
    with pytest.raises(SettingsError, match="no key of that name"):
        remove_key(path, "alice")


RECORD = {"name": "a", "sha256": "0" * 64, "created": "2026-01-01T00:00:00Z", "limits": {}}
DAMAGED = [
    b"",
    b"{",
    b"\xff",
    b"[]",
    b'{"version": 1}',
    b'{"version": 2, "keys": []}',
    b'{"version": 1, "keys": [], "more": 1}',
    *(
        json.dumps({"version": 1, "keys": keys}).encode()
        for keys in (
            [RECORD | {"sha256": "pv-secret"}],
            [RECORD | {"name": "pv-secret\n"}],
            [RECORD | {"created": "pv-secret"}],
            [RECORD | {"limits": {"requests_per_minute": "5"}}],
            [RECORD | {"limits": {"requests_per_minute": 0}}],
            [RECORD | {"limits": {"requests_per_hour": 5}}],
            [RECORD, RECORD | {"sha256": "1" * 64}],
            [RECORD, RECORD | {"name": "b"}],
        )
    ),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_refused_at_the_start_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for refuse in (lambda: Keyring(path), lambda: add_key(path, "alice", UNLIMITED)):
        with pytest.raises(SettingsError, match="not a file of API keys") as caught:
            refuse()
        assert "pv-secret" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_record_that_is_whole_is_taken(path: Path) -> None:
    path.write_text(json.dumps({"version": 1, "keys": [RECORD]}), "utf-8")
    assert [key.name for key in list_keys(path)] == ["a"]


def test_a_file_that_is_missing_or_without_a_key_is_refused_at_the_start(path: Path) -> None:
    with pytest.raises(SettingsError, match="polyvec keys add"):
        Keyring(path)
    add_key(path, "alice", UNLIMITED)
    remove_key(path, "alice")
    with pytest.raises(SettingsError, match="polyvec keys add"):
        Keyring(path)


def test_added_and_removed_keys_work_without_a_restart(path: Path) -> None:
    clock = Clock()
    first = add_key(path, "first", UNLIMITED)
    keyring = Keyring(path, clock=clock)
    second = add_key(path, "second", UNLIMITED)
    assert refused(keyring, f"Bearer {second}").code == "AUTH_INVALID_API_KEY"
    clock.now_s += 1
    assert keyring.authenticate(f"Bearer {second}").name == "second"
    remove_key(path, "first")
    clock.now_s += 1
    refused(keyring, f"Bearer {first}")
    remove_key(path, "second")
    clock.now_s += 1
    refused(keyring, f"Bearer {second}")


@pytest.mark.parametrize("content", [b"{", None])
def test_a_file_damaged_later_keeps_the_last_good_keys_and_is_logged_once(
    path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    key = add_key(path, "alice", UNLIMITED)
    good = path.read_bytes()
    keyring = Keyring(path, clock=clock)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for _ in range(3):
        clock.now_s += 1
        assert keyring.authenticate(f"Bearer {key}").name == "alice"
    assert caplog.text.count("last good API keys") == 1
    assert str(path.parent) not in caplog.text
    path.write_bytes(good)
    remove_key(path, "alice")
    clock.now_s += 1
    refused(keyring, f"Bearer {key}")


def test_without_keys_everyone_is_anonymous_and_unlimited() -> None:
    door = open_door(None)
    assert isinstance(door, OpenDoor)
    assert door.authenticate(None) == door.authenticate("Bearer x") == ANONYMOUS
    assert ANONYMOUS.limits == UNLIMITED


def test_with_keys_only_they_open_the_door(path: Path) -> None:
    key = add_key(path, "alice", UNLIMITED)
    door = open_door(path)
    assert door.authenticate(f"Bearer {key}").name == "alice"
    with pytest.raises(HttpError):
        door.authenticate(None)
