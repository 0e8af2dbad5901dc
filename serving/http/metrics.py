"""What Prometheus reads: requests, inputs, tokens, batches, queues and engines.

Every label has a bounded set of values, whatever clients send. Names of keys are no label: keys come and
go while a server runs, so their series would grow without end, and they name customers to everyone who may
read metrics; per key, count the lines of the log. Knows no HTTP server and keeps no global state.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from serving.http.record import OTHER, RequestRecord
from serving.http.stages import Stage

NO_TASK = "none"
OPENMETRICS = "application/openmetrics-text"

STAGE_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0),
)
REQUEST_BUCKETS_S = (*STAGE_BUCKETS_S[3:], 300.0)
COUNT_BUCKETS = tuple(float(2**power) for power in range(12))
TOKEN_BUCKETS = tuple(float(2**power) for power in range(3, 21))


class Rejection(StrEnum):
    """Why a request was turned away before it cost the engine anything."""

    AUTHENTICATION = "authentication"
    REQUEST_LIMIT = "request_limit"
    TOKEN_LIMIT = "token_limit"
    CONCURRENCY_LIMIT = "concurrency_limit"
    LIMITS_UNAVAILABLE = "limits_unavailable"
    BODY_TOO_LARGE = "body_too_large"
    BODIES_FULL = "bodies_full"
    UPLOAD_TIMEOUT = "upload_timeout"
    QUEUE_FULL = "queue_full"
    ENGINE_DOWN = "engine_down"


class _Children(dict[tuple[str, ...], Counter]):
    """The counters of one name by their labels' values, made when they are first asked for.

    The library finds them behind a lock, with every value made a string again.
    """

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __missing__(self, values: tuple[str, ...]) -> Counter:
        child = self[values] = self._counter.labels(*values)
        return child


class Metrics:
    """The metrics of one server, in a registry of their own.

    Args:
        version: of polyvec.
        routes: templates of the routes that are served; other routes are counted as "other".
        tasks: tasks that are served; other tasks are counted as "other".
    """

    def __init__(self, version: str, routes: Collection[str], tasks: Collection[str]) -> None:
        self._routes = frozenset(routes)
        self._tasks = frozenset(tasks)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        Info("polyvec_build", "What is running.", registry=self._registry).info(
            {"version": version}
        )
        self._declare_requests()
        self._declare_engines()

    def _declare_requests(self) -> None:
        registry = self._registry
        self._requests = _Children(
            Counter(
                "polyvec_requests_total",
                "Requests answered.",
                ("route", "status", "task"),
                registry=registry,
            )
        )
        request_seconds = Histogram(
            "polyvec_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("route",),
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._request_seconds = {
            route: request_seconds.labels(route) for route in (*self._routes, OTHER)
        }
        stage_seconds = Histogram(
            "polyvec_stage_seconds",
            "Time of a request in one stage.",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._stage_seconds = {stage: stage_seconds.labels(stage.value) for stage in Stage}
        self._inputs = _Children(
            Counter(
                "polyvec_inputs_total", "Inputs asked for.", ("task", "kind"), registry=registry
            )
        )
        self._tokens = _Children(
            Counter("polyvec_tokens_total", "Tokens run.", ("task", "kind"), registry=registry)
        )
        self._request_inputs = Histogram(
            "polyvec_request_inputs",
            "Inputs of one request.",
            buckets=COUNT_BUCKETS,
            registry=registry,
        )
        self._in_progress = Gauge(
            "polyvec_requests_in_progress", "Requests being answered.", registry=registry
        )
        self._bodies_bytes = Gauge(
            "polyvec_bodies_bytes", "Bytes of request bodies in memory.", registry=registry
        )
        rejected = Counter(
            "polyvec_rejected_total", "Requests turned away.", ("reason",), registry=registry
        )
        # Every reason is there from the start, at 0, so that its first increase is seen as one.
        self._rejected = {reason: rejected.labels(reason.value) for reason in Rejection}

    def _declare_engines(self) -> None:
        registry = self._registry
        prompts = Histogram(
            "polyvec_engine_batch_prompts",
            "Prompts handed to an engine in one call.",
            ("task",),
            buckets=COUNT_BUCKETS,
            registry=registry,
        )
        tokens = Histogram(
            "polyvec_engine_batch_tokens",
            "Tokens handed to an engine in one call.",
            ("task",),
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        self._batch_prompts = {task: prompts.labels(task) for task in self._tasks}
        self._batch_tokens = {task: tokens.labels(task) for task in self._tasks}
        restarts = Counter(
            "polyvec_engine_restarts_total",
            "Restarts of an engine that died.",
            ("task",),
            registry=registry,
        )
        self._restarts = {task: restarts.labels(task) for task in self._tasks}
        self._engine_up = Gauge(
            "polyvec_engine_up", "1 while the engine answers.", ("task",), registry=registry
        )
        self._queued = Gauge(
            "polyvec_queued_tokens",
            "Tokens waiting for an engine.",
            ("task",),
            registry=registry,
        )
        self._running = Gauge(
            "polyvec_running_tokens", "Tokens handed to an engine.", ("task",), registry=registry
        )

    def watch_task(
        self,
        task: str,
        *,
        queued_tokens: Callable[[], int],
        running_tokens: Callable[[], int],
        engine_up: Callable[[], bool],
    ) -> None:
        """Ask these whenever metrics are read; they must be quick and not raise."""
        self._queued.labels(task).set_function(queued_tokens)
        self._running.labels(task).set_function(running_tokens)
        self._engine_up.labels(task).set_function(engine_up)

    def watch_bodies(self, bodies_bytes: Callable[[], int]) -> None:
        """Ask this whenever metrics are read; it must be quick and not raise."""
        self._bodies_bytes.set_function(bodies_bytes)

    def in_progress(self) -> AbstractContextManager[None]:
        """Counts a request as being answered while it is open."""
        return self._in_progress.track_inprogress()

    def observe_request(self, record: RequestRecord) -> None:
        """Count an answered request."""
        route = record.route if record.route in self._routes else OTHER
        task = self._task_label(record.task)
        self._requests[route, str(record.status), task].inc()
        self._request_seconds[route].observe(record.seconds)
        for time in record.stage_times:
            self._stage_seconds[time.stage].observe(time.busy_s)
        if record.inputs.total:
            self._observe_inputs(record, task)

    def _observe_inputs(self, record: RequestRecord, task: str) -> None:
        self._request_inputs.observe(record.inputs.total)
        for kind, num_inputs in (
            ("text", record.inputs.text),
            ("image", record.inputs.image),
            ("page", record.inputs.page),
            ("tokens", record.inputs.tokens),
        ):
            if num_inputs:
                self._inputs[task, kind].inc(num_inputs)
        for kind, num_tokens in (("text", record.tokens.text), ("image", record.tokens.image)):
            if num_tokens:
                self._tokens[task, kind].inc(num_tokens)

    def observe_batch(self, task: str, num_prompts: int, num_tokens: int) -> None:
        """Count one call of an engine."""
        self._batch_prompts[task].observe(num_prompts)
        self._batch_tokens[task].observe(num_tokens)

    def reject(self, reason: Rejection) -> None:
        """Count a request that was turned away; it is counted as answered as well."""
        self._rejected[reason].inc()

    def engine_restarted(self, task: str) -> None:
        """Count a restart of the engine of `task`."""
        self._restarts[task].inc()

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """The metrics now, and their content type: OpenMetrics where `accept` names it, else text."""
        # Only the media type is handed on: the library raises on versions that are not numbers.
        named = {part.partition(";")[0].strip().lower() for part in (accept or "").split(",")}
        encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in named else "")
        return encode(self._registry), content_type

    def _task_label(self, task: str | None) -> str:
        if task is None:
            return NO_TASK
        return task if task in self._tasks else OTHER
