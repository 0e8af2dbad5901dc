"""Joins a Ray cluster, or starts Ray on this machine for as long as it is needed. Knows nothing of what runs on it."""

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

import serving
from serving.cluster.leftovers import descendants, end_all
from serving.errors import SettingsError

_NOTICES = "ray._private.authentication.authentication_token_setup"

LOCAL = "local"
"""An address that means: do not look for a cluster."""


def joins(address: str | None) -> bool:
    """Whether `address`, or the environment, names a cluster that runs already."""
    return (address or os.environ.get("RAY_ADDRESS") or LOCAL) != LOCAL


@contextmanager
def ray_session(
    address: str | None, *, environment: Mapping[str, str], least_cpus: float
) -> Iterator[None]:
    """Ray, until the block is left; what was started for it ends with it.

    What SIGTERM does stays as it was, where Ray would have the process exit at once.

    Args:
        address: of a running cluster, as `auto`; None is `RAY_ADDRESS`, or Ray started here.
        environment: variables for Ray's processes where it is started here, unless they are set already.
        least_cpus: CPUs that Ray started here counts at least, whatever the machine has: it would wait for
            ever for those it lacks.

    Raises:
        SettingsError: there is no cluster at `address`.
    """
    before = signal.getsignal(signal.SIGTERM)
    # Ray's own notices, and its workers' output, are no part of a command's.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if joins(address):
        try:
            ray.init(address=address or os.environ["RAY_ADDRESS"], **_quiet())
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SettingsError(
                f"There is no Ray cluster to join at {address or os.environ['RAY_ADDRESS']!r} ({error}). "
                "Start one (ray start --head), or leave ray_address out to start Ray on this machine."
            ) from error
    else:
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        # That Ray wants a token by default is a notice too. The mode cannot be set here instead: importing Ray
        # has read it for this process, while Ray's other processes would take the new one.
        logging.getLogger(_NOTICES).setLevel(logging.ERROR)
        with _importable():
            ray.init(
                address=LOCAL,
                num_cpus=max(len(os.sched_getaffinity(0)), math.ceil(least_cpus)),
                include_dashboard=False,
                **_quiet(),
            )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        started = [] if joins(address) else descendants()
        ray.shutdown()
        end_all(started)


@contextmanager
def _importable() -> Iterator[None]:
    """What is started in the block imports polyvec from where this process did, also from a checkout."""
    path = os.environ.get("PYTHONPATH")
    root = str(Path(serving.__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, path)))
    try:
        yield
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


def _quiet() -> dict[str, bool]:
    return {"log_to_driver": False, "configure_logging": False}
