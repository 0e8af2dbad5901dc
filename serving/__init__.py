"""Serving merged checkpoints: the Python API.

    from serving import Embedder

Importing this starts nothing and imports no vLLM.
"""

from serving.embedder import Embedder
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
from serving.inputs import PageImage, Text
from serving.settings import EngineSettings, ServerSettings

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
