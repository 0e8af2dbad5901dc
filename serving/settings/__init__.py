"""Every default once: what engines, servers, clusters and batch jobs are started with."""

from serving.settings.batch import BatchSettings
from serving.settings.cluster import ClusterSettings
from serving.settings.engine import EngineSettings
from serving.settings.load import (
    load_batch_settings,
    load_cluster_settings,
    load_server_settings,
    load_settings,
)
from serving.settings.server import ServerSettings

__all__ = [
    "BatchSettings",
    "ClusterSettings",
    "EngineSettings",
    "ServerSettings",
    "load_batch_settings",
    "load_cluster_settings",
    "load_server_settings",
    "load_settings",
]
