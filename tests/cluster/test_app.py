"""The application as `serve run` and Serve configs ask for it; nothing is started."""

from pathlib import Path

import pytest
from ray import serve

from serving.cluster.app import build
from serving.errors import CheckpointError, SettingsError, TaskError


def test_it_is_built_of_names_and_values(merged_float32: Path) -> None:
    application = build(
        {
            "models": str(merged_float32),
            "tasks": "retrieval, code",
            "min_replicas": "retrieval=2",
            "allow_no_keys": True,
            "gpus_per_replica": 0.33,
        }
    )
    assert isinstance(application, serve.Application)


@pytest.mark.parametrize(
    ("args", "error", "named"),
    [
        ({"models": None}, SettingsError, "models"),
        ({"models": "nowhere"}, CheckpointError, "nowhere"),
        ({"tasks": ["poetry"]}, TaskError, "poetry"),
        ({"min_replicas": "poetry=2"}, TaskError, "poetry"),
        ({"min_replica": "2"}, SettingsError, "min_replica"),
        ({"allow_no_keys": False}, SettingsError, "keys"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(
    merged_float32: Path, args: dict[str, object], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        build({"models": str(merged_float32), "allow_no_keys": True, **args})
