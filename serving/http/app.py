"""The application: every route with its guard, made of a service and settings.

Knows how the parts fit; not how they work, nor what runs the application.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.errors import QueueFullError, SettingsError, TaskError
from serving.http.body import Bodies
from serving.http.catalogue import Catalogue, public_tasks
from serving.http.concurrency import Concurrency
from serving.http.desk import Desk
from serving.http.direct_routes import DirectRoutes, Endpoint
from serving.http.edge import Draining, Edge, Reports
from serving.http.embeddings import EmbeddingsRoute
from serving.http.errors import HttpError
from serving.http.fetch import Fetcher
from serving.http.guard import Guard
from serving.http.health import HEALTH_PATHS, Loading, health_routes
from serving.http.keys import Door, open_door
from serving.http.limits import RateLimits
from serving.http.limits_storage import LimitsStorage
from serving.http.listing import MODELS_PATH, listing_routes
from serving.http.metrics import Metrics
from serving.http.metrics_merge import CONTENT_TYPE, SharedMetrics, merged_metrics
from serving.http.openapi import EMBEDDINGS_SPEC, RERANK_SPEC, SCORE_SPEC, document
from serving.http.other_sites import OtherSites
from serving.http.playground.routes import SLASHED_PATH, Playground
from serving.http.ranking import RankingRoutes
from serving.http.sources import Sources
from serving.http.tracing import configure_tracing
from serving.pdf import PdfRenderer
from serving.service import Lane, Service
from serving.settings import ServerSettings
from serving.supervisor import EngineState

EMBEDDINGS_PATH = "/v1/embeddings"
RERANK_PATH = "/v1/rerank"
COHERE_RERANK_PATH = "/v2/rerank"
SCORE_PATH = "/v1/score"
METRICS_PATH = "/metrics"
DOCS_PATH = "/docs"
OPENAPI_PATH = "/openapi.json"

INGRESS_LABEL = "ingress"
"""On the samples of a metrics page that shows several processes: which."""

_PATHS = (
    EMBEDDINGS_PATH,
    RERANK_PATH,
    COHERE_RERANK_PATH,
    SCORE_PATH,
    MODELS_PATH,
    METRICS_PATH,
    DOCS_PATH,
    OPENAPI_PATH,
    *HEALTH_PATHS,
)


@asynccontextmanager
async def application(
    service: Service,
    settings: ServerSettings,
    *,
    draining: Draining | None = None,
    loading: Loading | None = None,
    shared: SharedMetrics | None = None,
) -> AsyncIterator[FastAPI]:
    """The application around `service`, until the block is left; `service` stays open.

    Args:
        service: what computes.
        settings: everything else.
        draining: switched on by whoever runs the application, when it is about to stop.
        loading: switched off by whoever runs it, when what it loads besides engines is there.
        shared: where there are several of it behind one address, whose metrics are shown together.

    Raises:
        SettingsError: the keys, the default task, the limits' storage, the hosts to fetch from, the
            endpoint of traces, or the playground's files.
    """
    draining = draining or Draining()
    playground = Playground.read() if settings.playground else None
    door = open_door(settings.keys)
    catalogue = _catalogue(service, settings)
    async with AsyncExitStack() as open_parts:
        storage = LimitsStorage(settings.limits_storage)
        open_parts.push_async_callback(storage.close)
        await storage.check()
        fetcher = Fetcher(settings)
        open_parts.push_async_callback(fetcher.close)
        pdfs = PdfRenderer(settings)
        open_parts.push_async_callback(pdfs.close)
        tracing = configure_tracing(settings, version("polyvec"))
        open_parts.push_async_callback(asyncio.to_thread, tracing.shutdown)
        bodies = Bodies(
            max_body_bytes=settings.max_body_bytes,
            max_total_bytes=settings.max_bodies_bytes,
            timeout_s=settings.upload_timeout_s,
        )
        metrics = _metrics(service, bodies, set(_labels(playground).values()))
        desk = Desk(
            settings=settings,
            catalogue=catalogue,
            guard=_guard(service, settings, bodies, storage),
            sources=Sources(
                fetcher,
                pdfs,
                service.preparing,
                max_image_bytes=settings.max_image_bytes,
                max_pdf_bytes=settings.max_pdf_bytes,
                max_page_pixels=_page_pixels(service),
            ),
            bodies=bodies,
        )
        if shared is not None:
            shared.own = lambda: metrics.render(None)[0].decode()
        endpoints = _endpoints(desk)
        app = _routes(desk, endpoints, service, metrics, shared)
        app.include_router(health_routes(service, draining, loading or Loading()))
        if playground is not None:
            app.include_router(playground.routes(desk, service, version("polyvec")))
        # What is added last is asked first.
        app.add_middleware(DirectRoutes, endpoints=endpoints)
        _add_edge(app, settings, playground, door, Reports(metrics, tracing), draining)
        yield app


def _labels(playground: Playground | None) -> dict[str, str]:
    """What logs and metrics call each path."""
    own = {path: path for path in _PATHS}
    return own if playground is None else own | playground.labels


def _add_edge(
    app: FastAPI,
    settings: ServerSettings,
    playground: Playground | None,
    door: Door,
    reports: Reports,
    draining: Draining,
) -> None:
    open_paths, browser_paths = set(HEALTH_PATHS), {DOCS_PATH, OPENAPI_PATH}
    if settings.metrics_without_key:
        open_paths.add(METRICS_PATH)
    if playground is not None:
        open_paths.add(SLASHED_PATH)
        browser_paths.update(playground.files)
    app.add_middleware(
        Edge,
        door=door,
        open_paths=open_paths,
        browser_paths=browser_paths,
        paths=_labels(playground),
        reports=reports,
        draining=draining,
        other_sites=OtherSites(settings.cors_origins, keyless=settings.keys is None),
    )
    if settings.cors_origins:
        # Around the edge: a browser asks without a key whether it may ask, and shows no error without these headers.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )


def _catalogue(service: Service, settings: ServerSettings) -> Catalogue:
    try:
        return Catalogue(
            service, model_name=settings.model_name, default_task=settings.default_task
        )
    except TaskError as error:
        raise SettingsError(
            f"default_task cannot be served: {settings.default_task!r}. "
            f"Name one of {public_tasks(service)}."
        ) from error


def _page_pixels(service: Service) -> int:
    """Pages are drawn finer than the model sees them: its own resizing then has something to choose from."""
    return 4 * max(lane.manifest.image.max_pixels for lane in service.lanes.values())


def _guard(
    service: Service, settings: ServerSettings, bodies: Bodies, storage: LimitsStorage
) -> Guard:
    return Guard(
        bodies,
        RateLimits(storage),
        # A place is held while a body arrives, its answer is computed, and that is read but for its last piece.
        Concurrency(storage, lease_s=settings.upload_timeout_s + 3 * settings.request_timeout_s),
        refusal=partial(_refusal, list(service.lanes.values())),
        timeout_s=settings.request_timeout_s,
    )


def _refusal(lanes: Sequence[Lane], caller: str) -> QueueFullError | None:
    """Why a usual call of `caller` finds no room at any engine; None when it does at one."""
    refusals = [lane.turns.admission.usual_refusal(caller) for lane in lanes]
    return None if None in refusals else refusals[0]


def _metrics(service: Service, bodies: Bodies, routes: Collection[str]) -> Metrics:
    metrics = Metrics(version("polyvec"), routes, service.tasks)
    metrics.watch_bodies(lambda: bodies.total_bytes)
    for task, lane in service.lanes.items():
        _watch(metrics, task, lane)

    def changed(task: str, state: EngineState) -> None:
        if state is EngineState.DEAD:
            metrics.engine_restarted(task)

    service.on_state = changed
    return metrics


def _watch(metrics: Metrics, task: str, lane: Lane) -> None:
    turns = lane.turns
    metrics.watch_task(
        task,
        queued_tokens=lambda: turns.admission.num_tokens - turns.running_tokens,
        running_tokens=lambda: turns.running_tokens,
        engine_up=lambda: lane.is_up,
    )
    turns.on_turn = partial(metrics.observe_batch, task)


def _endpoints(desk: Desk) -> dict[str, Endpoint]:
    """What answers the paths that compute."""
    embeddings, ranking = EmbeddingsRoute(desk), RankingRoutes(desk)
    return {
        EMBEDDINGS_PATH: embeddings.answer,
        RERANK_PATH: ranking.rerank,
        # Cohere's clients append this path themselves; the answer has its shape already.
        COHERE_RERANK_PATH: ranking.rerank,
        SCORE_PATH: ranking.score,
    }


def _routes(
    desk: Desk,
    endpoints: Mapping[str, Endpoint],
    service: Service,
    metrics: Metrics,
    shared: SharedMetrics | None,
) -> FastAPI:
    app = FastAPI(
        title="polyvec",
        version=version("polyvec"),
        description="Embeddings of texts, images and PDFs; compatible with the Jina and OpenAI APIs.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(HTTPException, _refused)
    specs = {EMBEDDINGS_PATH: EMBEDDINGS_SPEC, RERANK_PATH: RERANK_SPEC, SCORE_PATH: SCORE_SPEC}
    for path, spec in specs.items():
        app.add_api_route(
            path,
            endpoints[path],
            methods=["POST"],
            summary=spec.summary,
            description=spec.description,
            operation_id=spec.operation_id,
            response_model=None,
            responses=spec.responses,
            openapi_extra=spec.request_body,
            tags=["compute"],
        )
    app.add_api_route(
        COHERE_RERANK_PATH,
        endpoints[COHERE_RERANK_PATH],
        methods=["POST"],
        response_model=None,
        include_in_schema=False,
    )
    app.include_router(listing_routes(desk.catalogue, service, desk.settings.max_text_tokens))
    _add_own_pages(app, metrics, shared, with_keys=desk.settings.keys is not None)
    return app


def _add_own_pages(
    app: FastAPI, metrics: Metrics, shared: SharedMetrics | None, *, with_keys: bool
) -> None:
    async def read_metrics(request: Request) -> Response:
        if shared is not None:
            pages = await shared.pages()
            return Response(merged_metrics(pages, INGRESS_LABEL), media_type=CONTENT_TYPE)
        body, content_type = metrics.render(request.headers.get("accept"))
        return Response(body, media_type=content_type)

    async def read_openapi() -> JSONResponse:
        return JSONResponse(document(app, with_keys=with_keys))

    async def read_docs() -> Response:
        return get_swagger_ui_html(openapi_url=OPENAPI_PATH, title="polyvec")

    for path, page in (
        (METRICS_PATH, read_metrics),
        (OPENAPI_PATH, read_openapi),
        (DOCS_PATH, read_docs),
    ):
        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)


async def _refused(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, an unknown path or method, in the contract's shape."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        raise HttpError(
            405, "METHOD_NOT_ALLOWED", f"This path takes {allowed}.", headers=error.headers
        )
    raise HttpError(
        404,
        "RESOURCE_NOT_FOUND",
        f"There is nothing at this path. {_way_on(request.url.path)}",
    )


def _way_on(path: str) -> str:
    """What to do about a path that is not there: clients differ in what they put behind a base URL."""
    if path.startswith(("/v1/v1/", "/v1/v2/")):
        return "This client adds the version by itself: leave /v1 out of its base URL."
    if f"/v1{path}" in _PATHS:
        return "Put /v1 at the end of the client's base URL."
    return f"The API's paths begin with /v1; GET {DOCS_PATH} lists them."
