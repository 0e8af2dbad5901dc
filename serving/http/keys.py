"""Who a request comes from: its `Authorization` header against the file of API keys.

`Bearer KEY` is what clients send. `Basic` with the key as password (any user name) is taken too, because a
browser can open `/docs` in no other way. Nothing here logs, returns or raises with a part of a key. Does not
know requests or routes, nor how use is counted.
"""

import base64
import binascii
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from serving.errors import SettingsError
from serving.http.caller import ANONYMOUS, Caller
from serving.http.errors import HttpError
from serving.http.key_file import FileVersion, KeyFile, hash_key, read_key_file, version_of

# Longer than any key, and short enough to be looked at for nothing.
_MAX_HEADER_CHARS = 1024
_RECHECK_S = 1.0

logger = logging.getLogger(__name__)


class OpenDoor:
    """Lets everyone in, under one name and without limits: a server without keys."""

    def authenticate(self, authorization: str | None) -> Caller:
        """`ANONYMOUS`, whatever the header says."""
        return ANONYMOUS


class Keyring:
    """The callers that a file of keys knows; the file is read again when it has changed.

    A file that is damaged or gone at a later reading changes nothing: the last good keys stay in force, and
    the log says so once. One that holds no key any more is good, and lets no one in.

    Args:
        path: file made by `polyvec keys add`.
        clock: seconds that only go forward; says when to look at the file again.

    Raises:
        SettingsError: the file is missing, damaged or without a key; says what to do.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        file = read_key_file(path)
        if not file.keys:
            raise SettingsError(
                f"{path.name} holds no key. Make one with: polyvec keys add NAME --keys FILE"
            )
        self._callers = _callers(file)
        self._seen: FileVersion | None = file.version
        self._next_look = clock() + _RECHECK_S

    def authenticate(self, authorization: str | None) -> Caller:
        """Whose key the value of an `Authorization` header holds.

        Raises:
            HttpError: 401, when it holds none that is known now.
        """
        self._look()
        presented = hash_key(_key_of(authorization))
        found: Caller | None = None
        # Every hash, whether or not one matched before: the time taken tells nothing.
        for stored, caller in self._callers:
            if hmac.compare_digest(stored, presented):
                found = caller
        if found is None:
            raise _unauthorized("AUTH_INVALID_API_KEY", "This API key is not known here. Check it.")
        return found

    def _look(self) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + _RECHECK_S
        version = version_of(self._path)
        if version == self._seen:
            return
        self._seen = version
        try:
            file = read_key_file(self._path)
        except SettingsError as error:
            logger.warning("The last good API keys stay in force. %s", error)
            return
        self._callers = _callers(file)
        self._seen = file.version
        logger.info("Read the API keys again: there are %d.", len(self._callers))


Door = Keyring | OpenDoor


def open_door(keys: Path | None) -> Door:
    """What decides who comes in: the file of keys, or no one where None.

    Raises:
        SettingsError: as `Keyring`.
    """
    return OpenDoor() if keys is None else Keyring(keys)


def _callers(file: KeyFile) -> tuple[tuple[bytes, Caller], ...]:
    return tuple((key.sha256, Caller(key.name, key.limits)) for key in file.keys)


def _key_of(authorization: str | None) -> str:
    header = (authorization or "").strip()
    if not header:
        raise _unauthorized(
            "AUTH_MISSING_API_KEY", "An API key is required. Send it as: Authorization: Bearer KEY"
        )
    scheme, _, credentials = header.partition(" ")
    if len(header) > _MAX_HEADER_CHARS or not (header.isascii() and header.isprintable()):
        raise _bad_format()
    match scheme.lower():
        case "bearer":
            key = credentials.strip()
        case "basic":
            key = _password(credentials.strip())
        case _:
            raise _bad_format()
    if not key:
        raise _bad_format()
    return key


def _password(credentials: str) -> str:
    try:
        # Some put a key in the place of the user name; only the password is looked at.
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        raise _bad_format() from None


def _bad_format() -> HttpError:
    return _unauthorized(
        "AUTH_INVALID_FORMAT",
        "The Authorization header has no API key that can be read. Send it as: Authorization: Bearer KEY",
    )


def _unauthorized(code: str, detail: str) -> HttpError:
    return HttpError(401, code, detail, headers={"WWW-Authenticate": "Bearer"})
