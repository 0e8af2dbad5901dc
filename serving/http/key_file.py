"""The file of API keys: names, hashes and limits.

    {"version": 1, "keys": [{"name": ..., "sha256": ..., "created": ..., "limits": {...}}]}

Changes are made under a lock and replace the file whole, so that a server reading it meanwhile sees the
old keys or the new ones. A key itself is shown once, when it is made, and stored nowhere. Only its SHA-256
is kept, unsalted and fast: salt and slowness protect passwords that can be guessed, and a key is 256 random
bits. Does not know requests or headers.
"""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.errors import SettingsError
from serving.http.caller import Limits

KEY_PREFIX = "pv-"
_KEY_BYTES = 32
_NAME = "[A-Za-z0-9._-]{1,64}"
_MODE = 0o600
_MAKE_ONE = "Make a key with: polyvec keys add NAME --keys FILE"

# Far above any use, and far below where Redis's 64-bit counters end.
_MAX_LIMIT = 10**15
_Limit = Annotated[int, Field(gt=0, le=_MAX_LIMIT)]


class _LimitsRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None
    concurrency: _Limit | None = None


class _KeyRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=f"^{_NAME}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    limits: _LimitsRecord


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: Literal[1]
    keys: tuple[_KeyRecord, ...]

    @model_validator(mode="after")
    def _forbid_twins(self) -> Self:
        for field in ("name", "sha256"):
            if len({getattr(key, field) for key in self.keys}) < len(self.keys):
                raise ValueError(f"two keys have the same {field}")
        return self


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key as the file has it.

    Attributes:
        name: who holds it.
        sha256: digest of the whole key, 32 bytes.
        created: when it was made.
        limits: what its holder may use.
    """

    name: str
    sha256: bytes
    created: datetime
    limits: Limits


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What changes when the file is replaced or written to."""

    mtime_ns: int
    num_bytes: int
    inode: int


@dataclass(frozen=True, slots=True)
class KeyFile:
    """All keys of one version of the file."""

    keys: tuple[StoredKey, ...]
    version: FileVersion


def hash_key(key: str) -> bytes:
    """What is stored of `key`, and what a presented key is compared by."""
    return hashlib.sha256(key.encode()).digest()


def version_of(path: Path) -> FileVersion | None:
    """The version that is there now; None when there is no file that can be looked at."""
    try:
        return _version(path.stat())
    except OSError:
        return None


def read_key_file(path: Path) -> KeyFile:
    """Every key of the file, which may be none.

    Raises:
        SettingsError: there is no such file, it cannot be read, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            # Of the open file, so that the version belongs to what is read.
            version = _version(os.fstat(file.fileno()))
            content = file.read()
    except FileNotFoundError:
        raise SettingsError(f"There is no file of keys {path.name}. {_MAKE_ONE}") from None
    except OSError as error:
        raise SettingsError(
            f"The file of keys {path.name} cannot be read: {error.strerror}."
        ) from None
    return KeyFile(_parse(path, content), version)


def list_keys(path: Path) -> tuple[StoredKey, ...]:
    """The keys in the order in which they were made.

    Raises:
        SettingsError: as `read_key_file`.
    """
    return read_key_file(path).keys


def add_key(path: Path, name: str, limits: Limits) -> str:
    """Make a key, store its hash in `path`, which is created if it is missing, and return the key.

    Raises:
        SettingsError: the name is taken or not allowed, a limit is not above zero, or the file is damaged or cannot be written.
    """
    if re.fullmatch(_NAME, name) is None:
        raise SettingsError(
            "A key's name is 1 to 64 of the characters A-Z a-z 0-9 . _ - and nothing else."
        )
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    created = datetime.now(UTC).replace(microsecond=0)
    with _locked(path) as target:
        keys = list_keys(target) if target.exists() else ()
        if any(stored.name == name for stored in keys):
            raise SettingsError(
                f"{path.name} has a key named {name} already. Choose another name, or remove that key first."
            )
        _write(target, [*keys, StoredKey(name, hash_key(key), created, limits)])
    return key


def remove_key(path: Path, name: str) -> None:
    """Take the key out of the file; a running server refuses it within about a second.

    Raises:
        SettingsError: there is no such key, or the file is missing, damaged or cannot be written.
    """
    with _locked(path) as target:
        keys = list_keys(target)
        left = [stored for stored in keys if stored.name != name]
        if len(left) == len(keys):
            raise SettingsError(
                f"{path.name} has no key of that name. See: polyvec keys list --keys FILE"
            )
        _write(target, left)


def _version(status: os.stat_result) -> FileVersion:
    return FileVersion(status.st_mtime_ns, status.st_size, status.st_ino)


def _parse(path: Path, content: bytes) -> tuple[StoredKey, ...]:
    try:
        document = _Document.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"{part}." for part in first["loc"])[:-1] or "the whole file"
        raise SettingsError(
            f"{path.name} is not a file of API keys: {where}: {first['msg']}. "
            "Restore it, or move it away and make the keys again with: polyvec keys add"
        ) from None  # what it holds shall be in no traceback
    return tuple(
        StoredKey(
            name=record.name,
            sha256=bytes.fromhex(record.sha256),
            created=record.created,
            limits=Limits(**record.limits.model_dump()),
        )
        for record in document.keys
    )


def _record(key: StoredKey) -> _KeyRecord:
    try:
        limits = _LimitsRecord(
            requests_per_minute=key.limits.requests_per_minute,
            tokens_per_minute=key.limits.tokens_per_minute,
            concurrency=key.limits.concurrency,
        )
    except ValidationError:
        raise SettingsError(f"A limit is a whole number from 1 to {_MAX_LIMIT}.") from None
    return _KeyRecord(name=key.name, sha256=key.sha256.hex(), created=key.created, limits=limits)


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """The file that `path` leads to, with its directory locked; its trouble becomes a SettingsError."""
    try:
        target = path.resolve()
        # The file is replaced, so a lock on it would be on what was; the directory leaves nothing behind.
        fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield target
            os.fsync(fd)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise SettingsError(
            f"The directory of {path.name} does not exist. Create it first."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"The file of keys {path.name} cannot be changed: {error.strerror}."
        ) from None


def _write(path: Path, keys: Sequence[StoredKey]) -> None:
    document = _Document(version=1, keys=tuple(map(_record, keys)))
    staging = path.with_name(f".{path.name}.partial")
    try:
        fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with os.fdopen(fd, "wb") as file:
            _protect(fd, path)
            file.write(document.model_dump_json(indent=2).encode() + b"\n")
            file.flush()
            os.fsync(fd)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _protect(fd: int, path: Path) -> None:
    """Give the new file the old one's owner, and its mode where that is stricter than 0600."""
    mode = _MODE
    if path.exists():
        old, new = path.stat(), os.fstat(fd)
        mode &= old.st_mode
        # Else root's `polyvec keys` would lock out the user that the server runs as.
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, mode)
