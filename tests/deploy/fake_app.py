"""The application of the manifests, with engines whose vectors a test can compute."""

from pathlib import Path
from typing import Any

from ray import serve

from serving.cluster.app import cluster_application
from serving.settings import load_cluster_settings
from tests.cluster.clusters import start_fake


def build(args: dict[str, Any]) -> serve.Application:
    given = dict(args)
    models = Path(given.pop("models"))
    return cluster_application(models, None, load_cluster_settings(given), start_fake)
