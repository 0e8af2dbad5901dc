"""Which replica a call goes to: the one that holds the fewest tokens.

Ray Serve makes one of these in every process that calls a task. Knows Ray Serve's router interface and
the board; a call says its name and size in its keyword arguments (`serving.cluster.engine`).
"""

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from serving.cluster.board import Board, board_of


class TokenRouter(RequestRouter):  # type: ignore[misc] # Ray has no annotations
    """Routes by tokens held, where Ray Serve's own router goes by calls."""

    def initialize_state(self, **kwargs: Any) -> None:
        """Find this process's board of the deployment; called by Ray Serve."""
        del kwargs
        self._board: Board = board_of(self._deployment_id.app_name, self._deployment_id.name)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Called by Ray Serve with all replicas, whenever they change."""
        self._board.update([replica.replica_id.unique_id for replica in replicas])
        super().update_replicas(replicas)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each, best first; called by Ray Serve."""
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        names = self._board.ranked(by_name)
        if names and pending_request is not None:
            call = pending_request.kwargs
            self._board.charge(names[0], call["call"], call["num_tokens"])
            # Otherwise Serve would come back at once when all are full.
            pending_request.routing_context.should_backoff = True
        return [[by_name[name]] for name in names]
