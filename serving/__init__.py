"""Serving merged checkpoints: the Python API.

    from serving import Embedder

Importing this starts nothing and imports neither torch nor vLLM: what it names is imported when it is used,
so that the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from serving.errors import (
    CheckpointError,
    EngineDeadError,
    EngineError,
    EngineStartError,
    EngineStoppedError,
    InputError,
    PolyvecError,
    QueueFullError,
    SettingsError,
    TaskError,
)

if TYPE_CHECKING:
    from serving.embedder import Embedder
    from serving.inputs import PageImage, Text
    from serving.settings import EngineSettings, ServerSettings

_LAZY = {
    "Embedder": "serving.embedder",
    "EngineSettings": "serving.settings",
    "PageImage": "serving.inputs",
    "ServerSettings": "serving.settings",
    "Text": "serving.inputs",
}

__all__ = [
    "CheckpointError",
    "Embedder",
    "EngineDeadError",
    "EngineError",
    "EngineSettings",
    "EngineStartError",
    "EngineStoppedError",
    "InputError",
    "PageImage",
    "PolyvecError",
    "QueueFullError",
    "ServerSettings",
    "SettingsError",
    "TaskError",
    "Text",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'serving' has no attribute {name!r}")
