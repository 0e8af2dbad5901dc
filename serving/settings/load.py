"""Settings from arguments and the environment, refused by name where they are wrong."""

import difflib
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError as SourceError

from serving.errors import SettingsError
from serving.manifest import Dtype
from serving.settings.batch import BatchSettings
from serving.settings.cluster import ClusterSettings
from serving.settings.engine import PREFIX, EngineSettings
from serving.settings.server import ServerSettings

S = TypeVar("S", bound=EngineSettings)

API_KEY_VARIABLE = f"{PREFIX}API_KEY"
"""The key that polyvec's own clients send to a server: no setting, but no misspelt one either."""


def load_settings(settings: EngineSettings | None, *, dtype: Dtype | None) -> EngineSettings:
    """`settings`, or what the environment says where None; `dtype` wins over both.

    Raises:
        SettingsError: a value is not valid, or a `POLYVEC_*` variable is unknown; names it.
    """
    given = {} if dtype is None else {"dtype": dtype}
    if settings is None:
        return _build(EngineSettings, given)
    return _checked(EngineSettings, settings.model_dump() | given)


def load_server_settings(given: Mapping[str, Any]) -> ServerSettings:
    """A server's settings: `given`, then `POLYVEC_*` in the environment, then the defaults.

    Raises:
        SettingsError: a value is not valid, or a `POLYVEC_*` variable is unknown; names it.
    """
    return _build(ServerSettings, given)


def load_cluster_settings(given: Mapping[str, Any]) -> ClusterSettings:
    """A cluster's settings, as `load_server_settings` finds a server's.

    Raises:
        SettingsError: a value is not valid, or a `POLYVEC_*` variable is unknown; names it.
    """
    return _build(ClusterSettings, given)


def load_batch_settings(given: Mapping[str, Any]) -> BatchSettings:
    """A batch job's settings, as `load_server_settings` finds a server's.

    Raises:
        SettingsError: a value is not valid, or a `POLYVEC_*` variable is unknown; names it.
    """
    return _build(BatchSettings, given)


def _build(kind: type[S], given: Mapping[str, Any]) -> S:
    _check_environment()
    return _checked(kind, given)


def _checked(kind: type[S], given: Mapping[str, Any]) -> S:
    try:
        return kind(**given)
    except SourceError as error:
        raise SettingsError(
            f"A {PREFIX} variable in the environment cannot be read: {error}."
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:
            raise SettingsError(f"{first['msg'].removeprefix('Value error, ')}") from error
        name = str(first["loc"][0])
        raise SettingsError(
            f"{name} ({PREFIX}{name.upper()} in the environment) has the value {first['input']!r}: "
            f"{first['msg']}."
        ) from error


def _check_environment() -> None:
    # A variable for a server may stand in the environment of a batch job.
    known = {
        name.upper() for kind in (ClusterSettings, BatchSettings) for name in kind.model_fields
    }
    for name in os.environ:
        asked = name.removeprefix(PREFIX)
        if asked != name and asked not in known and name != API_KEY_VARIABLE:
            # Without what all names share, which would make any two of them alike.
            close = difflib.get_close_matches(asked, known, n=1)
            hint = f"Did you mean {PREFIX}{close[0]}?" if close else "Unset it."
            raise SettingsError(f"{name} in the environment is not a setting of polyvec. {hint}")
