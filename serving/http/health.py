"""Whether the server lives, and whether it can answer.

Live: the event loop runs. Ready: every engine answers, nothing else is still being loaded, and the server
is not on its way out.
"""

from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from serving.http.answer import JSON
from serving.http.edge import Draining
from serving.service import Service

LIVE_PATH = "/health/live"
READY_PATHS = ("/health/ready", "/health", "/ping")
HEALTH_PATHS = (LIVE_PATH, *READY_PATHS)


_LOADING = "What images need is still being loaded."


@dataclass(slots=True)
class Loading:
    """Whether something besides engines is being loaded, without which first requests take seconds."""

    is_on: bool = False


class LiveAnswer(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class ReadyAnswer(BaseModel):
    """How each engine stands."""

    status: Literal["ready", "unready", "stopping"]
    tasks: dict[str, str]


def health_routes(service: Service, draining: Draining, loading: Loading) -> APIRouter:
    """The routes that orchestrators and load balancers poll."""
    router = APIRouter(tags=["health"])

    async def live() -> LiveAnswer:
        """200 while the process answers at all."""
        return LiveAnswer()

    async def ready() -> Response:
        """200 when every engine answers; 503 while one does not, or while the server is stopping."""
        reasons = await service.unready()
        if loading.is_on:
            reasons = dict.fromkeys(service.tasks, _LOADING) | reasons
        tasks = {task: reasons.get(task, "ready") for task in service.tasks}
        if draining.is_on:
            return _ready(ReadyAnswer(status="stopping", tasks=tasks), 503)
        if reasons:
            return _ready(ReadyAnswer(status="unready", tasks=tasks), 503)
        return _ready(ReadyAnswer(status="ready", tasks=tasks), 200)

    router.add_api_route(LIVE_PATH, live, methods=["GET"], response_model=LiveAnswer)
    for path in READY_PATHS:
        router.add_api_route(
            path,
            ready,
            methods=["GET"],
            response_model=ReadyAnswer,
            responses={503: {"model": ReadyAnswer, "description": "An engine does not answer."}},
            operation_id=path.strip("/").replace("/", "_"),
        )
    return router


def _ready(answer: ReadyAnswer, status: int) -> Response:
    headers = {} if status == 200 else {"Retry-After": "5"}
    return Response(answer.model_dump_json(), status, headers, media_type=JSON)
