"""What answers HTTP in a cluster: the same application as the single process, over replicas.

Ray Serve starts and stops it, and gives it requests. Knows the service and the application; nothing of
engines.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from ray import serve
from ray.serve.handle import DeploymentHandle

from serving.allocator import collect_seldom, keep_memory
from serving.cluster.board import board_of
from serving.cluster.engine import Patience, ReplicaEngine
from serving.http.app import application
from serving.http.edge import Draining
from serving.http.logs import configure_logs
from serving.http.metrics_merge import SharedMetrics
from serving.manifest import find_tasks, read_manifest
from serving.service import Lane, Service
from serving.settings import ClusterSettings

_LOOK_S = 1.0
_DRAIN_POLL_S = 0.05
_PAGES_S = 10.0
_REFUSE_S = 2.0


class Ingress:
    """The HTTP application behind Ray Serve."""

    async def __init__(  # type: ignore[misc] # Ray Serve awaits it
        self, models: Path, settings: ClusterSettings, replicas: dict[str, DeploymentHandle]
    ) -> None:
        """Open the application; replicas may come later.

        Args:
            models: what `polyvec merge` wrote; only manifests and tokenizers are read.
            settings: the cluster's.
            replicas: of each task.

        Raises:
            PolyvecError: a checkpoint cannot be served, or a setting is not valid.
        """
        configure_logs(settings.server_log_level, settings.log_format)
        torch.set_num_threads(1)
        keep_memory()
        collect_seldom()
        directories = find_tasks(models, list(replicas))
        self._engines = {
            task: ReplicaEngine(
                handle,
                board_of(handle.app_name, handle.deployment_name),
                settings.max_model_tokens or read_manifest(directories[task]).max_text_tokens,
                Patience(
                    replica_wait_s=settings.replica_wait_s,
                    max_attempts=settings.max_attempts,
                    may_sleep=settings.replicas(task).least == 0,
                ),
            )
            for task, handle in replicas.items()
        }
        self._service = Service.of_engines(directories, self._engines, settings)
        for task, engine in self._engines.items():
            engine.held_tokens = _num_tokens_of(self._service.lanes[task])
        self._draining = Draining()
        self._shared = SharedMetrics(self._pages)
        self._parts = AsyncExitStack()
        self._app = await self._parts.enter_async_context(
            application(self._service, settings, draining=self._draining, shared=self._shared)
        )
        self._look()
        self._looking = asyncio.create_task(self._keep_looking())

    def __serve_build_asgi_app__(self) -> Any:
        """The application; called by Ray Serve."""
        return self._app

    def metrics_page(self) -> tuple[str, str]:
        """This ingress's name and metrics; called by its siblings, and by itself."""
        assert self._shared.own is not None
        return serve.get_replica_context().replica_id.unique_id, self._shared.own()

    async def _pages(self) -> dict[str, str]:
        context = serve.get_replica_context()
        ingresses = serve.get_deployment_handle(context.deployment, context.app_name)
        answers = ingresses.broadcast("metrics_page")
        return dict(await answers.results_async(timeout_s=_PAGES_S))

    async def drain(self, delay_s: float, timeout_s: float) -> int:
        """Answer what was accepted, and then no more; called on every ingress before all is stopped.

        Args:
            delay_s: time in which health says no and requests are still taken.
            timeout_s: after that, time for accepted requests to be answered.

        Returns:
            Requests that were not answered in time.
        """
        self._draining.is_on = True
        await asyncio.sleep(delay_s)
        self._draining.refuses = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._until_answered()
        if lost := self._draining.num_open:
            # Whoever still waits for a replica is told that there will be no vectors.
            await self._service.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFUSE_S):
                    await self._until_answered()
        return lost

    async def _until_answered(self) -> None:
        while self._draining.num_open:
            await asyncio.sleep(_DRAIN_POLL_S)

    async def __del__(self) -> None:
        """Close the application; awaited by Ray Serve when what was accepted has been answered."""
        self._draining.is_on = True
        self._looking.cancel()
        with suppress(asyncio.CancelledError):
            await self._looking
        await self._service.close()
        await self._parts.aclose()

    def _look(self) -> None:
        """Give each task's queue as much as its replicas take."""
        for task, engine in self._engines.items():
            lane = self._service.lanes[task]
            lane.turns.resize(max(1, engine.num_replicas) * lane.running_tokens)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._look()


def _num_tokens_of(lane: Lane) -> Callable[[], int]:
    return lambda: lane.turns.admission.num_tokens
