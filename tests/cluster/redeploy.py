"""Deploys other checkpoints on a cluster that runs: what `serve deploy` does to an operator's cluster."""

import sys
from pathlib import Path

import ray
from ray import serve

from serving.cluster.app import APPLICATION, cluster_application
from serving.settings import ClusterSettings
from tests.cluster.clusters import CPUS, start_fake


def main() -> None:
    """Replace the application on the cluster that the arguments name, and wait until it runs."""
    address, models = sys.argv[1:]
    ray.init(address=address, log_to_driver=False)
    settings = ClusterSettings(
        min_replicas=("2", "code=1"), ingress_replicas=2, host="127.0.0.1", port=0, **CPUS
    )
    application = cluster_application(Path(models), ["retrieval", "code"], settings, start_fake)
    serve.run(application, name=APPLICATION, route_prefix="/")


if __name__ == "__main__":
    main()
